"""Find which uid owns the peer of a loopback connection (Linux only; elsewhere no peer is known to be foreign).

macOS and Windows do not show it to an ordinary user: LOCAL_PEERCRED is for UNIX sockets only, proc_pidfdinfo(2) shows
other users' descriptors to root only, and GetExtendedTcpTable names the process but not its user.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from jupyman.paths import own_uid

GONE = -1  # instead of a uid: the other end is closed already, so its owner is unknown

_LISTEN = 10  # include/net/tcp_states.h
# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h.
_SOCK_DIAG, _BY_FAMILY, _REQUEST, _ERROR, _ANY = 4, 20, 1, 2, 0xFFFFFFFF

# The query failed for lack of resources, which proves nothing about the system.
_NO_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

End = tuple[str, int]
_Socket = tuple[int, int, int]  # state, uid, inode
_Method = Callable[[End, End], "_Socket | None"]


class _UnsureError(OSError):
    """It is not known whether this system reveals the owner of a connection; the connection is not accepted."""


_known: dict[str, bool] = {}  # whether a method, by name, works on this system


def stranger(far: End, near: End) -> int | None:
    """Return which other user made a connection to us. Call it on accept, before anything is read.

    Root is not foreign: a browser on Windows reaches WSL as root.

    Args:
        far: the caller's address and port.
        near: ours.

    Returns:
        The uid; GONE if the other end is closed already, so that it could be anyone's; None if the caller is this user
        or root, or if this system does not reveal it.
    """
    if sys.platform != "linux":
        return None
    try:
        found = _find(far, near)
    except _UnsureError:
        return GONE
    except OSError as error:
        # Another user who uses up our descriptors must not be accepted for it.
        return GONE if error.errno in _NO_RESOURCES else None
    if found is None or found[0] == _LISTEN or found[2] == 0:
        # A closed socket has no inode, and the kernel shows uid 0 for it, which is not root.
        return GONE
    uid = found[1]
    return None if uid in {0, own_uid()} else uid


def probe() -> None:
    """Find out which methods work on this system, once: otherwise the first foreign connection waits up to a second."""
    if sys.platform == "linux":
        for method in (_query, _scan):
            with contextlib.suppress(OSError):
                _works(method)


def foreign_caller(far: End, near: End) -> bool:
    """Return whether a connection was made by another or an unknown user; arguments as `stranger`."""
    return stranger(far, near) is not None


def foreign_listener(port: int) -> bool:
    """Return whether a connection to 127.0.0.1 would reach another user's program (root's included).

    Args:
        port: that a listener of ours had.
    """
    return listener_uid(port) not in {None, own_uid()}


def listener_uid(port: int) -> int | None:
    """Return the uid whose program a connection to 127.0.0.1 would reach; None: no program, or it is not revealed.

    Args:
        port: any.
    """
    if sys.platform != "linux":
        return None
    try:
        found = _find(("127.0.0.1", port), ("0.0.0.0", 0))  # noqa: S104 - compared, not bound
    except OSError:
        return None
    return found[1] if found is not None else None


def _find(end: End, other: End) -> _Socket | None:
    """Find a TCP socket by its two ends, or a listener by its own end if the other is 0.0.0.0:0.

    Raises:
        OSError: this system does not reveal it.
    """
    for method in (_query, _scan):
        try:
            found = method(end, other)
            if (found is not None and found[2] and found[1] == own_uid()) or _works(method):
                return found
        except _UnsureError:
            raise
        except OSError as error:  # a sandbox forbids the query, or the table
            if error.errno in _NO_RESOURCES:
                raise
    raise OSError("this system does not reveal the owner of a connection")


def _works(method: _Method) -> bool:
    """Return whether a method finds a connection of our own. Tried once, before it is used to refuse a connection.

    Without its module tcp_diag the kernel answers ENOENT for every socket; WSL 1 and some sandboxes have empty tables.
    """
    if method.__name__ not in _known:
        with socket.socket() as listener, socket.socket() as caller:
            try:
                for sock in (listener, caller):
                    sock.settimeout(1)
                listener.bind(("127.0.0.1", 0))
                listener.listen(1)
                caller.connect(listener.getsockname())
                accepted, far = listener.accept()
            except OSError as error:  # another user may have taken all ports to make this fail
                raise _UnsureError(error.errno, "the check of this system failed") from error
            with accepted:
                if far != caller.getsockname():  # another connection was faster
                    raise _UnsureError("another connection came first")
                found = method(far, accepted.getsockname())
        _known[method.__name__] = found is not None and found[1] == own_uid() and found[2] != 0
    return _known[method.__name__]


def _query(end: End, other: End) -> _Socket | None:
    """Query the kernel for this one socket: sock_diag(7). It takes 0.03 ms; reading the tables takes 1 to 20 ms.

    Returns:
        The socket, or None. A listener is found for each `other` that has no connection to it.

    Raises:
        OSError: the kernel does not reveal it.
    """
    family, source = _packed(end[0])
    its_family, destination = _packed(other[0])
    if family != its_family:
        return None
    # struct inet_diag_req_v2: the family, TCP, no extensions, any state; the ports, the addresses, any interface, no
    # cookie.
    wanted = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ANY) + struct.pack("!HH", end[1], other[1])
    wanted += source.ljust(16, b"\0") + destination.ljust(16, b"\0") + struct.pack("=III", 0, _ANY, _ANY)
    # netlink(7); AF_NETLINK is 16 on Linux, and the module is typed for systems without it.
    with socket.socket(getattr(socket, "AF_NETLINK", 16), socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.setblocking(False)  # the answer is available when `send` returns
        # struct nlmsghdr: length, type, flags, number, from.
        kernel.send(struct.pack("=IHHII", 16 + len(wanted), _BY_FAMILY, _REQUEST, 1, 0) + wanted)
        answer = kernel.recv(4096)
    if len(answer) < 20:
        raise OSError("the kernel sent no valid answer")
    kind = struct.unpack_from("=H", answer, 4)[0]
    if kind == _ERROR:
        code = -struct.unpack_from("=i", answer, 16)[0]
        if code == errno.ENOENT:
            return None
        raise OSError(code, "the kernel does not reveal the owner of a connection")
    if kind != _BY_FAMILY or len(answer) < 16 + 72:
        raise OSError("the kernel sent no valid answer")
    # struct inet_diag_msg: the state at 1, uid and inode at 64.
    uid, inode = struct.unpack_from("=II", answer, 16 + 64)
    return answer[17], uid, inode


def _scan(end: End, other: End) -> _Socket | None:
    """Look the socket up in the kernel's tables as text: proc_net_tcp(5).

    Raises:
        OSError: they cannot be read.
    """
    near, far = _formatted(end), _formatted(other)
    for name in ("tcp", "tcp6"):
        try:
            text = Path("/proc/net", name).read_text(encoding="ascii")
        except OSError:
            if name == "tcp":
                raise
            continue  # a kernel without IPv6
        wide = None  # a listener on every address, used if there is none on this one
        for line in text.splitlines()[1:]:
            if f":{end[1]:04X} " not in line:  # the cheap test first: there may be thousands of sockets
                continue
            cells = line.split()
            found = int(cells[3], 16), int(cells[7]), int(cells[9])
            # On an IPv6 socket an IPv4 address is the tail of a mapped one.
            if cells[1].endswith(near) and (found[0] == _LISTEN if other[1] == 0 else cells[2].endswith(far)):
                return found
            if other[1] == 0 and found[0] == _LISTEN and cells[1] in {f"{zeros}:{end[1]:04X}" for zeros in _WILDCARDS}:
                wide = found
        if wide is not None:
            return wide
    return None


_WILDCARDS = ("0" * 8, "0" * 32)


def _packed(address: str) -> tuple[int, bytes]:
    """Return family and bytes of an address; a mapped IPv4 address becomes IPv4, by which the kernel finds both."""
    text = address.partition("%")[0]
    if ":" not in text:
        return socket.AF_INET, socket.inet_pton(socket.AF_INET, text)
    packed = socket.inet_pton(socket.AF_INET6, text)
    mapped = packed[:12] == bytes(10) + b"\xff\xff"
    return (socket.AF_INET, packed[12:]) if mapped else (socket.AF_INET6, packed)


def _formatted(end: End) -> str:
    """Format an end as /proc/net/tcp does: words in host byte order, and the port."""
    packed = _packed(end[0])[1]
    words = (int.from_bytes(packed[index : index + 4], sys.byteorder) for index in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"
