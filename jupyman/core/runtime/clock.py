"""The clocks of this computer, behind one class so that a test can replace them and run through a day in seconds."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime


class Clock:
    """This computer's clocks."""

    def monotonic(self) -> float:
        """Return seconds that only increase; on Linux and macOS they stop while the computer sleeps."""
        return time.monotonic()

    def wall(self) -> float:
        """Return seconds since 1970, which may jump."""
        return time.time()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait until the condition is notified.

        Args:
            condition: held by the caller.
            seconds: at most; None: without a limit.
        """
        condition.wait(seconds)

    def stamp(self, ahead: float = 0.0) -> str:
        """Return the time as RFC 3339 UTC.

        Args:
            ahead: seconds from now.
        """
        return datetime.fromtimestamp(self.wall() + ahead, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
