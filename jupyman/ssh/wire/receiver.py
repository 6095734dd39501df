"""Bytes from the host that are not opened yet: one large read, then packet after packet out of memory."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import paramiko

from jupyman.ssh.wire.packets import MAX_PACKET, ROOM, Opener

SMALL = 64 * 1024  # bytes of an idle connection's buffer: there may be a hundred connections
LARGE = 1024 * 1024
LINE = 8192  # OpenSSH's limit for a line of the greeting (ssh_api.c); RFC 4253 says 255 for the last one
PATIENCE = 5.0  # seconds between calls of `idle`; closing wakes the reader, so it need not look more often
_QUICKACK: int = getattr(socket, "TCP_QUICKACK", 0)  # Linux


class PacketReceiver:
    """The receiving half of a connection; for one thread at a time.

    Args:
        sock: connected.
        idle: called when nothing has come for `PATIENCE` seconds; may raise.

    Attributes:
        size: bytes of the packet that was taken last, as it was sent.
        heard: when something came last, on the monotonic clock.
    """

    def __init__(self, sock: socket.socket, idle: Callable[[], None]) -> None:
        self.size = 0
        self.heard = time.monotonic()
        self._sock = sock
        self._sock.settimeout(PATIENCE)
        self._idle = idle
        self._start = self._end = 0
        self._total = 0  # of the packet at `_start`, 0 while that is not known
        self._deadline: float | None = None  # of a line
        self._tcp = sock.family != getattr(socket, "AF_UNIX", None) and _QUICKACK != 0
        self._view = self._plain = memoryview(b"")
        self._resize(SMALL)

    def _resize(self, size: int) -> None:
        rest = bytes(self._view[self._start : self._end])
        self._view = memoryview(bytearray(size))
        self._plain = memoryview(bytearray(size + ROOM))
        self._view[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    @property
    def large(self) -> bool:
        """Whether the buffer is larger than an idle connection needs."""
        return len(self._view) > SMALL

    def shrink(self) -> None:
        """Nothing has come for a while: a small buffer will do, unless a part of a packet is in it."""
        if self.large and self._start == self._end and time.monotonic() - self.heard >= PATIENCE:
            self._start = self._end = 0
            self._resize(SMALL)

    def take(self, opener: Opener, number: int) -> memoryview | None:
        """Open the next packet.

        Args:
            opener: of the present keys.
            number: the packet's sequence number.

        Returns:
            Its payload, valid until `fill`; None if it has not come as a whole.

        Raises:
            Damaged: it is no packet that the host sealed.
        """
        start = self._start
        have = self._end - start
        total = self._total
        if total == 0:
            if have < opener.head:
                return None
            total = self._total = opener.measure(self._view, start)
        if have < total:
            return None
        self._total = 0
        self._start = end = start + total
        self.size = total
        return opener.open(self._view[start:end], self._plain[start : end + ROOM], number)

    def fill(self) -> None:
        """Wait until more has come.

        Raises:
            EOFError, OSError: the connection has ended.
        """
        start, end = self._start, self._end
        if start == end:
            self._start = self._end = end = 0
        elif start:
            self._view[: end - start] = self._view[start:end]
            self._start, self._end = 0, end - start
            end -= start
        size = len(self._view)
        if end == size or self._total > size:
            self._resize(max(min(4 * size, LARGE), MAX_PACKET + SMALL if self._total > size else 0))
        count = self._receive(self._view[self._end :])
        self._end += count
        if self._end == len(self._view) < LARGE:  # there is more
            self._resize(min(4 * len(self._view), LARGE))

    def _receive(self, room: memoryview) -> int:
        if self._tcp:
            # sshd sets no TCP_NODELAY for forwards, so its last small packet waits for the acknowledgement of the one
            # before; if we send nothing, our kernel takes 40 ms for that. The option does not last.
            self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        while True:
            try:
                count = self._sock.recv_into(room)
            except TimeoutError as error:
                if error.errno:  # ETIMEDOUT: the kernel has given up
                    raise
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    raise
                self.shrink()
                room = self._view[self._end :]
                self._idle()
                continue
            if count == 0:
                raise EOFError
            self.heard = time.monotonic()
            return count

    def line(self, timeout: float) -> str:
        """Read a line of the host's greeting, which comes before any packet.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: it did not come.
            SSHException: it has no end.
            EOFError, OSError: the connection has ended.
        """
        self._deadline = deadline = time.monotonic() + timeout
        try:
            while True:
                found = bytes(self._view[self._start : self._end])
                line, end, _ = found.partition(b"\n")
                if end:
                    self._start += len(line) + 1
                    return line.removesuffix(b"\r").decode(errors="replace")
                if len(found) > LINE:
                    raise paramiko.SSHException("a greeting without an end")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._sock.settimeout(min(PATIENCE, left))
                self.fill()
        finally:
            self._deadline = None
            self._sock.settimeout(PATIENCE)

    def raw(self, size: int) -> bytes:
        """Read bytes as they are.

        Args:
            size: bytes.

        Raises:
            EOFError, OSError: the connection has ended before.
        """
        taken = bytearray()
        while len(taken) < size:
            if self._start == self._end:
                self.fill()
            piece = self._view[self._start : min(self._end, self._start + size - len(taken))]
            taken += piece
            self._start += len(piece)
        return bytes(taken)
