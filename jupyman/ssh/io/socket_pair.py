"""A pair of connected sockets with room for some packets."""

from __future__ import annotations

import contextlib
import socket

PAIR = 256 * 1024  # bytes that either socket of a pair holds


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets whose buffers hold some packets: macOS gives them 8 KiB."""
    both = socket.socketpair()
    for one in both:
        for direction in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, direction, PAIR)
    return both
