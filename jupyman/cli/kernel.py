"""`jupyman kernel`."""

from __future__ import annotations

from typing import Any

import click

from jupyman import api, errors
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import EnvName, Host, KernelName, Line, chosen_host, host_option, json_option


@click.group("kernel", epilog="Example: jupyman kernel add pytorch")
def command() -> None:
    """Jupyter kernels of a host's environments."""


@command.command(epilog="Example: jupyman kernel add pytorch --host server1 --install")
@click.argument("env", type=EnvName())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@click.option("--name", type=KernelName(), help="the kernel's name; default: the environment's")
@click.option("--display-name", type=Line(), help="what Jupyter shows")
@click.option("--install/--no-install", default=None, help="install ipykernel where it is missing")
@click.option("--replace", is_flag=True, help="replace a kernel of that name that runs another environment")
@json_option
@click.pass_obj
def add(context: Context, /, positional: str | None, host: str | None, as_json: bool, **options: Any) -> None:
    """Register an environment as a kernel, start it, and run a cell in it; undone where that fails."""
    result = context.call(api.KernelAdd(host=chosen_host(host, positional), **options))
    for problem in result["problems"]:
        context.note(f"{problem['severity']}: {problem['text']} ({problem['fix']})")
    if as_json:
        context.dump(result)
    else:
        done = "refreshed" if result["refreshed"] else "added"
        context.out(f"{done} kernel {result['kernel']['name']}: {result['executable']} (Python {result['python']})")


@command.command(epilog="Example: jupyman kernel ls --host server1")
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@json_option
@click.pass_obj
def ls(context: Context, positional: str | None, host: str | None, as_json: bool) -> None:
    """List the kernels that Jupyter sees on the host."""
    _show(context, api.KernelLs(host=chosen_host(host, positional)), as_json=as_json)


@command.command(epilog="Example: jupyman kernel check pytorch")
@click.argument("name", required=False, type=KernelName())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@json_option
@click.pass_obj
def check(context: Context, name: str | None, positional: str | None, host: str | None, as_json: bool) -> int:
    """Look whether kernels can run: their environment may have vanished. A named one that cannot: status 25."""
    kernels = _show(context, api.KernelLs(host=chosen_host(host, positional), name=name, check=True), as_json=as_json)
    broken = name is not None and any(one["ok"] is False for one in kernels)
    return errors.KernelFault.status if broken else 0


@command.command(epilog="Example: jupyman kernel rm pytorch --host server1")
@click.argument("name", type=KernelName())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@click.option("-y", "--yes", is_flag=True, help="do not ask")
@json_option
@click.pass_obj
def rm(context: Context, /, *, name: str, positional: str | None, host: str | None, yes: bool, as_json: bool) -> None:
    """Remove a kernel of your own; its environment stays."""
    result = context.call(api.KernelRm(name=name, host=chosen_host(host, positional), yes=yes))
    if as_json:
        context.dump(result)
    else:
        context.out(f"removed kernel {result['removed']}")


def _show(context: Context, request: api.KernelLs, *, as_json: bool) -> list[dict[str, Any]]:
    result = context.call(request, quiet=as_json)
    kernels: list[dict[str, Any]] = result["kernels"]
    if as_json:
        context.dump(result)
        return kernels
    words = {True: "ok", False: "broken", None: "-"}
    rows = [
        (one["name"], one["display_name"], words[one["ok"]], one["prefix"] or "-", one["problem"] or "")
        for one in kernels
    ]
    context.out(terminal.table(("KERNEL", "NAME", "STATE", "PREFIX", "PROBLEM"), rows))
    return kernels
