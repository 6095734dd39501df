"""`jupyman demo`."""

from __future__ import annotations

import click

from jupyman.cli.context import Context


@click.command(epilog="Example: jupyman demo --once")
@click.option("--once", is_flag=True, help="run the flow, clean up and return")
@click.option("--no-browser", is_flag=True, help="open nothing")
@click.pass_obj
def command(context: Context, once: bool, no_browser: bool) -> int:
    """Run the whole flow against a throw-away SSH host on this computer; needs the extra `demo`."""
    from jupyman.demo.flow import run

    # Without a terminal nobody can press Ctrl-C.
    once = once or not context.interactive
    return run(once=once, browser=not (once or no_browser), say=context.out)
