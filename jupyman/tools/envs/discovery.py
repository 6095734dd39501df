"""Environments: read from the probe's facts about their files, and found by the name that a user gives."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Literal

from jupyman import errors
from jupyman.model import App, Environment, Torch
from jupyman.tools.host.text import clean, harmless

Kind = Literal["conda", "mamba", "micromamba", "venv", "uv", "system"]
_KINDS: dict[str, Kind] = {
    "conda": "conda",
    "mamba": "mamba",
    "micromamba": "micromamba",
    "venv": "venv",
    "uv": "uv",
    "system": "system",
}
_APPS: tuple[App, ...] = ("lab", "notebook", "server")
# torch/version.py, with and without annotations: cuda: Optional[str] = '12.6'
_VERSION = re.compile(r"^__version__\s*(?::[^=]*)?=\s*['\"]([^'\"]+)['\"]")
_CUDA = re.compile(r"^cuda\s*(?::[^=]*)?=\s*(?:['\"]([0-9]{1,3}(?:\.[0-9]{1,3}){0,2})['\"]|None\b)")
_LOCAL = re.compile(r"\+cu([0-9]{2,3})$")
# The file name of a conda record: pytorch-2.5.1-py3.12_cuda12.4_cudnn9.1.0_0.json (pytorch channel),
# pytorch-2.6.0-cuda126_py312h…_300.json (conda-forge).
_RECORD = re.compile(r"^pytorch-(?P<version>[0-9][^-]*)-(?P<build>.+)\.json$")
_BUILD = re.compile(r"(?:^|_)cuda_?(?P<cuda>[0-9]{1,2}\.[0-9]{1,2}|[0-9]{2,3})")
# cuda-toolkit-12.4.1-0.json, cudatoolkit-11.8.0-h4ba93d1_13.json, cuda-nvcc-12.4.131-0.json, cudnn-9.1.0.70-0.json
_PACKAGE = re.compile(r"^(?P<name>cuda-toolkit|cudatoolkit|cuda-nvcc|cudnn)-(?P<version>[0-9][^-]*)-[^-]+\.json$")
_ANY_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!_]{0,39}")


def read(
    one: Callable[[str], str | None], many: Callable[[str], list[str]], home: str | None = None
) -> Environment | None:
    """Make an environment from a record of the probe.

    Args:
        one: returns the first value of a key, None when absent.
        many: returns all values of a key.
        home: of the account.

    Returns:
        The environment; None when the record has no usable prefix (control characters, bytes that are not UTF-8).
    """
    prefix = one("prefix")
    if prefix is None or not prefix.startswith("/") or not harmless(prefix):
        return None
    executable = one("executable")
    if executable is not None and not (executable.startswith("/") and harmless(executable)):
        executable = None
    # Scripts of an environment whose Python is gone cannot run; those of an unfinished one must not.
    unfinished = one("incomplete") is not None
    present = set(many("app")) if executable is not None and not unfinished else set()
    apps = [app for app in _APPS if app in present]
    server, notebook = _checked_version(one("jupyter_server")), _checked_version(one("notebook"))
    # Notebook 6 is a server itself.
    if "notebook" in apps and "server" not in apps and server is None:
        apps.append("server")
    root, real = one("root"), one("real")
    root = root if root is not None and harmless(root) else None
    return Environment(
        name=name_of(prefix, root, home),
        prefix=prefix,
        kind=_KINDS.get(one("kind") or "", "system"),
        python=_checked_version(one("python")),
        jupyter=(server or notebook or "unknown") if apps else None,
        ipykernel=_checked_version(one("ipykernel")),
        torch=torch(many("torch_line"), _checked_version(one("torch")), one("torch_conda")),
        apps=apps,
        root=root,
        executable=executable,
        lodger=one("lodger") is not None,
        real=real if real is not None and real.startswith("/") and harmless(real) else None,
        state="incomplete" if unfinished else "ready",
        cudnn=_checked_version(one("cudnn")) or _recorded(many("cudnn_conda"), "cudnn"),
        torch_by=_installer(one("torch_conda"), one("torch"), many("torch_line")),
        torch_foreign=one("foreign") is not None,
        torch_with=[name for name in ("torchvision", "torchaudio") if one(name) is not None],
    )


def name_of(prefix: str, root: str | None, home: str | None = None) -> str:
    """Return the name that an environment's tool shows: ``base``, the directory below ``envs/``, else its directory.

    A hidden directory (``proj/.venv``, ``proj/.conda``) gets its parent's name, as uv shows it; ``~/.venv`` is
    ``venv``; ``/usr`` is ``system`` and ``~/.local`` (``pip install --user``) is ``user``.

    Args:
        prefix: absolute.
        root: the conda root that it belongs to.
        home: of the account.
    """
    if root is not None and prefix.rstrip("/") == root.rstrip("/"):
        return "base"
    parts = [part for part in prefix.split("/") if part]
    if not parts or prefix.rstrip("/") == "/usr":
        return "system"
    last = parts[-1]
    if not last.startswith("."):
        return clean(last, 100)
    if last == ".local":
        return "user"
    parent = "/" + "/".join(parts[:-1])
    if len(parts) == 1 or (home is not None and parent == home.rstrip("/")):
        return clean(last.lstrip(".") or last, 100)
    return clean(parts[-2], 100)


def torch(lines: Sequence[str], dist: str | None, record: str | None) -> Torch | None:
    """Read a torch build without importing it.

    Args:
        lines: of torch/version.py: ``__version__ = '2.5.1+cu124'`` and ``cuda = '12.4'`` (None for a CPU build).
        dist: version of its dist-info.
        record: file name of its conda-meta record.

    Returns:
        The build; None without torch.
    """
    versions = [match[1] for line in lines if (match := _VERSION.match(line)) is not None]
    cudas = [match[1] for line in lines if (match := _CUDA.match(line)) is not None]
    built = _RECORD.match(record or "")
    version = versions[0] if versions else dist or (built["version"] if built is not None else None)
    if version is None:
        return None
    cuda: str | None = None
    local = _LOCAL.search(version)
    if cudas:
        cuda = cudas[0]
    elif local is not None:
        cuda = _dotted(local[1])
    elif built is not None:
        found = _BUILD.search(built["build"])
        cuda = _dotted(found["cuda"]) if found is not None else None
    return Torch(version=clean(version, 60), cuda=cuda)


def toolkit(records: Sequence[str]) -> str | None:
    """Return the version of the CUDA toolkit that conda installed in an environment.

    Args:
        records: file names of conda-meta: of the whole toolkit, or of its compiler alone.
    """
    names = ("cuda-toolkit", "cudatoolkit", "cuda-nvcc")
    return next((version for name in names if (version := _recorded(records, name)) is not None), None)


def _recorded(records: Sequence[str], name: str) -> str | None:
    """Return the version in the file name of a package's record."""
    found = (_PACKAGE.match(record) for record in records)
    return next((_checked_version(one["version"]) for one in found if one is not None and one["name"] == name), None)


