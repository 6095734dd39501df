"""What the kernel knows about a TCP connection: whether the peer acknowledges what we send."""

from __future__ import annotations

import socket
import struct
import sys

# struct tcp_info of linux/tcp.h: eight bytes, then numbers of 32 bits. Older kernels have fewer fields.
_UNACKED = struct.Struct("=I"), 24  # segments
_BYTES_ACKED = struct.Struct("=Q"), 120  # since Linux 4.1
_NOT_SENT = struct.Struct("=I"), 144  # bytes; since Linux 4.6
_SIZE = 148


class Acknowledgements:
    """Notices that the peer's kernel acknowledges what we send, while something of ours is under way.

    Once everything is acknowledged, a host that still does not answer is silent: its kernel goes on acknowledging for a
    program that hangs.

    Args:
        sock: of the connection; if it is not TCP, or the system has no such information, nothing is ever noticed.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._known = sock.family in {socket.AF_INET, socket.AF_INET6}
        self._acked = 0
        self._over = True

    @property
    def under_way(self) -> bool:
        """Whether bytes of ours were still under way at the last look."""
        return not self._over

    def begin(self) -> None:
        """Something was sent: its acknowledgement counts from now on."""
        found = self._look()
        self._over = found is None
        if found is not None:
            self._acked = found[0]

    def progress(self) -> bool:
        """Return whether the peer has acknowledged more since the last call, or since `begin`."""
        found = None if self._over else self._look()
        if found is None:
            return False
        acked, pending = found
        more = acked > self._acked
        self._acked = acked
        self._over = not pending
        return more

    def _look(self) -> tuple[int, bool] | None:
        """Return the acknowledged bytes, and whether others wait; None if the system has no such information."""
        if sys.platform != "linux" or not self._known:
            return None
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
        except OSError:
            return None
        if len(info) < _SIZE:
            return None
        (acked,) = _BYTES_ACKED[0].unpack_from(info, _BYTES_ACKED[1])
        (unacked,) = _UNACKED[0].unpack_from(info, _UNACKED[1])
        (not_sent,) = _NOT_SENT[0].unpack_from(info, _NOT_SENT[1])
        return acked, bool(unacked or not_sent)
