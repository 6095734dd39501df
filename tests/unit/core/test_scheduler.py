"""What is done now and then, on a clock of our own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from jupyman.core.runtime.clock import Clock
from jupyman.core.runtime.scheduler import Scheduler
from tests.bed.wait import wait_until


class Stepped(Clock):
    """Time passes only where somebody waits, at once, and up to an end."""

    def __init__(self) -> None:
        self.now = 0.0
        self.end = 0.0
        self.waits: list[float | None] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        if seconds is None or self.now + seconds > self.end:
            self.waits.append(seconds)
            condition.wait()
            return
        self.now += seconds


@contextmanager
def running(*duties: tuple[float, Callable[[Stepped], None]], until: float) -> Iterator[tuple[Stepped, Scheduler]]:
    clock = Stepped()
    clock.end = until
    scheduler = Scheduler(clock)
    for seconds, call in duties:
        scheduler.every(seconds, lambda call=call: call(clock))  # type: ignore[misc]  # a default binds the loop's value
    scheduler.start()
    try:
        wait_until(lambda: bool(clock.waits), what="its rest")
        yield clock, scheduler
    finally:
        scheduler.close()
        wait_until(lambda: not scheduler.alive, what="its end")


def test_each_has_its_own_times() -> None:
    seen: dict[str, list[float]] = {"a": [], "b": []}
    duties = [(1.0, lambda clock: seen["a"].append(clock.now)), (2.5, lambda clock: seen["b"].append(clock.now))]
    with running(*duties, until=10.0) as (clock, _):
        assert seen == {"a": [float(n) for n in range(1, 11)], "b": [2.5, 5.0, 7.5, 10.0]}
        assert clock.waits == [1.0]


def test_what_breaks_is_done_again_and_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    def broken(clock: Stepped) -> None:
        raise RuntimeError("can't start new thread")

    with (
        caplog.at_level(logging.ERROR),
        running((1.0, broken), (1.0, lambda clock: seen.append(clock.now)), until=3.0),
    ):
        assert seen == [1.0, 2.0, 3.0]
    assert [record.message for record in caplog.records] == ["a task that runs every 1 s failed"] * 3


def test_what_is_wanted_soon_is_done_at_once_and_counts_from_there() -> None:
    seen: list[float] = []
    with running(until=0.0) as (clock, scheduler):
        assert clock.waits == [None], "nothing to do: no tick"
        soon = scheduler.every(60.0, lambda: seen.append(clock.now))
        wait_until(lambda: len(clock.waits) == 2, what="its rest")
        clock.now = clock.end = 10.0
        soon()
        wait_until(lambda: seen == [10.0], what="the call")
        wait_until(lambda: clock.waits[-1] == 60.0 and len(clock.waits) == 3, what="its rest")
