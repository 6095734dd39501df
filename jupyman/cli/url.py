"""`jupyman url`."""

from __future__ import annotations

import click

from jupyman import api
from jupyman.cli.context import Context
from jupyman.cli.options import SessionName, json_option


@click.command(epilog="Example: jupyman url server1")
@click.argument("session", required=False, type=SessionName())
@json_option
@click.pass_obj
def command(context: Context, session: str | None, as_json: bool) -> None:
    """Print a session's URL with its token, for editors and other programs."""
    result = context.call(api.Url(session=session))
    if as_json:
        context.dump(result)
    else:
        context.out(result.url)
