"""Installs distributions of the running environment into another one, as `pip install` does, without a network.

The files are those that the distributions list; scripts get the interpreter of the new environment.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(*wanted: str) -> dict[str, metadata.Distribution]:
    """Find distributions and all their requirements.

    Args:
        wanted: requirements, as in ``jupyterlab`` or ``jsonschema[format]``.

    Returns:
        The installed distributions by their canonical names.

    Raises:
        PackageNotFoundError: one is not installed here.
    """
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(one) for one in wanted]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        dist = found.get(name) or metadata.distribution(requirement.name)
        found[name] = dist
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in dist.requires or ():
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    todo.append(needed)
    return found


def install(dists: dict[str, metadata.Distribution], prefix: Path) -> None:
    """Install distributions.

    Args:
        dists: as `closure` found them.
        prefix: an environment with ``bin/python`` and ``lib/pythonX.Y``; it cannot be moved afterwards.

    Raises:
        RuntimeError: a distribution does not list its files.
    """
    site = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True, exist_ok=True)
    made: set[Path] = set()
    for name, dist in dists.items():
        if dist.files is None:
            raise RuntimeError(f"{name} does not list its files: install it with pip")
        for file in dist.files:
            source = Path(str(dist.locate_file(file)))
            target = Path(os.path.normpath(site / file))
            if not target.is_relative_to(prefix) or not source.is_file():
                continue
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            if target.parent == prefix / "bin":
                _script(source, target, prefix)
            else:
                # With its time, which is recorded in the compiled files.
                shutil.copy2(source, target)


def _script(source: Path, target: Path, prefix: Path) -> None:
    content = source.read_bytes()
    first, newline, rest = content.partition(b"\n")
    if first.startswith(b"#!") and b"python" in first:
        content = b"#!" + os.fsencode(prefix / "bin" / "python") + newline + rest
    target.write_bytes(content)
    target.chmod(0o755)
