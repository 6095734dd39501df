"""Waiting for a condition that no event tells of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout: float = 20.0, what: str = "the condition") -> T:
    """Poll `predicate` until it returns something true.

    Args:
        predicate: asked at once and then every few hundredths of a second.
        timeout: seconds.
        what: names the condition in the failure.

    Returns:
        What `predicate` returned.

    Raises:
        AssertionError: it did not come true in time.
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
