"""Whose the other end of a connection on this computer is. Linux tells; elsewhere nobody is known to be a stranger.

macOS and Windows know it too, but not for us: LOCAL_PEERCRED is for UNIX sockets only, proc_pidfdinfo(2) shows other
users' descriptors to root only, and GetExtendedTcpTable names the process but not, without rights, its user.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from jupyman.paths import own_uid

GONE = -1  # in the place of a uid: nobody holds the other end any more, so nobody knows whose it was

_LISTEN = 10  # include/net/tcp_states.h
# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h.
_SOCK_DIAG, _BY_FAMILY, _REQUEST, _ERROR, _ANY = 4, 20, 1, 2, 0xFFFFFFFF

# Nothing is left to ask with: that says nothing about the system.
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

End = tuple[str, int]
_Socket = tuple[int, int, int]  # state, uid, inode
_Way = Callable[[End, End], "_Socket | None"]


class _UnsureError(OSError):
    """It was not found out whether this system tells whose a connection is: nobody is let in by that."""


_known: dict[str, bool] = {}  # whether a way of knowing, by name, is one on this system


def stranger(far: End, near: End) -> int | None:
    """Tell which other user made a connection to us. To be asked when it is accepted, before anything is read from it.

    Root is no stranger: that is how a browser of Windows comes to WSL.

    Args:
        far: the caller's address and port.
        near: ours.

    Returns:
        His uid; GONE where the other end is closed already, so that it could be anybody's; None where the caller is
        ours or root, or where this system does not say.
    """
    if sys.platform != "linux":
        return None
    try:
        found = _look(far, near)
    except _UnsureError:
        return GONE
    except OSError as error:
        # Whoever uses up our descriptors does not get in by that.
        return GONE if error.errno in _SHORT else None
    if found is None or found[0] == _LISTEN or found[2] == 0:
        # A closed socket has no inode, and the uid 0 that the kernel shows for it is not root's.
        return GONE
    uid = found[1]
    return None if uid in {0, own_uid()} else uid


def foreign_caller(far: End, near: End) -> bool:
    """Tell whether a connection was made by another user, or by nobody knows whom; arguments as `stranger`."""
    return stranger(far, near) is not None


def foreign_listener(port: int) -> bool:
    """Tell whether a connection to 127.0.0.1 would reach another user's program; also root's is none of ours.

    Args:
        port: of a listener of ours, as it once was.
    """
    return listener_uid(port) not in {None, own_uid()}


def listener_uid(port: int) -> int | None:
    """Return whose program a connection to 127.0.0.1 would reach: its uid; None: nobody's, or this system does not say.

    Args:
        port: any.
    """
    if sys.platform != "linux":
        return None
    try:
        found = _look(("127.0.0.1", port), ("0.0.0.0", 0))  # noqa: S104 - compared, not bound
    except OSError:
        return None
    return found[1] if found is not None else None


def _look(end: End, other: End) -> _Socket | None:
    """Find a TCP socket by its two ends, or by its own where the other is 0.0.0.0:0 and it listens.

    Raises:
        OSError: this system does not say.
    """
    for way in (_ask, _read):
        try:
            found = way(end, other)
            if (found is not None and found[2] and found[1] == own_uid()) or _true(way):
                return found
        except _UnsureError:
            raise
        except OSError as error:  # a sandbox forbids the question, or the table
            if error.errno in _SHORT:
                raise
    raise OSError("nobody tells whose a connection is")


def _true(way: _Way) -> bool:
    """Tell whether a way knows a connection of our own. Asked once, and only before somebody is called a stranger.

    Without its module tcp_diag the kernel says ENOENT of every socket, and WSL 1 and some sandboxes have empty tables.
    """
    if way.__name__ not in _known:
        with socket.socket() as listener, socket.socket() as caller:
            try:
                for sock in (listener, caller):
                    sock.settimeout(1)
                listener.bind(("127.0.0.1", 0))
                listener.listen(1)
                caller.connect(listener.getsockname())
                accepted, far = listener.accept()
            except OSError as error:  # somebody may have taken all ports, so that this fails
                raise _UnsureError(error.errno, "whether a way of knowing is one was not found out") from error
            with accepted:
                if far != caller.getsockname():  # somebody was faster
                    raise _UnsureError("another connection came first")
                found = way(far, accepted.getsockname())
        _known[way.__name__] = found is not None and found[1] == own_uid() and found[2] != 0
    return _known[way.__name__]


def _ask(end: End, other: End) -> _Socket | None:
    """Ask the kernel for this one socket: sock_diag(7). It takes 0.03 ms; reading its tables 1 to 20 ms.

    Returns:
        It, None where there is none. A listener is found for each `other` that has no connection to it.

    Raises:
        OSError: the kernel does not say.
    """
    family, source = _plain(end[0])
    its_family, destination = _plain(other[0])
    if family != its_family:
        return None
    # struct inet_diag_req_v2: the family, TCP, no extensions, any state; the ports, the addresses, any interface, no
    # cookie.
    wanted = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, _ANY) + struct.pack("!HH", end[1], other[1])
    wanted += source.ljust(16, b"\0") + destination.ljust(16, b"\0") + struct.pack("=III", 0, _ANY, _ANY)
    # netlink(7); AF_NETLINK is 16 on Linux, and the module is typed for systems without it.
    with socket.socket(getattr(socket, "AF_NETLINK", 16), socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.setblocking(False)  # the answer is there when `send` returns
        # struct nlmsghdr: length, type, flags, number, from.
        kernel.send(struct.pack("=IHHII", 16 + len(wanted), _BY_FAMILY, _REQUEST, 1, 0) + wanted)
        answer = kernel.recv(4096)
    if len(answer) < 20:
        raise OSError("the kernel's answer is none")
    kind = struct.unpack_from("=H", answer, 4)[0]
    if kind == _ERROR:
        code = -struct.unpack_from("=i", answer, 16)[0]
        if code == errno.ENOENT:
            return None
        raise OSError(code, "the kernel does not say whose a connection is")
    if kind != _BY_FAMILY or len(answer) < 16 + 72:
        raise OSError("the kernel's answer is none")
    # struct inet_diag_msg: the state at 1, uid and inode at 64.
    uid, inode = struct.unpack_from("=II", answer, 16 + 64)
    return answer[17], uid, inode


def _read(end: End, other: End) -> _Socket | None:
    """Look the socket up in the kernel's tables as text: proc_net_tcp(5).

    Raises:
        OSError: they cannot be read.
    """
    near, far = _written(end), _written(other)
    for name in ("tcp", "tcp6"):
        try:
            text = Path("/proc/net", name).read_text(encoding="ascii")
        except OSError:
            if name == "tcp":
                raise
            continue  # a kernel without IPv6
        wide = None  # a listener on every address, which counts where none is on this one
        for line in text.splitlines()[1:]:
            if f":{end[1]:04X} " not in line:  # of thousands of sockets, where thousands of connections are carried
                continue
            cells = line.split()
            found = int(cells[3], 16), int(cells[7]), int(cells[9])
            # Through an IPv6 socket an address of IPv4 is the end of a longer one.
            if cells[1].endswith(near) and (found[0] == _LISTEN if other[1] == 0 else cells[2].endswith(far)):
                return found
            if other[1] == 0 and found[0] == _LISTEN and cells[1] in {f"{zeros}:{end[1]:04X}" for zeros in _EVERY}:
                wide = found
        if wide is not None:
            return wide
    return None


_EVERY = ("0" * 8, "0" * 32)


def _plain(address: str) -> tuple[int, bytes]:
    """Return family and bytes of an address; one of IPv4 inside IPv6 is one of IPv4, and so the kernel finds both."""
    text = address.partition("%")[0]
    if ":" not in text:
        return socket.AF_INET, socket.inet_pton(socket.AF_INET, text)
    packed = socket.inet_pton(socket.AF_INET6, text)
    mapped = packed[:12] == bytes(10) + b"\xff\xff"
    return (socket.AF_INET, packed[12:]) if mapped else (socket.AF_INET6, packed)


def _written(end: End) -> str:
    """Write an end as /proc/net/tcp does: words in the host's order, and the port."""
    packed = _plain(end[0])[1]
    words = (int.from_bytes(packed[index : index + 4], sys.byteorder) for index in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"
