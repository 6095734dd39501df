"""`jupyman up`."""

from __future__ import annotations

from typing import Any

import click

from jupyman import api
from jupyman.cli.context import Context
from jupyman.cli.options import EnvName, Host, Name, Port, Seconds, TextLine, json_option


@click.command(
    epilog="""\b
Examples:
  jupyman up server1
  jupyman up server1 --env pytorch --dir '~/work' --gpu auto
  jupyman up alice@10.0.0.7:2222 --name second --no-browser"""
)
@click.argument("host", type=Host(), required=False)
@click.option("--name", type=Name(), help="the session's name; default: the host's")
@click.option("--env", type=EnvName(), help="environment to work in, by name or prefix")
@click.option("--dir", "directory", type=TextLine(), help="the server's root directory on the host; default: home")
@click.option("--app", type=click.Choice(["lab", "notebook", "server"]), help="what to start; default: lab")
@click.option("--gpu", type=TextLine(), metavar="SPEC", help="auto | none | 0,1 | UUID,… | any:2 | free:20G")
@click.option("--port", type=Port(), help="preferred port on the host; default: 8888")
@click.option("--local-port", type=Port(), help="preferred port here; default: the one on the host")
@click.option(
    "--on-conflict",
    type=click.Choice(["next", "ask", "kill", "fail"]),
    help="when the port on the host is taken; default: next, on a terminal ask",
)
@click.option("--restart", type=click.Choice(["never", "always"]), help="when the server dies; default: never")
@click.option("--install/--no-install", default=None, help="install ipykernel into ENV where it is missing")
@click.option("--no-browser", is_flag=True, help="print the address, open nothing")
@click.option(
    "--timeout",
    type=Seconds(min=1, max=86400),
    default=120.0,
    show_default=True,
    metavar="S",
    help="seconds for the server to answer",
)
@json_option
@click.pass_obj
def command(context: Context, /, as_json: bool, no_browser: bool, directory: str | None, **options: Any) -> None:
    """Make the session exist: connect, look at the host, launch or adopt the server, forward it, open the browser.

    Run again, it finds the same server. HOST may also be the name of a session.
    """
    session = context.call(api.Up(dir=directory, open_browser=not (no_browser or as_json), **options))
    for problem in session["problems"]:
        context.note(f"{problem['severity']}: {problem['text']}")
        context.note(f"  fix: {problem['fix']}")
    if as_json:
        context.dump(session)
    elif session["url"]:
        context.out(session["url"])
