"""Waiting for a condition that has no event."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout: float = 20.0, what: str = "the condition") -> T:
    """Poll `predicate` until it returns something true.

    Args:
        predicate: called at once, and then at intervals that grow to 50 ms.
        timeout: seconds.
        what: the condition, for the error message.

    Returns:
        What `predicate` returned.

    Raises:
        AssertionError: it is still false after `timeout`.
    """
    end = time.monotonic() + timeout
    pause = threading.Event()
    delay = 0.005
    while not (found := predicate()):
        if time.monotonic() >= end:
            raise AssertionError(f"{what} did not come true in {timeout:g} s")
        pause.wait(delay)
        delay = min(delay * 1.5, 0.05)
    return found
