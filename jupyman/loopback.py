"""Whose the other end of a connection on this computer is. Linux tells; elsewhere nobody is known to be a stranger."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from jupyman.paths import own_uid

_LISTEN = "0A"  # include/net/tcp_states.h


def foreign_listener(port: int) -> bool:
    """Tell whether a connection to 127.0.0.1 would reach another user's program.

    Args:
        port: of a listener of ours, as it once was.
    """
    holders = {near: uid for near, _, state, uid in _table() if state == _LISTEN and near.endswith(f":{port:04X}")}
    return bool(holders) and holders.get(_end("127.0.0.1", port)) != own_uid()


def foreign_caller(far: tuple[str, int], near: tuple[str, int]) -> bool:
    """Tell whether a connection was made by another user; root is none: so comes the browser of Windows to WSL.

    Args:
        far: the caller's address and port.
        near: ours.
    """
    # Through an IPv6 socket an address of IPv4 is the end of a longer one.
    caller, own = _end(*far), _end(*near)
    uids = {uid for one, other, _, uid in _table() if one.endswith(caller) and other.endswith(own)}
    return not uids <= {0, own_uid()}


def _table() -> Iterator[tuple[str, str, str, int]]:
    """Yield near and far end, state and uid of each TCP socket: proc_net_tcp(5)."""
    for name in ("tcp", "tcp6"):
        try:
            text = Path("/proc/net", name).read_text(encoding="ascii")
        except OSError:
            continue
        for line in text.splitlines()[1:]:
            cells = line.split()
            yield cells[1], cells[2], cells[3], int(cells[7])


def _end(address: str, port: int) -> str:
    return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}:{port:04X}"
