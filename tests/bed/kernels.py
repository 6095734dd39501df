"""Environments and kernel specs of a user of the bed, and wheels."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.bed import fetched
from tests.bed.accounts import User
from tests.bed.bed import Bed
from tests.bed.interpreter import VERSION
from tests.bed.packages import closure, install

SITE = Path("lib") / f"python{VERSION}" / "site-packages"
SPECS = Path(".local/share/jupyter/kernels")


def own(user: User, bed: Bed, *without: str) -> Path:
    """Fill the environment in the user's home with the packages of `pytorch`.

    Args:
        user: owns the environment.
        bed: has the packages, which are linked.
        without: names in site-packages to leave out.

    Returns:
        Its site-packages.
    """
    site = user.home / "work" / "env" / SITE
    for entry in (bed.conda.pytorch / SITE).iterdir():
        if entry.name.split("-")[0] not in without:
            (site / entry.name).symlink_to(entry)
    return site


def able(user: User, bed: Bed, *without: str) -> Path:
    """Give the environment ~/work/env a kernel and a pip; returns its Python."""
    own(user, bed, *without)
    install(closure("pip"), user.home / "work" / "env")
    fetched.offer(user, fetched.fetch(fetched.WIDGETS))
    return user.home / "work" / "env" / "bin" / "python"


def put_spec(user: User, name: str, python: Path | str, display: str, **more: Any) -> Path:
    """Write a kernel.json as `python -m ipykernel install` does; returns its folder."""
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    text = json.dumps({"argv": argv, "display_name": display, **more})
    return user.put(SPECS / name / "kernel.json", text).parent


def wheel(dist: metadata.Distribution, folder: Path) -> None:
    """Make a wheel (PEP 427) of an installed distribution."""
    name = f"{dist.name}-{dist.version}"
    rows = []
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as archive:
        for file in dist.files or ():
            inside = file.parts[0] in {dist.name, f"{dist.name}_launcher.py", f"{name}.dist-info"}
            if (
                not inside
                or file.suffix == ".pyc"
                or file.name in {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
            ):
                continue
            content = file.read_binary()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append(f"{file.as_posix()},sha256={digest},{len(content)}")
            archive.writestr(file.as_posix(), content)
        record = f"{name}.dist-info/RECORD"
        archive.writestr(record, "\n".join([*rows, f"{record},,", ""]))
