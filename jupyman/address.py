"""daemon.json: where the running daemon is, and the secret that lets its user in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec

from jupyman.paths import own_uid


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """The file's content."""

    pid: Annotated[int, msgspec.Meta(gt=0)]
    create_time: float  # psutil's, tells a reused pid apart
    port: Annotated[int, msgspec.Meta(gt=0, lt=65536)]
    token: str
    version: str


def write(path: Path, address: Address) -> None:
    """Write the file, 0600, whole or not at all."""
    fresh = path.with_name(f"{path.name}.{address.pid}")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(address))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read(path: Path) -> Address | None:
    """Read the file; None where it is absent, broken, or another user's."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_uid != own_uid():
                return None  # he would be our daemon, and ask for our passwords
            return msgspec.json.decode(file.read(), type=Address)
    except (OSError, ValueError):  # no JSON, another shape, or no text at all
        return None
