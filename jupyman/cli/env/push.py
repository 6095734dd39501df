"""`jupyman env push`: install packages from this computer in an environment of a host without a network."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click

from jupyman import api, errors
from jupyman.api.results import WheelTarget
from jupyman.cli.context import Context
from jupyman.cli.options import EnvName, TextLine, host_option, json_option


@click.command(
    epilog="""\b
Examples:
  jupyman env push einops-0.8.1-py3-none-any.whl --env pytorch
  jupyman env push pkgs/*.conda --env pytorch
  jupyman env push --download 'torch_geometric>=2.6' --env pytorch"""
)
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--env", required=True, type=EnvName(), help="where to install them, by name or prefix")
@host_option
@click.option(
    "--download",
    "specs",
    type=TextLine(),
    multiple=True,
    metavar="SPEC",
    help="first download wheels for the host with pip",
)
@json_option
@click.pass_obj
def command(
    context: Context, /, *, files: tuple[Path, ...], env: str, host: str | None, specs: tuple[str, ...], as_json: bool
) -> None:
    """Upload package files (.conda, .tar.bz2, wheels, sdists) and install them without a network.

    An interrupted upload resumes where it stopped. --download first downloads wheels to this computer, with their
    dependencies, for the host's platform and the environment's Python.
    """
    if not files and not specs:
        raise errors.UsageFault("nothing to push", "name files, or use --download SPEC")
    with tempfile.TemporaryDirectory(prefix="jupyman-") as folder:
        found = [path.absolute() for path in files]
        if specs:
            target = context.call(api.EnvTarget(env=env, host=host))
            _download(context, specs, target, Path(folder))
            found += sorted(Path(folder).iterdir())
        result = context.call(api.EnvPush(files=[str(path) for path in found], env=env, host=host))
    if as_json:
        context.dump(result)
    else:
        count = len(result.files)
        context.out(f"installed {count} package{'' if count == 1 else 's'} in {result.prefix}")


def _download(context: Context, specs: tuple[str, ...], target: WheelTarget, folder: Path) -> None:
    """Download wheels with this Python's pip, for the host's Python and C library instead of this computer's."""
    words = [sys.executable, "-m", "pip", "download", "--dest", str(folder), "--only-binary=:all:"]
    words += ["--python-version", target.python, "--implementation", "cp"]
    words += [word for platform in target.platforms for word in ("--platform", platform)]
    context.note("$ " + " ".join([*words[1:6], "…", *specs]))
    with subprocess.Popen(
        [*words, "--", *specs], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            context.note(f"  {line.rstrip()}")
    if process.returncode != 0:
        raise errors.UsageFault(
            f"pip could not download {' '.join(specs)} for Python {target.python} on {target.machine}",
            "its output is above; if there is no wheel, push a source distribution",
        )
