"""The link's policy: as a table, and under any order of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyman.core import backoff, lifecycle
from jupyman.core.lifecycle import EVENTS, STATES, Link, step


@pytest.mark.parametrize(
    ("start", "event", "state", "actions"),
    [
        (Link("idle"), "begin", "connecting", ()),
        (Link("idle"), "want", "reconnecting", ("schedule-now",)),
        (Link("connecting", wanted=True), "connected", "up", ("attach",)),
        (Link("connecting", wanted=True), "unreachable", "reconnecting", ("schedule",)),
        (Link("connecting"), "unreachable", "idle", ()),
        (Link("connecting", wanted=True), "auth", "needs-auth", ()),
        (Link("connecting", wanted=True), "hostkey", "failed", ()),
        (Link("up", wanted=True), "lost", "reconnecting", ("detach", "schedule-now")),
        (Link("up"), "lost", "idle", ("detach",)),
        (Link("up", wanted=True), "nudge", "up", ("heartbeat",)),
        (Link("reconnecting", wanted=True), "due", "reconnecting", ("login",)),
        (Link("reconnecting", wanted=True), "auth", "needs-auth", ()),
        (Link("needs-auth", wanted=True), "nudge", "needs-auth", ()),
        (Link("needs-auth", wanted=True), "due", "needs-auth", ()),
        (Link("failed", wanted=True), "due", "failed", ()),
        (Link("needs-auth", wanted=True), "begin", "connecting", ()),
    ],
)
def test_table(start: Link, event: lifecycle.EventName, state: str, actions: tuple[str, ...]) -> None:
    after, asked = step(start, event)
    assert (after.state, asked) == (state, actions)


@given(st.lists(st.sampled_from(EVENTS), max_size=60))
def test_any_order_of_events_keeps_the_invariants(events: list[lifecycle.EventName]) -> None:
    link = Link()
    attached = False
    may_login = True  # after an authentication failure only a user's own `begin` (or a new wish) may log in
    for event in events:
        before = link
        link, actions = step(link, event)
        assert link.state in STATES
        if event in {"auth", "hostkey"} and before.state in {"connecting", "reconnecting"}:
            may_login = False
        if event in {"begin", "want", "release"}:
            may_login = True
        if "login" in actions:
            assert may_login
            assert link.wanted
        for action in actions:
            if action == "attach":
                assert not attached
                attached = True
            elif action == "detach":
                assert attached
                attached = False
        assert attached == (link.state == "up")
        if link.state == "reconnecting":
            assert link.wanted
        assert link.reconnects >= before.reconnects


@given(st.integers(min_value=1, max_value=100_000), st.floats(min_value=0, max_value=1))
def test_every_wait_has_an_end(attempt: int, chance: float) -> None:
    assert 0.4 <= backoff.delay(attempt, chance) <= 72.001  # floating point


def test_backoff_doubles_then_stays() -> None:
    middle = [backoff.delay(attempt, 0.5) for attempt in (1, 2, 3, 4, 5, 6, 7, 240, 241)]
    assert middle == [0.5, 1, 2, 4, 8, 15, 15, 15, 60]


def test_a_host_that_was_never_reached_is_tried_often_for_a_minute() -> None:
    assert [backoff.delay(attempt, 0.5, 10.0) for attempt in (1, 2, 3, 9)] == [0.5, 1, 1, 1]
    assert backoff.delay(9, 0.5, 61.0) == 15
    assert backoff.delay(9, 0.5, None) == 15


def test_diagram_names_every_state() -> None:
    text = "\n".join(lifecycle.diagram())
    assert all(state.replace("-", "_") in text for state in STATES)
