"""`jupyman kernel`."""

from __future__ import annotations

import shlex
from typing import Any

import click

from jupyman import api, errors
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import (
    EnvName,
    Host,
    KernelName,
    KernelOrHost,
    TextLine,
    chosen_host,
    host_option,
    is_kernel_name,
    json_option,
)


@click.group("kernel", epilog="Example: jupyman kernel add pytorch")
def command() -> None:
    """Jupyter kernels of a host's environments."""


@command.command(epilog="Example: jupyman kernel add pytorch --host server1 --install")
@click.argument("env", type=EnvName())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@click.option("--name", type=KernelName(), help="the kernel's name; default: the environment's")
@click.option("--display-name", type=TextLine(), help="what Jupyter shows")
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
    """List the kernels that Jupyter finds on the host, and whose servers show each."""
    result = context.call(api.KernelLs(host=chosen_host(host, positional)), quiet=as_json)
    if as_json:
        context.dump(result)
    else:
        context.out(_table(result["kernels"]))


@command.command(epilog="Example: jupyman kernel check pytorch --host server1 --fix")
@click.argument("name", required=False, type=KernelOrHost())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@click.option("--fix", is_flag=True, help="show the command that mends each problem, ask, and run it on the host")
@click.option("-y", "--yes", is_flag=True, help="with --fix: do not ask")
@json_option
@click.pass_obj
def check(
    context: Context,
    /,
    name: str | None,
    positional: str | None,
    host: str | None,
    fix: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Start kernels to see that they work, and whether widgets (progress bars) do.

    A named one that cannot run: status 25. One word that is a known host's name means the host. Without a name: all
    kernels of the host, but none of another user's environment, whose code would run as you.
    """
    host = chosen_host(host, positional)
    if name is not None and not is_kernel_name(name):
        host, name = chosen_host(host, name), None
    if yes and not fix:
        raise errors.UsageFault("--yes answers the questions of --fix", "say --fix as well, or neither")
    result = context.call(api.KernelCheck(name=name, host=host, fix=fix, yes=yes), quiet=as_json)
    kernels: list[dict[str, Any]] = result["kernels"]
    if as_json:
        context.dump(result)
    else:
        context.out(_table(kernels, checked=True))
        for repair in result["repairs"]:
            if repair["state"] == "done":
                context.out(f"done: {shlex.join(repair['command'])}")
        if any(repair["state"] == "done" for repair in result["repairs"]):
            context.note("reload the browser's tab and restart the kernel to see it")
        if result["problems"]:
            context.out("\nproblems:")
        for problem in result["problems"]:
            context.out(f"  {problem['severity']}: {problem['text']}\n    fix: {problem['fix']}")
    broken = name is not None and any(one["ok"] is False and one["name"] == name.lower() for one in kernels)
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


def _table(kernels: list[dict[str, Any]], *, checked: bool = False) -> str:
    """Lay out kernels; many are called python3, so where each runs and who shows it stands beside the name."""
    words = {True: "ok", False: "broken", None: "-"}
    heads = ["KERNEL", "ENVIRONMENT", "SERVERS", "STATE", "NAME", "PREFIX", "PROBLEM"]
    rows = []
    for one in kernels:
        servers = "all" if one["seen_by"] is None else ", ".join(one["seen_by"]) or "none"
        row = [one["name"], one["environment"] or "-", servers, words[one["ok"]], one["display_name"]]
        rows.append([*row, one["prefix"] or "-", one["problem"] or ""])
        if checked:
            rows[-1].insert(4, one["ipywidgets"] or "-")
    if checked:
        heads.insert(4, "WIDGETS")
    return terminal.table(heads, rows)
