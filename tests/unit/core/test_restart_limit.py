"""A server that keeps dying is not started for ever."""

from __future__ import annotations

from jupyman.core.sessions.restart_limit import LIMIT, SPAN, allowed


def test_three_in_ten_minutes_and_no_more() -> None:
    assert allowed([], 0.0)
    assert allowed([0.0, 1.0], 2.0)
    assert not allowed([0.0, 1.0, 2.0], 3.0)
    assert not allowed([0.0, 1.0, 2.0], SPAN - 1)
    assert allowed([0.0, 1.0, 2.0], SPAN + 1)


def test_a_loop_that_dies_every_second_starts_three_times_in_each_span() -> None:
    started: list[float] = []
    for second in range(int(SPAN) * 2):
        if allowed(started, float(second)):
            started.append(float(second))
    assert len(started) == 2 * LIMIT
