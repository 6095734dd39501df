"""`jupyman kernel ls`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from jupyman import api
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import Host, chosen_host, host_option, json_option
from jupyman.model import KernelSpec

_STATES = {True: "ok", False: "broken", None: "-"}


@click.command(epilog="Example: jupyman kernel ls --host server1")
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@json_option
@click.pass_obj
def command(context: Context, positional: str | None, host: str | None, as_json: bool) -> None:
    """List the kernels that Jupyter finds on the host, and which servers list each."""
    result = context.call(api.KernelLs(host=chosen_host(host, positional)), quiet=as_json)
    if as_json:
        context.dump(result)
    else:
        context.out(table(result.kernels))


def table(kernels: Iterable[KernelSpec], *, checked: bool = False) -> str:
    """Lay out kernels as a table; many are named python3, so the environment and the servers follow the name.

    Args:
        kernels: the rows.
        checked: they were started: their ipywidgets are known.
    """
    heads = ["KERNEL", "ENVIRONMENT", "SERVERS", "STATE", "NAME", "PREFIX", "PROBLEM"]
    rows = []
    for one in kernels:
        servers = "all" if one.seen_by is None else ", ".join(one.seen_by) or "none"
        row = [one.name, one.environment or "-", servers, _STATES[one.ok], one.display_name]
        rows.append([*row, one.prefix or "-", one.problem or ""])
        if checked:
            rows[-1].insert(4, one.ipywidgets or "-")
    if checked:
        heads.insert(4, "WIDGETS")
    return terminal.table(heads, rows)
