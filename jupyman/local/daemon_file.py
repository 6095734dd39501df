"""daemon.json: address and token of the running daemon, and the proof that a program on that port is this daemon."""

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
    stamp: str = ""  # of the code that it runs: see local/build.py; daemons of 0.1.0 have none


def write(path: Path, address: DaemonAddress) -> None:
    """Write the file, 0600, completely or not at all."""
    fresh = path.with_name(f"{path.name}.{address.pid}")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(address))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read(path: Path) -> DaemonAddress | None:
    """Read the file; None if it is absent, broken, or belongs to another user."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_uid != own_uid():
                return None  # another user could impersonate the daemon, and ask for passwords
            return msgspec.json.decode(file.read(), type=DaemonAddress)
    except (OSError, ValueError):  # no JSON, another shape, or no text at all
        return None


def proof(token: str, nonce: str, client: int, daemon: int, said: bytes) -> str:
    """Return the HMAC-SHA256 (RFC 2104) under the token that proves, for one connection, knowledge of the token.

    It covers both ports, so that nobody in between can forward a proof that the daemon gave on another connection.

    Args:
        token: that of daemon.json; the result does not reveal it.
        nonce: chosen by the client, never used before.
        client: TCP port of the client's end.
        daemon: TCP port of the daemon's end.
        said: the body of the answer that carries the proof.
    """
    text = f"jupyman daemon\n{nonce}\n{client}\n{daemon}\n".encode() + said
    return hmac.digest(token.encode(), text, "sha256").hex()


def holds(where: DaemonAddress, here: tuple[str, int]) -> bool:
    """Return whether the process in the file is the user's own and has the other end of one of our connections.

    For daemons of early versions of 0.1.0, which have no proof; takes 20 ms.

    Args:
        where: content of the file.
        here: address and TCP port of our end, on 127.0.0.1.
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
