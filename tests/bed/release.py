"""An earlier release, built from the history: what a user upgrades from, and may still have on another computer."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.bed.command import REPOSITORY

VERSION_FILE = "jupyman/__init__.py"


def build(version: str, folder: Path) -> Path | None:
    """Build the wheel of the last commit of a version, and unpack it as an installer does.

    Args:
        version: as in the package's ``__version__``.
        folder: an existing folder to work in.

    Returns:
        The folder for PYTHONPATH; None if the history is not here (a source archive, a shallow clone, no git).
    """
    commit = _last(version)
    if commit is None:
        return None
    archive = folder / "source.zip"
    source, wheels, installed = folder / "source", folder / "wheels", folder / "installed"
    _git("archive", "--format=zip", f"--output={archive}", commit)
    _unpack(archive, source)
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(words, cwd=source, check=True, capture_output=True, timeout=120)
    [wheel] = wheels.glob(f"jupyman-{version}-*.whl")
    _unpack(wheel, installed)
    return installed


def _last(version: str) -> str | None:
    """Find the last commit of a version: HEAD, or the parent of the commit that ended it."""
    touched = _git("log", "--format=%H", "--", VERSION_FILE) or ""
    for commit in ("HEAD", *(f"{one}^" for one in touched.split())):
        if f'__version__ = "{version}"\n' in (_git("show", f"{commit}:{VERSION_FILE}") or ""):
            return commit
    return None


def _git(*words: str) -> str | None:
    """Return what git prints; None if there is no git, no repository, or no such object."""
    # A clone that belongs to another user (CI as root) is not dangerous to read: nothing in it is run by git.
    command = ["git", "-C", str(REPOSITORY), "-c", "safe.directory=*", *words]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