def _installer(record: str | None, dist: str | None, lines: Sequence[str]) -> Literal["conda", "pip"] | None:
    """Return what installed torch: conda leaves a record, which pip does not."""
    if record is not None:
        return "conda"
    return "pip" if dist is not None or lines else None


def find(
    environments: Sequence[Environment], wanted: str, home: str | None = None, *, unfinished: bool = False
) -> Environment:
    """Find an environment by prefix or by name.

    Args:
        environments: of the host.
        wanted: given by the user; a prefix starts with ``/`` or ``~``.
        home: of the account, for ``~``; if it is unknown, ``~/x`` means the only prefix that ends in ``/x``.
        unfinished: also find environments that are not finished.

    Raises:
        EnvironmentMissing: none, or only an unfinished one; the hint has similar names.
        UsageFault: several have that name.
    """
    bare = wanted.rstrip("/") or wanted
    if bare.startswith("~/") and home is not None:
        bare = home.rstrip("/") + bare[1:]
    found = [one for one in environments if one.prefix.rstrip("/") == bare.rstrip("/")][:1]
    if found:
        return _finished(found, unfinished=unfinished)[0]
    if bare.startswith("~/"):
        found = [one for one in environments if one.prefix.endswith(bare[1:])]
    elif not bare.startswith("/"):
        # The name that we show, else the one that conda uses: the last part of its path.
        found = [one for one in environments if one.name == wanted]
        found = found or [one for one in environments if one.prefix.rsplit("/", 1)[-1] == wanted]
    found = _finished(found, unfinished=unfinished)
    if len(found) == 1:
        return found[0]
    shown = clean(wanted, 80)
    if found:
        prefixes = [one.prefix for one in found]
        hint = f"use the prefix of one: {', '.join(prefixes)}"
        raise errors.UsageFault(f"several environments are called {shown!r}", hint, prefixes=prefixes)
    names = list(dict.fromkeys(one.prefix if bare.startswith(("/", "~")) else one.name for one in environments))
    near = difflib.get_close_matches(bare, names, n=3, cutoff=0.5)
    rest = ", ".join(sorted(names)[:20])
    hint = f"available: {rest}" if rest else "the host has no environments"
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    raise errors.EnvironmentMissing(f"no environment {shown!r} on the host", hint, near=near)


def _finished(found: list[Environment], *, unfinished: bool) -> list[Environment]:
    """Leave out unfinished environments.

    Raises:
        EnvironmentMissing: all are unfinished.
    """
    ready = [one for one in found if unfinished or one.state == "ready"]
    if found and not ready:
        one = found[0]
        doing = (
            "is still being installed"
            if one.state == "installing"
            else "is incomplete: its installation was interrupted"
        )
        hint = f"jupyman env create {one.name} continues it, jupyman env rm {one.name} removes it"
        raise errors.EnvironmentMissing(f"environment {one.name} {doing}", hint, prefix=one.prefix)
    return ready


def _dotted(digits: str) -> str:
    """Return ``12.4`` for ``124`` and for ``12.4``."""
    return digits if "." in digits else f"{digits[:-1]}.{digits[-1]}"


def _checked_version(text: str | None) -> str | None:
    """Return a version unchanged, None for any other text."""
    return text if text is not None and _ANY_VERSION.fullmatch(text) else None
