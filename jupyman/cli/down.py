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
@click.option("--release", is_flag=True, help="free the local ports, too: any user of this computer can have them then")
@json_option
@click.pass_obj
def command(context: Context, sessions: tuple[str, ...], release: bool, as_json: bool) -> int:
    """Close the forwards of sessions. Their servers run on; `jupyman up` forwards them again.

    The local ports stay bound, so that nobody else can hear open tabs; a page there says that the session is down.
    """
    result = context.call(api.Down(sessions=list(sessions), release=release))
    if as_json:
        context.dump(result)
    else:
        for session in result["sessions"]:
            rest = _REST.get(session["state"], "runs on")
            held = f"; {session['held']} stays reserved (--release frees it)" if session["held"] else ""
            context.out(f"{session['name']}: forwards closed, the server on {session['host']} {rest}{held}")
    return context.partly(result)
