"""Run one job per host in the background: several at once, so that a slow host delays no other, but a bounded number.

A host is waiting, running, or neither; while it is running it may also be marked to run again. `_lock` guards all
fields and is never held while a job runs. Threads exist only while there is something to do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class PerHostPool:
    """Runs a job for each host that asks for it; never two at once for the same host.

    Args:
        job: takes the host's name; may take long, and raise.
        most: how many hosts run at the same time.
    """

    def __init__(self, job: Callable[[str], None], most: int) -> None:
        self._job = job
        self._most = most
        self._lock = threading.Lock()
        self._waiting: dict[str, None] = {}  # in the order in which they asked
        self._running: set[str] = set()
        self._again: set[str] = set()
        self._threads = 0
        self._closed = False

    def ask(self, host: str, *, again: bool = True) -> None:
        """Have the job run for a host soon; returns at once.

        Args:
            host: its name.
            again: if it is running just now, run it once more: what it has seen so far may be outdated.
        """
        with self._lock:
            if host in self._running:
                if again:
                    self._again.add(host)
                return
            self._waiting[host] = None
            if self._closed or self._threads >= min(self._most, len(self._waiting) + len(self._running)):
                return
            try:
                threading.Thread(target=self._work, name="per-host pool", daemon=True).start()
            except RuntimeError:  # no thread could be started: the next call tries again
                log.exception("no thread for %s", host)
            else:
                self._threads += 1  # the new thread waits for the lock

    def close(self) -> None:
        """Start no further job; those that run finish."""
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
                self._running.add(host)
            try:
                self._job(host)
            except Exception:
                log.exception("the job for %s failed", host)
            with self._lock:
                self._running.discard(host)
                if host in self._again:
                    self._again.discard(host)
                    self._waiting[host] = None
