"""`jupyman host`."""

from __future__ import annotations

import click

from jupyman import api, config
from jupyman.api.results import HostAdded, HostRemoved
from jupyman.cli import terminal
from jupyman.cli.context import Context
from jupyman.cli.options import EnvName, Host, Name, Port, TextLine, json_option
from jupyman.model import App


@click.group("host", epilog="Example: jupyman host trust server1")
def command() -> None:
    """Manage known hosts: those of config.toml and ~/.ssh/config, and those in use."""


@command.command(epilog="Example: jupyman host ls")
@json_option
@click.pass_obj
def ls(context: Context, as_json: bool) -> None:
    """List the known hosts."""
    result = context.call(api.HostLs(), quiet=as_json)
    if as_json:
        context.dump(result)
        return
    rows = [(one.name, one.ssh, one.source, one.link.state if one.link else "-") for one in result.hosts]
    context.out(terminal.table(("HOST", "SSH", "FROM", "LINK"), rows))


@command.command(epilog="Example: jupyman host add box alice@10.0.0.7:2222 --env pytorch")
@click.argument("name", type=Name("host"))
@click.argument("ssh", required=False, type=Host())
@click.option("--env", type=EnvName(), help="environment to work in, by name or prefix")
@click.option("--dir", "directory", type=TextLine(), help="root directory on the host")
@click.option("--gpu", type=TextLine(), metavar="SPEC", help="GPUs for its servers")
@click.option("--app", type=click.Choice(["lab", "notebook", "server"]), help="what to start")
@click.option("--port", type=Port(), help="preferred port on the host")
@click.option("--local-port", type=Port(), help="preferred port on this computer")
@json_option
@click.pass_obj
def add(
    context: Context,
    /,
    *,
    name: str,
    ssh: str | None,
    env: str | None,
    directory: str | None,
    gpu: str | None,
    app: App | None,
    port: int | None,
    local_port: int | None,
    as_json: bool,
) -> None:
    """Write a host into config.toml; SSH is an alias or user@host[:port]."""
    options: dict[str, str | int | None] = {
        "ssh": ssh,
        "env": env,
        "dir": directory,
        "gpu": gpu,
        "app": app,
        "port": port,
        "local_port": local_port,
    }
    file = context.paths.config_file
    config.add_host(file, name, {key: value for key, value in options.items() if value is not None})
    if as_json:
        context.dump(
            HostAdded(host=name, ssh=ssh, env=env, dir=directory, gpu=gpu, app=app, port=port, local_port=local_port)
        )
    else:
        context.out(f"added host {name} to {file}")


@command.command(epilog="Example: jupyman host rm box")
@click.argument("name", type=Name("host"))
@json_option
@click.pass_obj
def rm(context: Context, name: str, as_json: bool) -> None:
    """Remove a host from config.toml; its sessions and files stay."""
    config.remove_host(context.paths.config_file, name)
    if as_json:
        context.dump(HostRemoved(host=name))
    else:
        context.out(f"removed host {name}")


@command.command(epilog="Example: jupyman host trust server1")
@click.argument("host", type=Host())
@click.option("-y", "--yes", is_flag=True, help="do not ask; compare the fingerprint yourself")
@json_option
@click.pass_obj
def trust(context: Context, host: str, yes: bool, as_json: bool) -> None:
    """Show a host's key, ask, and write it to known_hosts."""
    result = context.call(api.HostTrust(host=host, yes=yes))
    if as_json:
        context.dump(result)
    elif result.written:
        context.out(f"{host}: {result.fingerprint} written to {result.written}")
    else:
        context.out(f"{host}: {result.fingerprint} is already known")
