"""`jupyman env create`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from jupyman import api, errors
from jupyman.cli.context import Context
from jupyman.cli.options import Host, KernelName, MirrorName, TextLine, chosen_host, host_option, json_option

KINDS = ("conda", "mamba", "micromamba", "uv", "venv")


@click.command(
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
@click.option("--python", type=TextLine(), metavar="V", help="as in 3.12; default: one that the packages support")
@click.option("--torch", is_flag=False, flag_value="auto", metavar="[V]", help="torch for the host's driver and GPUs")
@click.option("--cuda", type=TextLine(), metavar="BUILD", help="another build of torch: cu124, cpu")
@click.option("--pyg", is_flag=True, help="PyTorch Geometric, with the wheels for that torch")
@click.option("--packages", multiple=True, metavar="'A B'", help="more packages; pip:NAME is always installed by pip")
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="an environment.yml or requirements.txt on this computer",
)
@click.option("--channel", "channels", type=TextLine(), multiple=True, help="for conda, instead of the configured ones")
@click.option("--mirror", type=MirrorName(), help="where to get packages; see jupyman env mirror ls")
@click.option("--torch-index", type=TextLine(), metavar="URL", help="parent URL of the indexes of torch's builds")
@click.option("--tool", type=click.Choice(KINDS), help="the installer; default: the first of these that the host has")
@click.option("--dir", "directory", type=TextLine(), help="the parent folder on the host")
@click.option("--kernel", type=KernelName(), help="the kernel's name; default: the environment's")
@click.option("--replace", is_flag=True, help="replace a kernel of that name that runs another environment")
@click.option("--dry-run", is_flag=True, help="print the commands, run nothing")
@click.option("-d", "--detach", is_flag=True, help="start the installation and return")
@json_option
@click.pass_obj
def command(
    context: Context,
    /,
    *,
    name: str,
    positional: str | None,
    host: str | None,
    python: str | None,
    torch: str | None,
    cuda: str | None,
    pyg: bool,
    packages: tuple[str, ...],
    source: Path | None,
    channels: tuple[str, ...],
    mirror: str | None,
    torch_index: str | None,
    tool: str | None,
    directory: str | None,
    kernel: str | None,
    replace: bool,
    dry_run: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Create an environment with a kernel: Python, ipykernel, ipywidgets, and torch that fits the driver and the GPUs.

    The installation runs on the host and survives a lost connection; `env logs` shows it again. To resume an
    interrupted one, run the same command again, or with the name alone. Ctrl-C stops it and removes what it made.
    """
    request = api.EnvCreate(
        name=name,
        host=chosen_host(host, positional),
        python=python,
        torch=torch,
        cuda=cuda,
        packages=[word for text in packages for word in _words(text)],
        pyg=pyg,
        source_name=source.name if source is not None else None,
        source=_text(source) if source is not None else None,
        channels=list(channels),
        mirror=mirror,
        torch_index=torch_index,
        tool=tool,
        dir=directory,
        kernel=kernel,
        replace=replace,
        dry_run=dry_run,
        detach=detach,
    )
    try:
        result = context.call(request)
    except KeyboardInterrupt:
        hint = "what this command started is removed; an installation that was already running goes on: jupyman env ls"
        raise errors.Interrupted("interrupted", hint) from None
    for problem in result.problems:
        context.note(f"{problem.severity}: {problem.text} ({problem.fix})")
    if as_json:
        context.dump(result)
    elif result.state == "planned":
        for one in result.steps:
            context.out(f"# {one.text}\n{shlex.join(one.command)}")
    elif result.state == "done":
        added = f"; kernel {result.kernel.kernel.name}" if result.kernel is not None else ""
        context.out(f"environment {result.name}: {result.prefix}{added}")
    else:
        context.out(f"environment {result.name}: {result.prefix} is being installed")


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
