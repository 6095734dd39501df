"""`jupyman down`."""

from __future__ import annotations

import click

from jupyman import api
from jupyman.cli.context import Context
from jupyman.cli.options import SessionName, json_option

# What is printed about a server that is not known to run.
_SERVERS = {"exited": "had already exited", "lost": "was left as it is"}


@click.command(epilog="Example: jupyman down server1")
@click.argument("sessions", nargs=-1, required=True, type=SessionName(), metavar="SESSION...")
@click.option("--release", is_flag=True, help="also free the local ports; any user of this computer can then take them")
@json_option
@click.pass_obj
def command(context: Context, sessions: tuple[str, ...], release: bool, as_json: bool) -> int:
    """Close the forwards of sessions. Their servers keep running; `jupyman up` forwards them again.

    The local ports stay bound, so that no other user can receive what open tabs send; a page at the port reports that
    the session is down.
    """
    result = context.call(api.Down(sessions=list(sessions), release=release))
    if as_json:
        context.dump(result)
    else:
        for session in result.sessions:
            server = _SERVERS.get(session.state, "keeps running")
            held = f"; {session.held} stays reserved (--release frees it)" if session.held else ""
            context.out(f"{session.name}: forwards closed, the server on {session.host} {server}{held}")
    return context.partly(result)
