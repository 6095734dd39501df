"""Whether this computer slept or moved: told by two clocks and one address."""

from __future__ import annotations

import pytest

from jupyman.core import awake
from jupyman.core.awake import Awake, source_address


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("mono", "wall", "disturbed"),
    [
        (1.0, 1.0, False),
        (2.5, 2.5, False),  # a busy computer
        (1.0, 2401.0, True),  # asleep, on Linux
        (2401.0, 2401.0, True),  # asleep where both clocks go on, or SIGSTOP
        (1.0, -3600.0, False),  # the clock was set back
        (5.0, -3600.0, True),
    ],
)
def test_a_tick_that_comes_late(mono: float, wall: float, disturbed: bool) -> None:
    monotonic, clock = Hands(), Hands()
    seen = Awake(monotonic, clock)
    seen.disturbed(1.0, "127.0.0.1")
    seen.sleep_begins()
    monotonic.now += mono
    clock.now += wall
    assert seen.disturbed(1.0, "127.0.0.1") is disturbed
    seen.sleep_begins()
    assert not seen.disturbed(1.0, "127.0.0.1"), "once"


def test_sleep_between_two_ticks() -> None:
    """In the middle of a heartbeat or a login."""
    monotonic, clock = Hands(), Hands()
    seen = Awake(monotonic, clock)
    assert not seen.disturbed(1.0, "127.0.0.1")
    monotonic.now += 5  # a login takes what it takes
    clock.now += 5
    seen.sleep_begins()
    assert not seen.disturbed(1.0, "127.0.0.1")
    clock.now += 2400
    seen.sleep_begins()
    assert seen.disturbed(1.0, "127.0.0.1")
    clock.now -= 7200
    assert not seen.disturbed(1.0, "127.0.0.1")


@pytest.mark.parametrize(
    ("addresses", "disturbed"),
    [
        (["10.0.0.7", "10.0.0.7"], [False, False]),
        (["10.0.0.7", "192.168.1.3", "192.168.1.3"], [False, True, False]),
        (["10.0.0.7", None, None], [False, False, False]),  # nothing to be reached: nothing to look for
        (["10.0.0.7", None, "10.0.0.7"], [False, False, True]),  # the cable is in again
        ([None, "10.0.0.7"], [False, True]),
    ],
)
def test_an_address_that_changes(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str | None], disturbed: list[bool]
) -> None:
    left = list(addresses)
    monkeypatch.setattr(awake, "source_address", lambda _: left.pop(0))
    clock = Hands()
    seen = Awake(clock, clock)
    assert [seen.disturbed(1.0, "10.0.0.1") for _ in addresses] == disturbed


def test_another_host_is_no_other_network() -> None:
    clock = Hands()
    seen = Awake(clock, clock)
    assert [seen.disturbed(1.0, peer) for peer in ("127.0.0.1", "127.0.0.2", None)] == [False, False, False]


def test_the_address_is_the_kernels_choice() -> None:
    assert source_address("127.0.0.1") == "127.0.0.1"
    assert source_address("no address") is None
