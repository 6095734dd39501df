"""Writes to the local program: at once when its socket takes it, else from a backlog."""

from __future__ import annotations

import socket

from jupyman.ssh.io.backlog import Backlog

TURN = 64  # pieces of the backlog that are written before the next connection has its turn


class LocalWriter:
    """The sending half of a local connection; in the loop's thread.

    Args:
        sock: of it, not blocking.

    Attributes:
        peer_reset: the program takes nothing more; all that comes counts as written.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.peer_reset = False
        self._sock = sock
        self._backlog = Backlog()

    @property
    def pending(self) -> bool:
        """Whether something waits for `flush`."""
        return bool(self._backlog)

    def write(self, views: list[memoryview], size: int) -> int:
        """Write, and keep what the socket does not take.

        Args:
            views: what came.
            size: bytes of it.

        Returns:
            Bytes that are written.
        """
        if self.peer_reset:
            return size
        taken = 0 if self._backlog else self._send(views)
        if taken < size and not self.peer_reset:
            self._backlog.add(views, taken)
        return size if self.peer_reset else taken

    def flush(self) -> int:
        """Write of what was kept; return the bytes."""
        if not self._backlog:
            return 0
        taken = self._send(self._backlog.head(TURN))
        if self.peer_reset:
            taken = len(self._backlog)
        self._backlog.drop(taken)
        return taken

    def close(self) -> None:
        """Close the socket and forget what was kept."""
        self.peer_reset = True
        self._backlog.clear()
        self._sock.close()

    def _send(self, views: list[memoryview]) -> int:
        taken = 0
        try:
            if len(views) > 1 and hasattr(self._sock, "sendmsg"):
                taken, views = self._sock.sendmsg(views), []
            for view in views:
                count = self._sock.send(view)
                taken += count
                if count < len(view):
                    break
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # reset by the program
            self.peer_reset = True
        return taken
