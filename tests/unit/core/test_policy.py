"""The link's policy: as a table, and under any order of events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jupyman.core.links import backoff, policy
from jupyman.core.links.policy import EVENTS, STATES, LinkSnapshot, step
from jupyman.model import LinkState


@pytest.mark.parametrize(
    ("start", "event", "state", "actions"),
    [
        (LinkSnapshot("idle"), "begin", "connecting", ()),
        (LinkSnapshot("idle"), "want", "reconnecting", ("schedule-now",)),
        (LinkSnapshot("connecting", wanted=True), "connected", "up", ("attach",)),
        (LinkSnapshot("connecting", wanted=True), "unreachable", "reconnecting", ("schedule",)),
        (LinkSnapshot("connecting"), "unreachable", "idle", ()),
        (LinkSnapshot("connecting", wanted=True), "auth", "needs-auth", ()),
        (LinkSnapshot("connecting", wanted=True), "hostkey", "failed", ()),
        (LinkSnapshot("up", wanted=True), "lost", "reconnecting", ("detach", "schedule-now")),
        (LinkSnapshot("up"), "lost", "idle", ("detach",)),
        (LinkSnapshot("up", wanted=True), "nudge", "up", ("heartbeat",)),
        (LinkSnapshot("reconnecting", wanted=True), "due", "reconnecting", ("login",)),
        (LinkSnapshot("reconnecting", wanted=True), "auth", "needs-auth", ()),
        (LinkSnapshot("needs-auth", wanted=True), "nudge", "needs-auth", ()),
        (LinkSnapshot("needs-auth", wanted=True), "due", "needs-auth", ()),
        (LinkSnapshot("failed", wanted=True), "due", "failed", ()),
        (LinkSnapshot("needs-auth", wanted=True), "begin", "connecting", ()),
    ],
)
def test_table(start: LinkSnapshot, event: policy.EventName, state: str, actions: tuple[str, ...]) -> None:
    after, asked = step(start, event)
    assert (after.state, asked) == (state, actions)


@given(st.lists(st.sampled_from(EVENTS), max_size=60))
def test_any_order_of_events_keeps_the_invariants(events: list[policy.EventName]) -> None:
    link = LinkSnapshot()
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
        assert attached == (link.state in {"up", "silent"})
        if link.state == "reconnecting":
            assert link.wanted
        assert link.reconnects >= before.reconnects


@given(st.integers(min_value=1, max_value=100_000), st.floats(min_value=0, max_value=1))
def test_every_wait_has_an_end(attempt: int, chance: float) -> None:
    for away in (0.0, 100.0, 10_000.0):
        for reached in (True, False):
            # floating point
            assert 0.4 <= backoff.delay(attempt, chance, away=away, reached=reached) <= 72.001


def test_backoff_doubles_then_stays() -> None:
    middle = [backoff.delay(attempt, 0.5) for attempt in (1, 2, 3, 4, 5, 6, 7, 240, 241)]
    assert middle == [0.5, 1, 2, 4, 8, 15, 15, 15, 15]
    assert backoff.delay(300, 0.5, away=3601.0) == 60


def test_a_host_that_says_nothing_is_tried_often_for_five_minutes() -> None:
    def waits(away: float) -> list[float]:
        return [backoff.delay(attempt, 0.5, away=away, reached=False) for attempt in (1, 2, 3, 9)]

    assert waits(10.0) == [0.5, 1, 1, 1]
    assert waits(61.0) == [0.5, 1, 2, 2]
    assert waits(301.0) == [0.5, 1, 2, 15]


def test_only_a_return_is_counted() -> None:
    def after(*events: policy.EventName) -> int:
        link = LinkSnapshot()
        for event in events:
            link, _ = step(link, event)
        return link.reconnects

    assert after("want", "connected") == 0, "a daemon that was just started"
    assert after("want", "connected", "lost", "connected") == 1
    assert after("want", "connected", "lost", "unreachable", "nudge", "connected", "lost", "connected") == 2
    assert after("want", "connected", "lost", "begin", "connected") == 0, "that was a person"
    assert after("want", "connected", "lost", "release", "want", "connected") == 0


def test_what_failed_in_another_network_says_nothing() -> None:
    after, asked = step(LinkSnapshot("reconnecting", wanted=True, attempt=50), "nudge")
    assert (after.attempt, asked) == (0, ("schedule-now",))


def test_every_pair_has_a_row() -> None:
    assert set(policy.TABLE) == {(state, event) for state in STATES for event in EVENTS}


@example(["want", "due", "abandoned"])
@settings(max_examples=500)
@given(st.lists(st.sampled_from(EVENTS), min_size=10, max_size=60))
def test_whoever_reconnects_has_an_attempt_scheduled_or_under_way(events: list[policy.EventName]) -> None:
    link = LinkSnapshot()
    scheduled = under_way = False
    for event in events:
        link, actions = step(link, event)
        if event in {"connected", "unreachable", "auth", "hostkey", "abandoned"}:
            under_way = False  # a login has ended
        if event == "due":
            scheduled = False
        for action in actions:
            scheduled = scheduled or action in {"schedule", "schedule-now"}
            under_way = under_way or action == "login"
        if link.state == "reconnecting":
            assert scheduled or under_way
        else:
            scheduled = False  # what is due then finds nothing to do
            under_way = link.state == "connecting"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_a_row_that_changes_nothing_changes_nothing_at_all(state: LinkState, event: policy.EventName) -> None:
    before = LinkSnapshot(state, wanted=True, attempt=7, reconnects=3, lost=state == "reconnecting")
    after, actions = step(before, event)
    if after.state == state and not actions:
        assert replace(after, wanted=True) == before


def test_the_diagram_of_the_documents_is_this_table() -> None:
    text = "\n".join(policy.diagram())
    assert all(state.replace("-", "_") in text for state in STATES)
    drawn = (Path(__file__).parents[3] / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{text}\n```" in drawn
