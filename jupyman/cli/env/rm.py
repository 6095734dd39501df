"""`jupyman env rm`."""

from __future__ import annotations

import click

from jupyman import api
from jupyman.cli.context import Context
from jupyman.cli.options import EnvName, Host, chosen_host, host_option, json_option, yes_option


@click.command(epilog="Example: jupyman env rm pytorch server1")
@click.argument("env", type=EnvName())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@yes_option
@click.option("--force", is_flag=True, help="even if programs run from it; they are not stopped")
@json_option
@click.pass_obj
def command(
    context: Context, /, *, env: str, positional: str | None, host: str | None, yes: bool, force: bool, as_json: bool
) -> None:
    """Remove an environment of your own with its kernels. A running installation of it is stopped."""
    result = context.call(api.EnvRm(env=env, host=chosen_host(host, positional), yes=yes, force=force))
    if as_json:
        context.dump(result)
    else:
        kernels = f" and kernel {', '.join(result.kernels)}" if result.kernels else ""
        context.out(f"removed {result.prefix}{kernels}")
