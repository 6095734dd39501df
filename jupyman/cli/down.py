"""`jupyman down`."""

from __future__ import annotations

import click

from jupyman import api
from jupyman.cli.context import Context
from jupyman.cli.options import SessionName, json_option

# What is said of the server; else it runs on.
_REST = {"exited": "had exited already", "lost": "was left as it is"}


@click.command(epilog="Example: jupyman down server1")
@click.argument("sessions", nargs=-1, required=True, type=SessionName(), metavar="SESSION...")
@json_option
@click.pass_obj
def command(context: Context, sessions: tuple[str, ...], as_json: bool) -> int:
    """Close the forwards of sessions. Their servers run on; `jupyman up` forwards them again."""
    result = context.call(api.Down(sessions=list(sessions)))
    if as_json:
        context.dump(result)
    else:
        for session in result["sessions"]:
            rest = _REST.get(session["state"], "runs on")
            context.out(f"{session['name']}: forwards closed, the server on {session['host']} {rest}")
    return context.partly(result)
