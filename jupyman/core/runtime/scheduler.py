"""One thread for all periodic work of the daemon: a thread for each task would cost more than the tasks do.

`_wake` guards all fields and is not held while a task runs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from jupyman.core.runtime.clock import Clock

log = logging.getLogger(__name__)


class PeriodicTask:
    """A function that is called again and again.

    Args:
        call: the function; must not wait, because other tasks are due, too.
        period: seconds.
        due: when it is called next, monotonic.
    """

    def __init__(self, call: Callable[[], None], period: float, due: float) -> None:
        self.call = call
        self.period = period
        self.due = due


class Scheduler:
    """Calls the tasks that are due.

    Args:
        clock: this computer's; a test brings its own.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._tasks: list[PeriodicTask] = []
        self._closed = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def every(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Call a function periodically; if it fails, that is logged, and it is called again.

        Args:
            seconds: between two calls.
            call: must not wait.

        Returns:
            A function that has the task run at once, in the scheduler's thread; its period starts from there.
        """
        with self._wake:
            task = PeriodicTask(call, seconds, self._clock.monotonic() + seconds)
            self._tasks.append(task)
            self._wake.notify_all()

        def run_now() -> None:
            with self._wake:
                task.due = self._clock.monotonic()
                self._wake.notify_all()

        return run_now

    def close(self) -> None:
        """Stop; a task that is running finishes."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                wait = min((task.due for task in self._tasks), default=None)
                if wait is not None:
                    wait = max(0.0, wait - self._clock.monotonic())
                if not self._closed and wait != 0.0:
                    self._clock.wait(self._wake, wait)
                if self._closed:
                    return
                now = self._clock.monotonic()
                due = [task for task in self._tasks if task.due <= now]
                for task in due:
                    task.due = now + task.period
            for task in due:
                try:
                    task.call()
                except Exception:
                    log.exception("a task that runs every %.0f s failed", task.period)
