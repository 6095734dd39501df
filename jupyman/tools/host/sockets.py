"""Read listening TCP sockets from the kernel's tables and `ss`, which show other users' sockets, unlike lsof."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jupyman.tools.host.text import clean

_LISTEN = "0A"  # include/net/tcp_states.h
_SS_UID = re.compile(r"\suid:([0-9]{1,10})\b")
_SS_PROCESS = re.compile(r"\",pid=([0-9]{1,9}),fd=[0-9]+\)")
_SS_INODE = re.compile(r"\sino:([0-9]{1,18})\b")
# Addresses on which a listener occupies the port of 127.0.0.1, in the order in which a connection reaches them.
# Measured: one on ::1 or 127.0.0.2 does not. One on :: may be for IPv6 only, which /proc does not show: it counts.
_LOOPBACK = ("127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "*", "::ffff:0.0.0.0", "::")  # noqa: S104 - compared, not bound


@dataclass(frozen=True)
class Socket:
    """A listening socket."""

    address: str
    port: int
    uid: int | None
    inode: int | None = None
    pid: int | None = None
    command: str | None = None


def proc_net(lines: Sequence[str]) -> Iterator[Socket]:
    """Read lines of /proc/net/tcp and tcp6 (proc(5)): ``sl local remote state … uid timeout inode``.

    Yields:
        Sockets in state LISTEN; lines that cannot be read are skipped.
    """
    for line in lines:
        cells = line.split()
        if len(cells) < 10 or cells[3] != _LISTEN:
            continue
        address, _, port = cells[1].partition(":")
        decoded = decode(address)
        if decoded is None or not re.fullmatch(r"[0-9A-Fa-f]{4}", port) or port == "0000":
            continue
        if re.fullmatch(r"[0-9]{1,10}", cells[7]) and re.fullmatch(r"[0-9]{1,18}", cells[9]):
            yield Socket(address=decoded, port=int(port, 16), uid=int(cells[7]), inode=int(cells[9]))


def decode(text: str) -> str | None:
    """Decode an address of /proc/net: 32-bit words in host byte order, little-endian on every machine with GPUs.

    Returns:
        The address in its usual form; None for other text.
    """
    if not re.fullmatch(r"[0-9A-Fa-f]{8}|[0-9A-Fa-f]{32}", text):
        return None
    raw = bytes.fromhex(text)
    words = b"".join(raw[index : index + 4][::-1] for index in range(0, len(raw), 4))
    return _usual(ipaddress.ip_address(words))


def ss(lines: Sequence[str]) -> Iterator[Socket]:
    """Read the output of ``ss -ltnpe``: state, queues, local, peer, then users, uid (omitted for root) and inode.

    Yields:
        Listening sockets, one for each process that has it open; lines that cannot be read are skipped. A process
        chooses its name and can so forge a pid: `signal.sh` checks again before it signals one.
    """
    for line in lines:
        cells = line.split()
        if len(cells) < 5 or cells[0] != "LISTEN":
            continue
        place = split_endpoint(cells[3])
        if place is None:
            continue
        # The name of a process must not be read as the fields behind it.
        quoted = line.rfind('"') + 1
        uid, inode = _SS_UID.search(line, quoted), _SS_INODE.search(line, quoted)
        # No regular expression: one for both ends takes hours for a line that repeats the first.
        name, named, _ = line.partition('users:(("')[2].partition('",pid=')
        pids: list[int | None] = [int(pid) for pid in _SS_PROCESS.findall(line)]
        for pid in pids or [None]:
            yield Socket(
                address=place[0],
                port=place[1],
                uid=int(uid[1]) if uid is not None else 0 if inode is not None else None,
                inode=int(inode[1]) if inode is not None else None,
                pid=pid,
                command=clean(name, 120) or None if named and pid is not None else None,
            )


def split_endpoint(text: str) -> tuple[str, int] | None:
    """Split ``127.0.0.1:8888``, ``[::1]:8888``, ``*:8888`` or ``127.0.0.1%lo:53``.

    Returns:
        Address and port; None for other text.
    """
    address, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        return None
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    address = address.partition("%")[0]
    if address == "*":
        return address, int(port)
    try:
        return _usual(ipaddress.ip_address(address)), int(port)
    except ValueError:
        return None


def rank(address: str) -> int | None:
    """Return the rank of a listener on this address among those that a connection to 127.0.0.1 can reach.

    Returns:
        0 for 127.0.0.1 itself, more for wider addresses, None when 127.0.0.1 does not reach it.
    """
    return _LOOPBACK.index(address) if address in _LOOPBACK else None


def blocks_loopback(address: str) -> bool:
    """Return whether a listener on this address occupies the port of 127.0.0.1."""
    return rank(address) is not None


def _usual(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return f"::ffff:{mapped}" if mapped is not None else str(address)
