"""Time as a supervisor sees it; a test brings a clock of its own and lives through a day in seconds."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime


class Clock:
    """This computer's clocks."""

    def monotonic(self) -> float:
        """Return seconds that only grow; on Linux and macOS they stand still while the computer sleeps."""
        return time.monotonic()

    def wall(self) -> float:
        """Return seconds since 1970, which may jump."""
        return time.time()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait for a notice.

        Args:
            condition: held by the caller.
            seconds: at most; None: for ever.
        """
        condition.wait(seconds)

    def stamp(self, ahead: float = 0.0) -> str:
        """Return the time as RFC 3339 UTC.

        Args:
            ahead: seconds from now.
        """
        return datetime.fromtimestamp(self.wall() + ahead, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
