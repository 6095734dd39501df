"""`jupyman env logs`."""

from __future__ import annotations

import click

from jupyman import api, errors
from jupyman.cli.context import Context
from jupyman.cli.options import EnvName, Host, chosen_host, host_option, lines_option


@click.command(epilog="Example: jupyman env logs pytorch server1 -f")
@click.argument("name", type=EnvName())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@lines_option
@click.option("-f", "--follow", is_flag=True, help="follow it to its end, or until Ctrl-C; the installation goes on")
@click.pass_obj
def command(context: Context, name: str, positional: str | None, host: str | None, lines: int, follow: bool) -> int:
    """Print the log of an installation; with --follow the exit status is 27 if it fails."""
    request = api.EnvLogs(name=name, host=chosen_host(host, positional), lines=lines, follow=follow)
    try:
        context.call(request, quiet=True)
    except KeyboardInterrupt:
        if follow:
            return errors.Interrupted.status  # the usual way to end it: no error message
        raise
    return 0
