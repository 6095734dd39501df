"""An environment with the Jupyter of years ago: notebook 6, JupyterLab 3, jupyter_server 1. Made once for a machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bed.cache import kept
from tests.bed.interpreter import shared_python

# The newest of their lines. setuptools: some of them still import pkg_resources.
WANTED = ("jupyterlab==3.6.8", "jupyter_server==1.24.0", "notebook==6.5.7", "setuptools<70")


def old_stack() -> Path:
    """Return its prefix, which every account can run; skips the test where pip cannot have the packages."""
    folder, _ = kept("old-", (sys.version, *WANTED, Path(__file__).read_text()), _make)
    return folder / "env"


def _make(folder: Path) -> str:
    python = shared_python(folder / "python")
    _run(str(python), "-m", "venv", "--without-pip", str(folder / "env"))
    _run(sys.executable, "-m", "pip", "--python", str(folder / "env/bin/python"), "install", "-q", *WANTED)
    return ""


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, umask=0o022)
    if done.returncode != 0:
        pytest.skip(f"{words[0]} could not make the old Jupyter: {done.stderr.strip().splitlines()[-1:]}")
