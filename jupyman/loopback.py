"""Whose the other end of a connection on this computer is. Linux tells; elsewhere nobody is known to be a stranger."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from jupyman.paths import own_uid

_LISTEN = "0A"  # include/net/tcp_states.h
# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h.
_SOCK_DIAG, _BY_FAMILY, _ERROR, _DONE, _ANY = 4, 20, 2, 3, 0xFFFFFFFF


def foreign_listener(port: int) -> bool:
    """Tell whether a connection to 127.0.0.1 would reach another user's program.

    Args:
        port: of a listener of ours, as it once was.
    """
    try:
        holders = _asked(port)
    except OSError:  # not Linux, or a sandbox forbids it
        table = _table(port)
        holders = {near: uid for near, _, state, uid in table if state == _LISTEN and near.endswith(f":{port:04X}")}
    return bool(holders) and holders.get(_end("127.0.0.1", port)) != own_uid()


def foreign_caller(far: tuple[str, int], near: tuple[str, int]) -> bool:
    """Tell whether a connection was made by another user; root is none: so comes the browser of Windows to WSL.

    Args:
        far: the caller's address and port.
        near: ours.
    """
    # Through an IPv6 socket an address of IPv4 is the end of a longer one.
    caller, own = _end(*far), _end(*near)
    uids = {uid for one, other, _, uid in _table(near[1]) if one.endswith(caller) and other.endswith(own)}
    return not uids <= {0, own_uid()}


def _asked(port: int) -> dict[str, int]:
    """Ask the kernel who listens on a port: sock_diag(7). Its tables as text take 30 ms, or with many connections 100.

    Returns:
        The uids by near end, as `_table` writes it.

    Raises:
        OSError: the kernel does not say.
    """
    if sys.platform != "linux":
        raise OSError("no Linux")
    found: dict[str, int] = {}
    for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
        # struct inet_diag_req_v2: the family, TCP, no extensions, the state; the port, any address, no cookie.
        wanted = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 1 << int(_LISTEN, 16))
        wanted += struct.pack("!HH", port, 0) + bytes(32) + struct.pack("=III", 0, _ANY, _ANY)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
            kernel.settimeout(1)
            # struct nlmsghdr: length, type, flags (request, dump), number, from.
            kernel.send(struct.pack("=IHHII", 16 + len(wanted), _BY_FAMILY, 0x301, 1, 0) + wanted)
            over = False
            while not over:
                answer = kernel.recv(1 << 16)
                while len(answer) >= 16 and not over:
                    length, kind = struct.unpack_from("=IH", answer)
                    if kind == _ERROR or not 16 <= length <= len(answer):
                        raise OSError("the kernel does not say who listens")
                    over = kind == _DONE
                    if kind == _BY_FAMILY:  # struct inet_diag_msg: the address begins at 8, the uid at 64
                        address = struct.unpack_from(f"={size // 4}I", answer, 16 + 8)
                        (uid,) = struct.unpack_from("=I", answer, 16 + 64)
                        found["".join(f"{word:08X}" for word in address) + f":{port:04X}"] = uid
                    answer = answer[(length + 3) & ~3 :]
    return found


def _table(port: int) -> Iterator[tuple[str, str, str, int]]:
    """Yield near and far end, state and uid of each TCP socket with that port at either end: proc_net_tcp(5)."""
    mark = f":{port:04X} "
    for name in ("tcp", "tcp6"):
        try:
            text = Path("/proc/net", name).read_text(encoding="ascii")
        except OSError:
            continue
        for line in text.splitlines()[1:]:
            if mark in line:  # of thousands of sockets, where thousands of connections are carried
                cells = line.split()
                yield cells[1], cells[2], cells[3], int(cells[7])


def _end(address: str, port: int) -> str:
    return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}:{port:04X}"
