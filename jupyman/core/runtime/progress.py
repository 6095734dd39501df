"""The steps of an operation, shown as they happen, each with its time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from jupyman import errors
from jupyman.api import Operation, Step


class StepProgress:
    """The step under way; `text` may be replaced by its result."""

    def __init__(self, operation: Operation, key: str, text: str) -> None:
        self.text = text
        self.state: Literal["done", "warn", "skip"] = "done"
        self._operation = operation
        self._key = key

    def now(self, text: str) -> None:
        """Show `text` while the step goes on."""
        self.text = text
        self._operation.emit(Step(key=self._key, text=text, state="run"))

    def warn(self, text: str) -> None:
        """End the step with a warning."""
        self.text, self.state = text, "warn"


def go_on(operation: Operation) -> None:
    """Check that the operation was not cancelled.

    Raises:
        Interrupted: it was.
    """
    if operation.cancelled.is_set():
        raise errors.Interrupted("interrupted")


@contextmanager
def step(operation: Operation, key: str, text: str) -> Iterator[StepProgress]:
    """Show a step: at once, and again with its seconds when it is over.

    Args:
        operation: gets the events.
        key: its name, for programs.
        text: for people; the body may set `.text` to the result.

    Raises:
        Interrupted: the operation was cancelled before the step.
    """
    go_on(operation)
    progress = StepProgress(operation, key, text)
    operation.emit(Step(key=key, text=text, state="run"))
    start = time.monotonic()
    try:
        yield progress
    except BaseException:
        progress.state = "warn"
        operation.emit(Step(key=key, text=f"{progress.text}: failed", state="warn", seconds=time.monotonic() - start))
        raise
    operation.emit(Step(key=key, text=progress.text, state=progress.state, seconds=time.monotonic() - start))
