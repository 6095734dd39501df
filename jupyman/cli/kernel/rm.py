"""`jupyman kernel rm`."""

from __future__ import annotations

import click

from jupyman import api
from jupyman.cli.context import Context
from jupyman.cli.options import Host, KernelName, chosen_host, host_option, json_option, yes_option


@click.command(epilog="Example: jupyman kernel rm pytorch --host server1")
@click.argument("name", type=KernelName())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@yes_option
@json_option
@click.pass_obj
def command(
    context: Context, /, *, name: str, positional: str | None, host: str | None, yes: bool, as_json: bool
) -> None:
    """Remove a kernel of your own; its environment stays."""
    result = context.call(api.KernelRm(name=name, host=chosen_host(host, positional), yes=yes))
    if as_json:
        context.dump(result)
    else:
        context.out(f"removed kernel {result.removed}")
