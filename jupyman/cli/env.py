"""`jupyman env`."""

from __future__ import annotations

import click

from jupyman import api, errors
from jupyman.cli.check import environments
from jupyman.cli.context import Context
from jupyman.cli.options import Host, json_option

LATER = {"create", "rm", "logs", "push", "mirror"}


class Verbs(click.Group):
    """Knows the verbs that are still to come."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a verb."""
        if cmd_name in LATER:
            raise errors.UsageFault(f"jupyman env {cmd_name} is not there yet", "not in this version")
        return super().get_command(ctx, cmd_name)


@click.group("env", cls=Verbs, epilog="Example: jupyman env ls server1")
def command() -> None:
    """The environments of a host: conda, mamba, micromamba, venv, uv."""


@command.command("ls", epilog="Example: jupyman env ls server1 --json")
@click.argument("host", required=False, type=Host())
@json_option
@click.pass_obj
def ls(context: Context, host: str | None, as_json: bool) -> None:
    """List the environments."""
    result = context.call(api.EnvLs(host=host), quiet=as_json)
    if as_json:
        context.dump(result)
    elif result["environments"]:
        context.out(environments(result["environments"]))
    else:
        context.note("no environments were found")
