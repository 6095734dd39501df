"""Jupyter's kernel specs: names, kernel.json, and the command of those that we write."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from jupyman import errors, rules
from jupyman.model import Environment, KernelSpec, Problem
from jupyman.model.problem_codes import new_problem
from jupyman.tools.envs import activation

_LONGEST = 100
_SHELLS = frozenset({"sh", "bash", "dash"})
# Every server searches these (jupyter_core/paths.py, SYSTEM_JUPYTER_PATH).
_SYSTEM = ("/usr/local/share/jupyter/kernels/", "/usr/share/jupyter/kernels/")


class _File(msgspec.Struct):
    argv: list[str] = []
    display_name: str = ""
    env: dict[str, str] = {}
    metadata: dict[str, Any] = {}


def name_for(env: Environment) -> str:
    """Derive a kernel's name from an environment: its name (or the last part of its prefix) in lower case."""
    base = env.name or env.prefix.rstrip("/").rpartition("/")[2]
    clean = re.sub(r"[^a-z0-9._-]+", "-", base.lower()).strip("-.")
    return clean[:_LONGEST] or "python"


def checked_name(name: str) -> str:
    """Return a kernel name that the user gave in lower case, as jupyter_client looks it up.

    Raises:
        UsageFault: it has other characters than Jupyter's rule allows.
    """
    if not rules.is_kernel_name(name):
        raise errors.UsageFault(f"{name!r} is not a kernel name", "use letters, digits, and - . _ only")
    return name.lower()


def display_name_for(env: Environment) -> str:
    """Return the display name of an environment's kernel."""
    return f"Python ({env.name or env.prefix})"


def wrapper(env: Environment) -> str:
    """Return the sh text that starts a kernel: it activates, then executes the Python, so that signals reach that.

    Args:
        env: the environment.

    Returns:
        The text for ``sh -c TEXT PYTHON -m ipykernel_launcher …``.
    """
    return f'{activation.script(env)}\nexec "$0" "$@"'


def parse(name: str, directory: str, text: str) -> KernelSpec:
    """Read a kernel.json.

    Args:
        name: the kernel's.
        directory: that it lies in, ``…/share/jupyter/kernels/NAME``.
        text: its content; line breaks may have been removed.

    Returns:
        The spec; `ok` is False when the text is not a kernel.json, else None, because nothing was started.
    """
    try:
        file = msgspec.json.decode(text, type=_File)
    except msgspec.DecodeError as error:
        return KernelSpec(
            name=name,
            display_name=name,
            prefix=None,
            argv=[],
            ok=False,
            problem=f"kernel.json cannot be read: {error}",
            directory=directory,
        )
    ok = None if file.argv else False
    return KernelSpec(
        name=name,
        display_name=file.display_name or name,
        prefix=_prefix(file, directory),
        argv=file.argv,
        ok=ok,
        problem=None if file.argv else "kernel.json has no argv",
        directory=directory,
    )


def executable(spec: KernelSpec) -> str | None:
    """Return the path of the kernel's program; None when it is found by PATH."""
    if not spec.argv:
        return None
    first = spec.argv[0]
    # A wrapper: sh -c TEXT PYTHON …
    if first.rpartition("/")[2] in _SHELLS and len(spec.argv) > 3 and spec.argv[1] == "-c":
        first = spec.argv[3]
    if first.startswith("/"):
        return first
    # jupyter_client replaces a bare python by the interpreter of the server's own environment.
    if spec.prefix is not None and re.fullmatch(r"python(3(\.\d+)?)?", first):
        return f"{spec.prefix}/bin/{first}"
    return None


def holder(directory: str, prefixes: Iterable[str]) -> str | None:
    """Return the environment that contains a spec: only servers in that environment show it.

    Args:
        directory: of the spec.
        prefixes: of the environments.

    Returns:
        The prefix; None for a spec of the account or of the system, which every server shows.
    """
    if directory.startswith(_SYSTEM):
        return None
    return next((one for one in prefixes if directory.startswith(f"{one.rstrip('/')}/share/jupyter/kernels/")), None)


def misnamed(spec: KernelSpec, runs: Environment | None, environments: Sequence[Environment]) -> str | None:
    """Return the environment that a kernel is named after when it runs in another one.

    ``python -m ipykernel install --user --name pytorch`` in the wrong environment makes such kernels.

    Args:
        spec: the kernel.
        runs: the environment that it runs in; None: an unknown one.
        environments: of the host.

    Returns:
        That environment's name.
    """
    names = {one.name for one in environments if one.name not in {"", "system"}}
    promised = {name for name in names if _mentions(name, spec.display_name)} or ({spec.name} & names)
    if not promised or (runs is not None and runs.name in promised):
        return None
    return min(promised)


def _mentions(name: str, text: str) -> bool:
    return text == name or re.search(rf"[(\[]\s*{re.escape(name)}\s*[)\]]", text) is not None


def confusions(specs: Sequence[KernelSpec], names: Collection[str], server: str) -> list[Problem]:
    """Find kernels of one server that have the same name or the same display name.

    Args:
        specs: all that the server finds.
        names: of the kernels of interest.
        server: the name of its environment.
    """
    found: list[Problem] = []
    for name in _repeated(spec.name for spec in specs):
        if name not in names:
            continue
        same = [spec for spec in specs if spec.name == name]
        where = " and ".join(spec.directory or "?" for spec in same)
        text = f"Jupyter in {server} shows one of {len(same)} kernels called {name}, and hides the others: {where}"
        differ = len({spec.prefix for spec in same}) > 1
        fix = f"jupyman kernel rm {name} removes yours; jupyman kernel add ENV --name OTHER gives it a name of its own"
        found.append(new_problem("kernel-hidden", text, fix, "warning" if differ else "info"))
    distinct = {spec.name: spec for spec in specs}
    for shown in _repeated(spec.display_name for spec in distinct.values()):
        alike = sorted(spec.name for spec in distinct.values() if spec.display_name == shown)
        if not set(alike) & set(names):
            continue
        text = f"Jupyter in {server} shows the kernels {' and '.join(alike)} alike, as {shown!r}"
        fix = "jupyman kernel add ENV --name NAME --display-name TEXT shows one of them in other words"
        found.append(new_problem("kernel-alike", text, fix))
    return found


def _repeated(words: Iterable[str]) -> list[str]:
    return [word for word, count in Counter(words).items() if count > 1]


def _prefix(file: _File, directory: str) -> str | None:
    ours = file.metadata.get("jupyman")
    if isinstance(ours, dict) and isinstance(ours.get("prefix"), str):
        return str(ours["prefix"])
    if file.env.get("CONDA_PREFIX"):
        return file.env["CONDA_PREFIX"]
    first = file.argv[0] if file.argv else ""
    parent, _, binary = first.rpartition("/")
    if parent.endswith("/bin") and binary.startswith("python"):
        return parent.removesuffix("/bin") or "/"
    home = re.fullmatch(r"(.+)/share/jupyter/kernels/[^/]+", directory)
    return home[1] if home is not None and not home[1].endswith("/.local") and "/" not in first else None
