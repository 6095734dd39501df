"""`jupyman env ls`."""

from __future__ import annotations

import click

from jupyman import api
from jupyman.cli.context import Context
from jupyman.cli.options import Host, json_option
from jupyman.cli.tables import environments


@click.command(epilog="Example: jupyman env ls server1 --json")
@click.argument("host", required=False, type=Host())
@json_option
@click.pass_obj
def command(context: Context, host: str | None, as_json: bool) -> None:
    """List the environments, also those that are being installed or are incomplete."""
    result = context.call(api.EnvLs(host=host), quiet=as_json)
    if as_json:
        context.dump(result)
    elif result.environments:
        context.out(environments(result.environments))
    else:
        context.note("no environments were found")
