"""`jupyman demo`."""

from __future__ import annotations

import click

from jupyman.cli.context import Context


@click.command(epilog="Example: jupyman demo --once")
@click.option("--once", is_flag=True, help="run everything once, clean up and exit")
@click.option("--no-browser", is_flag=True, help="do not open a browser")
@click.pass_obj
def command(context: Context, once: bool, no_browser: bool) -> int:
    """Run everything against a temporary SSH host on this computer; needs the extra `demo`."""
    from jupyman.demo.flow import run

    # Without a terminal there is no Ctrl-C.
    once = once or not context.interactive
    return run(once=once, browser=not (once or no_browser), say=context.out)
