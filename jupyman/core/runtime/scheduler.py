"""One thread for all that the daemon does now and then: each of a thread of its own would cost more than it does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from jupyman.core.runtime.clock import Clock

log = logging.getLogger(__name__)


class PeriodicTask:
    """Something that is to be done again and again.

    Args:
        call: does it, and must not wait: others are due, too.
        period: seconds.
        due: when next, monotonic.
    """

    def __init__(self, call: Callable[[], None], period: float, due: float) -> None:
        self.call = call
        self.period = period
        self.due = due


class Scheduler:
    """Calls what is due.

    Args:
        clock: this computer's.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._duties: list[PeriodicTask] = []
        self._closed = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def every(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Have something done now and then; where it fails, that is logged, and it is done again.

        Args:
            seconds: between two calls.
            call: must not wait.

        Returns:
            What has it done at once, by the ticker's thread, and then counts the seconds from there.
        """
        with self._wake:
            duty = PeriodicTask(call, seconds, self._clock.monotonic() + seconds)
            self._duties.append(duty)
            self._wake.notify_all()

        def soon() -> None:
            with self._wake:
                duty.due = self._clock.monotonic()
                self._wake.notify_all()

        return soon

    def close(self) -> None:
        """End; what is being called just now goes on."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                wait = min((duty.due for duty in self._duties), default=None)
                if wait is not None:
                    wait = max(0.0, wait - self._clock.monotonic())
                if not self._closed and wait != 0.0:
                    self._clock.wait(self._wake, wait)
                if self._closed:
                    return
                now = self._clock.monotonic()
                due = [duty for duty in self._duties if duty.due <= now]
                for duty in due:
                    duty.due = now + duty.period
            for duty in due:
                try:
                    duty.call()
                except Exception:
                    log.exception("what is done every %.0f s broke", duty.period)
