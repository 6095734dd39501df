"""Package files: their kinds, their installation without a network, and the wheels that a host can use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from jupyman import errors
from jupyman.model import Environment
from jupyman.tools.envs import activation
from jupyman.tools.envs.activation import CONDA_KINDS
from jupyman.tools.install.plan import PlanStep
from jupyman.tools.install.request import Tool

Kind = Literal["wheel", "sdist", "conda"]
# PEP 427, PEP 625 and conda's names: nothing with a special meaning to a shell, a tool or a terminal.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+!~-]{0,250}")
_KINDS: tuple[tuple[str, Kind], ...] = (
    (".whl", "wheel"),
    (".conda", "conda"),
    (".tar.bz2", "conda"),
    (".tar.gz", "sdist"),
    (".zip", "sdist"),
)
# PEP 600 and its predecessors: the oldest C library of each name.
_LEGACY = (((2, 17), "manylinux2014"), ((2, 12), "manylinux2010"), ((2, 5), "manylinux1"))


def kind(name: str) -> Kind:
    """Return the kind of a package file, by its name.

    Raises:
        UsageFault: it is not one, or has an unsafe name.
    """
    found = next((what for end, what in _KINDS if name.lower().endswith(end)), None)
    if found is None or not _NAME.fullmatch(name):
        raise errors.UsageFault(
            f"{name[:80]!r} is not a package file",
            "name .whl, .tar.gz, .zip, .conda or .tar.bz2 files with their original names",
        )
    return found


def steps(environment: Environment, paths: Sequence[str], tools: Sequence[Tool], *, pip: bool) -> list[PlanStep]:
    """Return the commands that install files of the host into an environment, without a network.

    Args:
        environment: where.
        paths: the files on the host.
        tools: what the host has.
        pip: whether the environment has a pip of its own.

    Raises:
        UsageFault: a conda package for an environment of another tool.
        EnvironmentMissing: the tool is missing.
    """
    by_kind: dict[Kind, list[str]] = {}
    for path in paths:
        by_kind.setdefault(kind(path.rpartition("/")[2]), []).append(path)
    found = []
    if "conda" in by_kind:
        if environment.kind not in CONDA_KINDS:
            raise errors.UsageFault(
                f"environment {environment.name} is one of {environment.kind}: conda packages do not go into it",
                "push wheels instead",
            )
        files = by_kind["conda"]
        argv = [*_conda(environment, tools), "-p", environment.prefix, *files]
        found.append(PlanStep(key="conda", text=_count(files, "conda package"), argv=argv))
    wheels = [*by_kind.get("wheel", []), *by_kind.get("sdist", [])]
    if wheels:
        folders = list(dict.fromkeys(path.rpartition("/")[0] for path in wheels))
        argv = [*_pip(environment, tools, pip=pip), "--no-index"]
        if "sdist" in by_kind:
            # For an isolated build, pip would download the build tools.
            argv.append("--no-build-isolation")
        argv += [word for folder in folders for word in ("--find-links", folder)]
        found.append(PlanStep(key="pip", text=_count(wheels, "Python package"), argv=[*argv, *wheels]))
    folders = list(dict.fromkeys(path.rpartition("/")[0] for path in paths))
    found.append(
        PlanStep(key="clean", text="removing the uploaded files", argv=["rm", "-r", "--", *folders], soft=True)
    )
    return found


def platforms(machine: str, libc: str | None) -> list[str]:
    """Return the platform tags of the wheels that a host can use, best first.

    Args:
        machine: output of ``uname -m``.
        libc: output of ``getconf GNU_LIBC_VERSION``, such as ``glibc 2.31``; None: not the GNU library.

    Raises:
        UsageFault: there are no wheels for this machine.
    """
    if not re.fullmatch(r"[a-z0-9_]{1,20}", machine):
        raise errors.UsageFault(f"no wheels are known for {machine[:40]!r}", "download them by hand")
    found = re.fullmatch(r"glibc 2\.([0-9]{1,2})", libc or "")
    if found is None:
        return [f"musllinux_1_{minor}_{machine}" for minor in (2, 1)] + [f"linux_{machine}"]
    newest = int(found[1])
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, 4, -1)]
    tags += [f"{name}_{machine}" for (_, oldest), name in _LEGACY if oldest <= newest]
    return [*tags, f"linux_{machine}"]


def _conda(environment: Environment, tools: Sequence[Tool]) -> list[str]:
    """Return the installer of the environment's own root, else one of its kind."""
    able = [tool for tool in tools if tool.kind in CONDA_KINDS]
    if not able:
        raise errors.EnvironmentMissing("the host has no conda, mamba or micromamba", "push wheels instead")
    root = (environment.root or "").rstrip("/")
    tool = min(able, key=lambda one: ((one.root or "").rstrip("/") != root, one.kind != environment.kind))
    if tool.kind == "micromamba":
        return [tool.path, *(["-r", tool.root] if tool.root else []), "install", "-y", "--offline"]
    return [tool.path, "install", "-y", "-q", "--offline"]


def _pip(environment: Environment, tools: Sequence[Tool], *, pip: bool) -> list[str]:
    python = activation.python(environment)
    if pip:
        return [python, "-m", "pip", "install"]
    uv = next((tool for tool in tools if tool.kind == "uv"), None)
    if uv is None:
        raise errors.EnvironmentMissing(
            f"environment {environment.name} has no pip, and the host has no uv", "push a wheel of pip's by hand first"
        )
    return [uv.path, "pip", "install", "--python", python]


def _count(files: Sequence[str], what: str) -> str:
    names = ", ".join(path.rpartition("/")[2] for path in files[:3])
    return f"{len(files)} {what}{'' if len(files) == 1 else 's'}: {names}{', …' if len(files) > 3 else ''}"
