"""`jupyman env mirror`."""

from __future__ import annotations

import click

from jupyman import api
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import Host, MirrorName, chosen_host, host_option, json_option


@click.group(epilog="Example: jupyman env mirror use tuna server1")
def mirror() -> None:
    """Mirrors of conda's channels and of PyPI, for an account of a host."""


@mirror.command(epilog="Example: jupyman env mirror ls server1")
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@json_option
@click.pass_obj
def ls(context: Context, positional: str | None, host: str | None, as_json: bool) -> None:
    """List the mirrors, which of them the host reaches, and which answers first."""
    result = context.call(api.EnvMirror(action="ls", host=chosen_host(host, positional)), quiet=as_json)
    if as_json:
        context.dump(result)
        return
    rows = [
        (
            one["name"] + (" *" if one["name"] in result["used"] else ""),
            _answer(one["conda_seconds"], one["conda"]),
            _answer(one["pip_seconds"], one["pip"]),
            one["conda"] or "-",
            one["pip"] or "-",
        )
        for one in result["mirrors"]
    ]
    context.out(terminal.table(("MIRROR", "CONDA", "PIP", "CONDA'S ADDRESS", "PIP'S ADDRESS"), rows))
    if result["fastest"]:
        context.note(f"the fastest from there: {result['fastest']}")


@mirror.command(epilog="Example: jupyman env mirror use tuna server1")
@click.argument("name", type=MirrorName())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@click.option("-y", "--yes", is_flag=True, help="do not ask")
@json_option
@click.pass_obj
def use(context: Context, name: str, positional: str | None, host: str | None, yes: bool, as_json: bool) -> None:
    """Write a mirror into the host's .condarc and pip.conf: shows the change, asks, and keeps what was there."""
    request = api.EnvMirror(action="use", name=name, host=chosen_host(host, positional), yes=yes)
    _written(context, request, as_json=as_json)


@mirror.command(epilog="Example: jupyman env mirror reset server1")
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@click.option("-y", "--yes", is_flag=True, help="do not ask")
@json_option
@click.pass_obj
def reset(context: Context, positional: str | None, host: str | None, yes: bool, as_json: bool) -> None:
    """Put the files back that were there before the first `use`."""
    _written(context, api.EnvMirror(action="reset", host=chosen_host(host, positional), yes=yes), as_json=as_json)


def _written(context: Context, request: api.EnvMirror, *, as_json: bool) -> None:
    # What would be changed is no result.
    result = context.call(request, on_output=context.note)
    if as_json:
        context.dump(result)
    elif result["changed"]:
        context.note(f"changed: {', '.join(result['changed'])}")
    else:
        context.note("nothing had to be changed")


def _answer(seconds: float | None, address: str | None) -> str:
    if address is None:
        return "-"
    return "not reached" if seconds is None else f"{seconds:.1f} s"
