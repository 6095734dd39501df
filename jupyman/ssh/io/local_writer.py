"""The way to the local program: at once where its socket takes it, else from a backlog; from two threads."""

from __future__ import annotations

import socket
import threading

from jupyman.ssh.io.backlog import Backlog

TURN = 64  # pieces of the backlog that are delivered before the next connection has its turn


class LocalWriter:
    """The sending half of a local connection.

    Args:
        sock: of it, not blocking.

    Attributes:
        lock: held while the socket is sent to or closed: its descriptor must not become another connection's meanwhile.
        deaf: the program takes nothing more; all that comes counts as delivered.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.lock = threading.Lock()
        self.deaf = False
        self._sock = sock
        self._backlog = Backlog()

    @property
    def behind(self) -> bool:
        """Whether something waits for `drain`."""
        return bool(self._backlog)

    def give(self, views: list[memoryview], size: int) -> int:
        """Deliver, and keep what the socket does not take; the lock is held.

        Args:
            views: what came.
            size: bytes of it.

        Returns:
            Bytes that are delivered.
        """
        if self.deaf:
            return size
        taken = 0 if self._backlog else self._send(views)
        if taken < size and not self.deaf:
            self._backlog.add(views, taken)
        return size if self.deaf else taken

    def drain(self) -> int:
        """Deliver of what was kept, in the lock; return the bytes."""
        with self.lock:
            if not self._backlog:
                return 0
            if not self.deaf:
                taken = self._send(self._backlog.head(TURN))
            if self.deaf:
                taken = len(self._backlog)
            self._backlog.drop(taken)
            return taken

    def close(self) -> None:
        """Close the socket and forget what was kept."""
        with self.lock:
            self.deaf = True
            self._backlog.clear()
            self._sock.close()

    def _send(self, views: list[memoryview]) -> int:
        taken = 0
        try:
            if len(views) > 1 and hasattr(self._sock, "sendmsg"):
                taken = self._sock.sendmsg(views)
            else:
                for view in views:
                    count = self._sock.send(view)
                    taken += count
                    if count < len(view):
                        break
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # reset by the program
            self.deaf = True
        return taken
