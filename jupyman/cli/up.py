"""`jupyman up`."""

from __future__ import annotations

import click

from jupyman import api
from jupyman.cli.context import Context
from jupyman.cli.options import EnvName, Host, Name, Port, Seconds, TextLine, json_option
from jupyman.model import App, OnConflict, Restart


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
@click.option("--port", type=Port(), help="port on the host; default: a private socket, else from 8888")
@click.option("--local-port", type=Port(), help="preferred port on this computer; default: the last one, --port, 8888")
@click.option(
    "--on-conflict",
    type=click.Choice(["next", "ask", "kill", "fail"]),
    help="if the port on the host is taken; default: ask on a terminal, else next",
)
@click.option("--restart", type=click.Choice(["never", "always"]), help="if the server dies; default: never")
@click.option("--install/--no-install", default=None, help="install ipykernel in ENV if it is missing")
@click.option("--no-browser", is_flag=True, help="print the URL, do not open a browser")
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
def command(
    context: Context,
    /,
    *,
    host: str | None,
    name: str | None,
    env: str | None,
    directory: str | None,
    app: App | None,
    gpu: str | None,
    port: int | None,
    local_port: int | None,
    on_conflict: OnConflict | None,
    restart: Restart | None,
    install: bool | None,
    no_browser: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Start a session or find it: connect, inspect the host, launch or adopt its server, forward it, open the browser.

    A second run finds the same server. HOST may also be the name of a session.
    """
    request = api.Up(
        host=host,
        name=name,
        env=env,
        dir=directory,
        app=app,
        gpu=gpu,
        port=port,
        local_port=local_port,
        on_conflict=on_conflict,
        restart=restart,
        timeout=timeout,
        install=install,
        open_browser=not (no_browser or as_json),
    )
    session = context.call(request)
    context.note_problems(session.problems)
    if as_json:
        context.dump(session)
    elif session.url:
        context.out(session.url)
