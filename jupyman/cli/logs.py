"""`jupyman logs`."""

from __future__ import annotations

import click

from jupyman import api, errors
from jupyman.cli.context import Context
from jupyman.cli.options import SessionName, lines_option


@click.command(epilog="Example: jupyman logs server1 -n 20 -f")
@click.argument("session", required=False, type=SessionName())
@lines_option
@click.option("-f", "--follow", is_flag=True, help="follow the log until Ctrl-C")
@click.pass_obj
def command(context: Context, session: str | None, lines: int, follow: bool) -> int:
    """Print the log of a session's server; tokens are redacted."""
    try:
        context.call(api.Logs(session=session, lines=lines, follow=follow), quiet=True)
    except KeyboardInterrupt:
        if follow:
            return errors.Interrupted.status  # the usual way to end it: no error message
        raise
    return 0
