"""`jupyman env`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from jupyman import api, errors
from jupyman.cli.check import environments
from jupyman.cli.context import Context
from jupyman.cli.env_mirror import mirror
from jupyman.cli.env_push import push
from jupyman.cli.options import EnvName, Host, KernelName, MirrorName, TextLine, chosen_host, host_option, json_option

KINDS = ("conda", "mamba", "micromamba", "uv", "venv")


@click.group("env", epilog="Example: jupyman env ls server1")
def command() -> None:
    """The environments of a host: conda, mamba, micromamba, venv, uv."""


@command.command("ls", epilog="Example: jupyman env ls server1 --json")
@click.argument("host", required=False, type=Host())
@json_option
@click.pass_obj
def ls(context: Context, host: str | None, as_json: bool) -> None:
    """List the environments, also those that are being made or were left unfinished."""
    result = context.call(api.EnvLs(host=host), quiet=as_json)
    if as_json:
        context.dump(result)
    elif result["environments"]:
        context.out(environments(result["environments"]))
    else:
        context.note("no environments were found")


@command.command(
    epilog="""\b
Examples:
  jupyman env create pytorch server1 --torch
  jupyman env create old --python 3.11 --torch 2.5.1+cu121 --pyg
  jupyman env create course --from environment.yml --mirror tuna
  jupyman env create pytorch --torch --dry-run"""
)
@click.argument("name", type=TextLine())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@click.option("--python", type=TextLine(), metavar="V", help="as in 3.12; default: one that the packages are made for")
@click.option("--torch", is_flag=False, flag_value="auto", metavar="[V]", help="torch for the host's driver and GPUs")
@click.option("--cuda", type=TextLine(), metavar="BUILD", help="another build of torch: cu124, cpu")
@click.option("--pyg", is_flag=True, help="PyTorch Geometric, with the wheels of that torch")
@click.option("--packages", multiple=True, metavar="'A B'", help="further packages; pip:NAME is for pip in any case")
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="an environment.yml or requirements.txt of this computer",
)
@click.option("--channel", "channels", type=TextLine(), multiple=True, help="of conda, instead of the configured ones")
@click.option("--mirror", type=MirrorName(), help="where packages come from; see jupyman env mirror ls")
@click.option("--torch-index", type=TextLine(), metavar="URL", help="where the folders of torch's builds lie")
@click.option("--tool", type=click.Choice(KINDS), help="what makes it; default: the first of these that the host has")
@click.option("--dir", "directory", type=TextLine(), help="the folder on the host that it is made in")
@click.option("--kernel", type=KernelName(), help="the kernel's name; default: the environment's")
@click.option("--replace", is_flag=True, help="replace a kernel of that name that runs another environment")
@click.option("--dry-run", is_flag=True, help="show the commands, do nothing")
@click.option("-d", "--detach", is_flag=True, help="start it, and do not wait")
@json_option
@click.pass_obj
def create(
    context: Context,
    /,
    *,
    name: str,
    positional: str | None,
    host: str | None,
    packages: tuple[str, ...],
    channels: tuple[str, ...],
    source: Path | None,
    directory: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Make an environment with a kernel: Python, ipykernel, ipywidgets, and torch that fits the driver and the GPUs.

    The installation runs on the host by itself and survives a lost link; `env logs` shows it again. What was broken
    off goes on when the same command, or the name alone, is said again; Ctrl-C stops it and takes away what it made.
    """
    request = api.EnvCreate(
        name=name,
        host=chosen_host(host, positional),
        packages=[word for text in packages for word in _words(text)],
        channels=list(channels),
        source=_text(source) if source is not None else None,
        source_name=source.name if source is not None else None,
        dir=directory,
        **options,
    )
    try:
        result = context.call(request)
    except KeyboardInterrupt:
        hint = "what this command began is taken back; an installation that ran before goes on: jupyman env ls"
        raise errors.Interrupted("interrupted", hint) from None
    for problem in result["problems"]:
        context.note(f"{problem['severity']}: {problem['text']} ({problem['fix']})")
    if as_json:
        context.dump(result)
    elif result["state"] == "planned":
        for one in result["steps"]:
            context.out(f"# {one['text']}\n{shlex.join(one['command'])}")
    elif result["state"] == "done":
        kernel = f"; kernel {result['kernel']['kernel']['name']}" if result["kernel"] else ""
        context.out(f"environment {result['name']}: {result['prefix']}{kernel}")
    elif result["state"] == "installing":
        context.out(f"environment {result['name']}: {result['prefix']} is being installed")


@command.command(epilog="Example: jupyman env logs pytorch server1 -f")
@click.argument("name", type=EnvName())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@click.option("-n", "--lines", type=click.IntRange(0, 100_000), default=100, show_default=True, help="how many at most")
@click.option("-f", "--follow", is_flag=True, help="go on until it ends, or Ctrl-C; the installation goes on")
@click.pass_obj
def logs(context: Context, name: str, positional: str | None, host: str | None, lines: int, follow: bool) -> int:
    """Print the log of an installation; followed to its end, a failed one has status 27."""
    request = api.EnvLogs(name=name, host=chosen_host(host, positional), lines=lines, follow=follow)
    try:
        context.call(request, quiet=True)
    except KeyboardInterrupt:
        if follow:
            return errors.Interrupted.status  # the way it ends: nothing to complain about
        raise
    return 0


@command.command(epilog="Example: jupyman env rm pytorch server1")
@click.argument("env", type=EnvName())
@click.argument("positional", required=False, type=Host(), metavar="[HOST]")
@host_option
@click.option("-y", "--yes", is_flag=True, help="do not ask")
@click.option("--force", is_flag=True, help="though programs of it run; they are not ended")
@json_option
@click.pass_obj
def rm(
    context: Context, /, *, env: str, positional: str | None, host: str | None, yes: bool, force: bool, as_json: bool
) -> None:
    """Remove an environment of your own with its kernels; a running installation of it is stopped."""
    result = context.call(api.EnvRm(env=env, host=chosen_host(host, positional), yes=yes, force=force))
    if as_json:
        context.dump(result)
    else:
        kernels = f" and kernel {', '.join(result['kernels'])}" if result["kernels"] else ""
        context.out(f"removed {result['prefix']}{kernels}")


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise errors.UsageFault(f"{text[:80]!r} cannot be read: {error}", "put quotes around the whole list") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.UsageFault(f"{path} cannot be read: {error}", "name a text file") from error


command.add_command(push)
command.add_command(mirror)
