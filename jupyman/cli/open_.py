"""`jupyman open`."""

from __future__ import annotations

import click
import msgspec

from jupyman import api
from jupyman.cli.context import Context
from jupyman.cli.options import SessionName, json_option


@click.command("open", epilog="Example: jupyman open server1")
@click.argument("session", required=False, type=SessionName())
@json_option
@click.pass_obj
def command(context: Context, session: str | None, as_json: bool) -> None:
    """Open a session in the local browser with a one-time URL that has no token."""
    result = context.call(api.OpenCode(session=session))
    if as_json:
        context.dump(msgspec.structs.replace(result, opened=bool(context.opened)))
    elif context.opened:
        context.note(f"opened {result.name}")
    else:
        context.note(f"jupyman url {result.name} prints the URL")
