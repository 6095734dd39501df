"""Earlier releases: what a user upgrades from, and may still have on another computer."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tests.bed.command import REPOSITORY

RELEASES = REPOSITORY / "tests" / "data" / "releases"


def install(version: str, folder: Path) -> Path:
    """Unpack the wheel of a release, as an installer does.

    Args:
        version: one of those in tests/data/releases.
        folder: an existing folder.

    Returns:
        The folder for PYTHONPATH.
    """
    installed = folder / "installed"
    with zipfile.ZipFile(RELEASES / f"jupyman-{version}-py3-none-any.whl") as wheel:
        wheel.extractall(installed)
    return installed
