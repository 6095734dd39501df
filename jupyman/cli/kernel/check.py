"""`jupyman kernel check`."""

from __future__ import annotations

import shlex

import click

from jupyman import api, errors
from jupyman.cli.context import Context
from jupyman.cli.kernel.ls import table
from jupyman.cli.options import Host, KernelOrHost, chosen_host, host_option, json_option
from jupyman.rules import is_kernel_name


@click.command(epilog="Example: jupyman kernel check pytorch --host server1 --fix")
@click.argument("name", required=False, type=KernelOrHost())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@click.option("--fix", is_flag=True, help="show the command that fixes each problem, ask, and run it on the host")
@click.option("-y", "--yes", is_flag=True, help="with --fix: do not ask")
@json_option
@click.pass_obj
def command(
    context: Context,
    /,
    *,
    name: str | None,
    positional: str | None,
    host: str | None,
    fix: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Start kernels to check that they and their widgets (progress bars) work.

    The exit status is 25 if a named kernel cannot run. A single word that is the name of a known host means the host.
    Without a name all kernels of the host are checked, except those of another user's environment, whose code would
    run as you.
    """
    host = chosen_host(host, positional)
    if name is not None and not is_kernel_name(name):
        host, name = chosen_host(host, name), None
    if yes and not fix:
        raise errors.UsageFault("--yes answers the questions of --fix", "add --fix, or leave out --yes")
    result = context.call(api.KernelCheck(name=name, host=host, fix=fix, yes=yes), quiet=as_json)
    if as_json:
        context.dump(result)
    else:
        context.out(table(result.kernels, checked=True))
        done = [repair for repair in result.repairs if repair.state == "done"]
        for repair in done:
            context.out(f"done: {shlex.join(repair.command)}")
        if done:
            context.note("reload the browser tab and restart the kernel to see the effect")
        context.out_problems(result.problems)
    broken = name is not None and any(one.ok is False and one.name == name.lower() for one in result.kernels)
    return errors.KernelFault.status if broken else 0
