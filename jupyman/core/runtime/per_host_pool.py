"""Looks at many hosts in the background: several at once, so that a slow one holds up nobody; not all, for our sake."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class PerHostPool:
    """Each host is looked at by one thread at a time. Threads are there while there is something to do.

    Args:
        look: looks at a host; may take long, and raise.
        most: hosts that are looked at at the same time.
    """

    def __init__(self, look: Callable[[str], None], most: int) -> None:
        self._look = look
        self._most = most
        self._lock = threading.Lock()
        self._waiting: dict[str, None] = {}  # in the order in which they were asked for
        self._looked_at: set[str] = set()
        self._again: set[str] = set()
        self._threads = 0
        self._closed = False

    def ask(self, host: str, *, again: bool = True) -> None:
        """Have a host looked at soon; returns at once.

        Args:
            host: its name.
            again: where it is being looked at just now, look once more: what was seen already may be old.
        """
        with self._lock:
            if host in self._looked_at:
                if again:
                    self._again.add(host)
                return
            self._waiting[host] = None
            if self._closed or self._threads >= min(self._most, len(self._waiting) + len(self._looked_at)):
                return
            try:
                threading.Thread(target=self._work, name="look at hosts", daemon=True).start()
            except RuntimeError:  # no thread could be started: the next who asks tries again
                log.exception("%s is not looked at now", host)
            else:
                self._threads += 1  # the new one waits for our lock

    def close(self) -> None:
        """Begin no further look."""
        with self._lock:
            self._closed = True

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._closed or not self._waiting:
                    self._threads -= 1
                    return
                host = next(iter(self._waiting))
                del self._waiting[host]
                self._looked_at.add(host)
            try:
                self._look(host)
            except Exception:
                log.exception("%s could not be looked at", host)
            with self._lock:
                self._looked_at.discard(host)
                if host in self._again:
                    self._again.discard(host)
                    self._waiting[host] = None
