"""Ports that are free."""

from __future__ import annotations

import contextlib
import errno
import random
import socket

# Below the ports that Linux gives to outgoing connections: only tests take ports there.
_RANGE = range(15_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Choose ports of loopback that are free now, and most likely still are when a test binds them."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            port = random.choice(_RANGE)
            try:
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                found.append(port)
    return found


def free_port() -> int:
    """Choose one port; see `free_ports`."""
    return free_ports(1)[0]
