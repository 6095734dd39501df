"""`jupyman logs`."""

from __future__ import annotations

import click

from jupyman import api, errors
from jupyman.cli.context import Context
from jupyman.cli.options import SessionName


@click.command(epilog="Example: jupyman logs server1 -n 20 -f")
@click.argument("session", required=False, type=SessionName())
@click.option("-n", "--lines", type=click.IntRange(0, 100_000), default=100, show_default=True, help="how many at most")
@click.option("-f", "--follow", is_flag=True, help="go on until Ctrl-C")
@click.pass_obj
def command(context: Context, session: str | None, lines: int, follow: bool) -> int:
    """Print the log of a session's server; tokens are blotted out."""
    try:
        context.call(api.Logs(session=session, lines=lines, follow=follow), quiet=True)
    except KeyboardInterrupt:
        if follow:
            return errors.Interrupted.status  # the way it ends: nothing to complain about
        raise
    return 0
