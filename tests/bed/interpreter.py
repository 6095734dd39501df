"""A Python that every account of this machine can run.

The one that runs the tests may lie in a home that is closed to others (pyenv below /root is a common case).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
NOBODY = 65534
# What a base installation has and the environments of the bed never use.
NOT_COPIED = ("test", "tests", "site-packages", "dist-packages", "idlelib", "tkinter", "turtledemo", "ensurepip", "*.a")


def shared_python(folder: Path) -> Path:
    """Find a Python of the running version that other accounts can run, or copy the running one.

    Args:
        folder: where a copy is made, if one is needed; others can read it.

    Returns:
        The interpreter; no link.

    Raises:
        RuntimeError: there is none, and the copy does not run.
    """
    here = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    for candidate in (here, Path(f"/usr/bin/python{VERSION}"), Path(f"/usr/local/bin/python{VERSION}")):
        if candidate.exists() and usable(candidate.resolve()):
            return candidate.resolve()
    return copied_python(folder)


def copied_python(folder: Path) -> Path:
    """Copy the running Python's base installation.

    Args:
        folder: is filled.

    Returns:
        The copy's interpreter.

    Raises:
        RuntimeError: the copy does not run (a build that is tied to its place).
    """
    base, name = Path(sys.base_prefix), f"python{VERSION}"
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    shutil.copy2(base / "bin" / name, folder / "bin" / name)
    shutil.copytree(
        base / "lib" / name, folder / "lib" / name, ignore=shutil.ignore_patterns(*NOT_COPIED), dirs_exist_ok=True
    )
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy2(library, folder / "lib" / library.name)
    python = folder / "bin" / name
    if not usable(python):
        raise RuntimeError(f"no Python {VERSION} that other accounts can run: install one as /usr/bin/python{VERSION}")
    return python


def usable(python: Path) -> bool:
    """Tell whether another account can run an interpreter; without root: whether we can."""
    words = [str(python), "-I", "-c", "import ssl, sqlite3, ctypes, encodings.idna"]
    ids = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        done = subprocess.run(words, check=False, capture_output=True, cwd="/", env={}, timeout=30, **ids)  # type: ignore[call-overload]
    except PermissionError:
        return False
    return bool(done.returncode == 0)
