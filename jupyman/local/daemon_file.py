"""daemon.json: where the running daemon is, the secret that lets its user in, and how it proves to be that daemon."""

from __future__ import annotations

import hmac
import os
import sys
from pathlib import Path
from typing import Annotated

import msgspec

from jupyman.paths import own_uid


class DaemonAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The file's content."""

    pid: Annotated[int, msgspec.Meta(gt=0)]
    create_time: float  # psutil's, tells a reused pid apart
    port: Annotated[int, msgspec.Meta(gt=0, lt=65536)]
    token: str
    version: str


def write(path: Path, address: DaemonAddress) -> None:
    """Write the file, 0600, whole or not at all."""
    fresh = path.with_name(f"{path.name}.{address.pid}")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(address))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read(path: Path) -> DaemonAddress | None:
    """Read the file; None where it is absent, broken, or another user's."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_uid != own_uid():
                return None  # he would be our daemon, and ask for our passwords
            return msgspec.json.decode(file.read(), type=DaemonAddress)
    except (OSError, ValueError):  # no JSON, another shape, or no text at all
        return None


def proof(token: str, nonce: str, client: int, daemon: int, said: bytes) -> str:
    """Return what only somebody who has the token can say, for one connection: HMAC-SHA256 (RFC 2104).

    Both ports are in it, so that nobody can stand in between and hand on what the daemon says on another connection.

    Args:
        token: of daemon.json; it is not to be had from the result.
        nonce: the client's, never used before.
        client: port of the client's end.
        daemon: port of the daemon's end.
        said: what the daemon says of itself.
    """
    text = f"jupyman daemon\n{nonce}\n{client}\n{daemon}\n".encode() + said
    return hmac.digest(token.encode(), text, "sha256").hex()


def holds(where: DaemonAddress, here: tuple[str, int]) -> bool:
    """Tell whether the process that the file names, and which is ours, has the other end of a connection of ours.

    For daemons of 0.1.0, which can prove nothing; takes 20 ms.

    Args:
        where: the file's content.
        here: address and port of our own end, on 127.0.0.1.
    """
    import psutil

    try:
        process = psutil.Process(where.pid)
        if sys.platform != "win32" and process.uids().effective != own_uid():
            return False
        ends = [(tuple(one.laddr), tuple(one.raddr)) for one in process.net_connections("tcp4")]
    except psutil.Error:
        return False
    return (("127.0.0.1", where.port), here) in ends
