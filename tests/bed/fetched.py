"""Wheels for accounts without access to a registry: downloaded once by pip, then installed from a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bed.accounts import User
from tests.bed.cache import kept

# What a progress bar needs in addition to a kernel; and an older generation.
WIDGETS = ("ipywidgets==8.1.9", "jupyterlab_widgets==3.0.17", "widgetsnbextension==4.0.16", "tqdm==4.70.1")
OLDER = ("ipywidgets==7.8.5", "jupyterlab_widgets==1.1.11", "ipython_genutils==0.2.0")


def fetch(wanted: tuple[str, ...]) -> Path:
    """Return a folder of wheels.

    Args:
        wanted: requirements; what they need in turn is not fetched.

    Returns:
        The folder. The test is skipped when pip reaches no registry.
    """
    folder, why = kept("wheels-", wanted, lambda empty: _download(empty, wanted))
    if why:
        (folder / "complete").unlink()
        pytest.skip(f"pip cannot fetch {', '.join(wanted)}: {why}")
    return folder


def offer(user: User, *folders: Path) -> None:
    """Make a user's pip install from folders only."""
    places = " ".join(str(folder) for folder in folders)
    user.put(".config/pip/pip.conf", f"[global]\nno-index = true\nfind-links = {places}\n")


def _download(folder: Path, wanted: tuple[str, ...]) -> str:
    words = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    done = subprocess.run([*words, *wanted], capture_output=True, text=True, check=False)
    for wheel in folder.glob("*.whl"):
        wheel.chmod(0o644)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
