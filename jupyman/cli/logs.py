"""`jupyman logs`."""

from __future__ import annotations

import click

from jupyman import api
from jupyman.cli.context import Context
from jupyman.cli.options import SessionName


@click.command(epilog="Example: jupyman logs server1 -n 20 -f")
@click.argument("session", required=False, type=SessionName())
@click.option("-n", "--lines", type=click.IntRange(0, 100000), default=100, show_default=True, help="how many of the last")
@click.option("-f", "--follow", is_flag=True, help="go on until Ctrl-C")
@click.pass_obj
def command(context: Context, session: str | None, lines: int, follow: bool) -> None:
    """Print the log of a session's server; tokens are blotted out."""
    context.call(api.Logs(session=session, lines=lines, follow=follow), quiet=True)
