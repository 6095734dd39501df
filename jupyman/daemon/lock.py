"""One daemon per user: an operating system's lock on a file, gone with the process however it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jupyman import errors


class Lock:
    """Held while the daemon lives.

    Args:
        path: the lock file, kept.

    Raises:
        DaemonUnavailable: another daemon holds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(self._handle, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            raise errors.DaemonUnavailable("a daemon is running already", "jupyman daemon status") from error

    @property
    def lasts(self) -> bool:
        """Whether the file that is held still has its name: else another daemon may hold its successor."""
        try:
            return os.path.samestat(os.fstat(self._handle), self._path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Let go."""
        os.close(self._handle)
