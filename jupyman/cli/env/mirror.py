"""`jupyman env mirror`."""

from __future__ import annotations

import click

from jupyman import api
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import Host, MirrorName, chosen_host, host_option, json_option, yes_option


@click.group("mirror", epilog="Example: jupyman env mirror use tuna server1")
def command() -> None:
    """Manage mirrors of conda's channels and of PyPI for your account on a host."""


@command.command(epilog="Example: jupyman env mirror ls server1")
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@json_option
@click.pass_obj
def ls(context: Context, positional: str | None, host: str | None, as_json: bool) -> None:
    """List the mirrors, and how fast the host reaches each; * marks those in use."""
    result = context.call(api.EnvMirrorLs(host=chosen_host(host, positional)), quiet=as_json)
    if as_json:
        context.dump(result)
        return
    rows = [
        (
            one.name + (" *" if one.name in result.used else ""),
            _answer(one.conda_seconds, one.conda),
            _answer(one.pip_seconds, one.pip),
            one.conda or "-",
            one.pip or "-",
        )
        for one in result.mirrors
    ]
    context.out(terminal.table(("MIRROR", "CONDA", "PIP", "CONDA URL", "PIP URL"), rows))
    if result.fastest:
        context.note(f"fastest from there: {result.fastest}")


@command.command(epilog="Example: jupyman env mirror use tuna server1")
@click.argument("name", type=MirrorName())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@yes_option
@json_option
@click.pass_obj
def use(context: Context, name: str, positional: str | None, host: str | None, yes: bool, as_json: bool) -> None:
    """Write a mirror into .condarc and pip.conf on the host: shows the change, asks, and keeps a backup."""
    request = api.EnvMirror(action="use", name=name, host=chosen_host(host, positional), yes=yes)
    _write(context, request, as_json=as_json)


@command.command(epilog="Example: jupyman env mirror reset server1")
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@yes_option
@json_option
@click.pass_obj
def reset(context: Context, positional: str | None, host: str | None, yes: bool, as_json: bool) -> None:
    """Restore the files from before the first `use`."""
    _write(context, api.EnvMirror(action="reset", host=chosen_host(host, positional), yes=yes), as_json=as_json)


def _write(context: Context, request: api.EnvMirror, *, as_json: bool) -> None:
    # The proposed change is no result.
    result = context.call(request, on_output=context.note)
    if as_json:
        context.dump(result)
    elif result.changed:
        context.note(f"changed: {', '.join(result.changed)}")
    else:
        context.note("nothing had to be changed")


def _answer(seconds: float | None, url: str | None) -> str:
    if url is None:
        return "-"
    return "not reached" if seconds is None else f"{seconds:.1f} s"
