"""One daemon per user: a lock of the operating system on a file, released however the process ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jupyman import errors


class Lock:
    """Held while the daemon runs.

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
            raise errors.DaemonUnavailable("a daemon is already running", "jupyman daemon status") from error

    @property
    def lasts(self) -> bool:
        """Whether the locked file still has its name; if not, another daemon may hold a lock on a new one."""
        try:
            return os.path.samestat(os.fstat(self._handle), self._path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Release it."""
        os.close(self._handle)
