"""`jupyman tunnel`."""

from __future__ import annotations

import re

import click

from jupyman import api, errors
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import Host, chosen_host, host_option, json_option
from jupyman.config import check_port

_SPEC = re.compile(r"([0-9]+)(?::(?:(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._][A-Za-z0-9._-]*):)?([0-9]+))?")


@click.command(
    epilog="""\b
Examples:
  jupyman tunnel 6006
  jupyman tunnel 8080:80 5000:10.0.0.3:5000 --host server1
  jupyman tunnel 6006 --close"""
)
@click.argument("specs", nargs=-1, required=True, metavar="PORT[:[ADDR:]REMOTE_PORT]... [HOST]")
@host_option
@click.option("--close", is_flag=True, help="close these forwards")
@click.option(
    "--share/--no-share", default=None, help="let other users of this computer connect too; default: only you and root"
)
@click.option("-y", "--yes", is_flag=True, help="also to a port that another person has on the host")
@json_option
@click.pass_obj
def command(
    context: Context,
    specs: tuple[str, ...],
    host: str | None,
    close: bool,
    share: bool | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Forward further ports, as `ssh -L` does, but kept alive and remembered."""
    words = list(specs)
    positional = None
    # Addresses and some aliases begin with a digit too: what is no forward is the host.
    if len(words) > 1 and not _SPEC.fullmatch(words[-1]):
        positional = Host().convert(words.pop(), None, None)
    for word in words:
        _check(word)
    request = api.Tunnel(specs=words, host=chosen_host(host, positional), close=close, share=share, yes=yes)
    result = context.call(request)
    if as_json:
        context.dump(result)
        return context.partly(result)
    heads = ("FORWARD", "HOST", "REMOTE", "STATE")
    rows = [(f["local"], f["host"], f["remote"], "closed" if close else f["state"]) for f in result["forwards"]]
    context.out(terminal.table(heads, rows))
    return context.partly(result)


def _check(word: str) -> None:
    match = _SPEC.fullmatch(word)
    if match is None:
        raise errors.UsageFault(f"{word!r} is not a forward", "write PORT, PORT:REMOTE_PORT or PORT:ADDR:REMOTE_PORT")
    for port in match.groups():
        if port is not None:
            check_port(int(port))
