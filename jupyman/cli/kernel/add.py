"""`jupyman kernel add`."""

from __future__ import annotations

import click

from jupyman import api
from jupyman.cli.context import Context
from jupyman.cli.options import EnvName, Host, KernelName, TextLine, chosen_host, host_option, json_option


@click.command(epilog="Example: jupyman kernel add pytorch --host server1 --install")
@click.argument("env", type=EnvName())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@click.option("--name", type=KernelName(), help="the kernel's name; default: the environment's")
@click.option("--display-name", type=TextLine(), help="the name that Jupyter shows")
@click.option("--install/--no-install", default=None, help="install ipykernel if it is missing")
@click.option("--replace", is_flag=True, help="replace a kernel of that name that runs another environment")
@json_option
@click.pass_obj
def command(
    context: Context,
    /,
    *,
    env: str,
    positional: str | None,
    host: str | None,
    name: str | None,
    display_name: str | None,
    install: bool | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Register an environment as a kernel, start it, and run a cell in it; undone if that fails."""
    request = api.KernelAdd(
        env=env,
        host=chosen_host(host, positional),
        name=name,
        display_name=display_name,
        install=install,
        replace=replace,
    )
    result = context.call(request)
    for problem in result.problems:
        context.note(f"{problem.severity}: {problem.text} ({problem.fix})")
    if as_json:
        context.dump(result)
    else:
        done = "refreshed" if result.refreshed else "added"
        context.out(f"{done} kernel {result.kernel.name}: {result.executable} (Python {result.python})")
