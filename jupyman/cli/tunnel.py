"""`jupyman tunnel`."""

from __future__ import annotations

import click

from jupyman import api, rules
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import Host, chosen_host, host_option, json_option


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
@click.option("-y", "--yes", is_flag=True, help="also to a port that another user of the host listens on")
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
    """Forward more ports, as `ssh -L` does; jupyman remembers the forwards and keeps them alive."""
    words = list(specs)
    positional = None
    # Addresses and some aliases begin with a digit too: a last word that is not a forward is the host.
    if len(words) > 1 and not rules.is_forward(words[-1]):
        positional = Host().convert(words.pop(), None, None)
    for word in words:
        rules.parse_forward(word)
    request = api.Tunnel(specs=words, host=chosen_host(host, positional), close=close, share=share, yes=yes)
    result = context.call(request)
    if as_json:
        context.dump(result)
    else:
        heads = ("FORWARD", "HOST", "REMOTE", "STATE")
        rows = [(one.local, one.host, one.remote, "closed" if close else one.state) for one in result.forwards]
        context.out(terminal.table(heads, rows))
    return context.partly(result)
