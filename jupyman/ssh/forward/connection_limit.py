"""How many connections one forward carries at once, and how many it refused because of that.

Without a limit, a forward that leads to itself (its host is this computer) connects to itself until no file descriptor
is left, and every other forward stops.
"""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

# A browser keeps 6 connections to a server (RFC 9112, section 9.4, leaves the number to it) and one for each kernel;
# load tests and pools open hundreds. Two descriptors each, with the host's end on this computer.
MOST = 1024
QUIET = 60.0  # seconds between two lines of the log about the same forward


class ConnectionLimit:
    """The connections that one listener refused; its engine counts the open ones.

    Attributes:
        refused: how many so far.
        last: when the last was, monotonic; None: never.
    """

    def __init__(self) -> None:
        self.refused = 0
        self.last: float | None = None

    def full(self, count: int) -> bool:
        """Return whether so many open connections allow no more."""
        return count >= MOST

    def refuse(self, local_port: int) -> None:
        """Count one more, and log it now and then."""
        instant = time.monotonic()
        if self.last is None or instant - self.last > QUIET:
            log.warning("local port %d: %d connections are open, and more are refused", local_port, MOST)
        self.refused += 1
        self.last = instant
