"""Whether this computer slept or moved: told by two clocks and one address for each host."""

from __future__ import annotations

import pytest

from jupyman.core.links import wakeups
from jupyman.core.links.wakeups import WakeupWatcher, source_address
from jupyman.core.runtime.clock import Clock


class Hands(Clock):
    """Clocks that are set by hand."""

    def __init__(self) -> None:
        self.mono = self.real = 1000.0

    def monotonic(self) -> float:
        return self.mono

    def wall(self) -> float:
        return self.real

    def pass_(self, mono: float, wall: float) -> None:
        self.mono += mono
        self.real += wall


class Host:
    """The owner of a link."""

    def __init__(self, peer: str | None = "127.0.0.1", awaited: bool = True) -> None:
        self.peer = peer
        self.awaited = awaited
        self.source: str | None = None
        self.told = 0
        self.doubted = 0
        self.lost = 0

    def disturbed(self, *, doubtful: bool) -> None:
        self.told += 1
        self.doubted += doubtful

    def cut_off(self) -> None:
        self.lost += 1


@pytest.mark.parametrize(
    ("mono", "wall", "told", "doubted"),
    [
        (1.0, 1.0, 0, 0),
        (2.5, 2.5, 0, 0),  # a busy computer
        (1.0, 21.0, 1, 0),  # a nap, through which a connection lives
        (1.0, 2401.0, 1, 1),  # asleep, on Linux
        (2401.0, 2401.0, 1, 1),  # asleep where both clocks go on, or SIGSTOP
        (1.0, -3600.0, 0, 0),  # the clock was set back
        (5.0, -3600.0, 1, 0),
    ],
)
def test_a_tick_that_comes_late(mono: float, wall: float, told: int, doubted: int) -> None:
    clock, one, other, idle = Hands(), Host(), Host(None), Host(awaited=False)
    seen = WakeupWatcher(lambda: [one, other, idle], clock)
    seen.tick(1.0)
    clock.pass_(mono, wall)
    seen.tick(1.0)
    assert [host.told for host in (one, other, idle)] == [told, told, 0]
    assert [host.doubted for host in (one, other, idle)] == [doubted, doubted, 0]
    seen.tick(1.0)
    assert one.told == told, "once"


def test_sleep_between_two_ticks() -> None:
    """While others are told."""
    clock, host = Hands(), Host()
    seen = WakeupWatcher(lambda: [host], clock)
    seen.tick(1.0)
    clock.pass_(5, 5)  # it takes what it takes
    seen.wait_begins()
    seen.tick(1.0)
    assert host.told == 0
    clock.pass_(0, 2400)
    seen.wait_begins()
    seen.tick(1.0)
    assert host.told == 1
    clock.pass_(0, -7200)
    seen.tick(1.0)
    assert host.told == 1


@pytest.mark.parametrize(
    ("addresses", "told"),
    [
        (["10.0.0.7", "10.0.0.7"], [0, 0]),
        (["10.0.0.7", "192.168.1.3", "192.168.1.3"], [0, 1, 0]),
        (["10.0.0.7", None, None], [0, 0, 0]),  # nothing to be reached: nothing to look for
        (["10.0.0.7", None, "10.0.0.7"], [0, 0, 1]),  # the cable is in again
        ([None, "10.0.0.7"], [0, 1]),
    ],
)
def test_an_address_that_changes(monkeypatch: pytest.MonkeyPatch, addresses: list[str | None], told: list[int]) -> None:
    now: dict[str | None, str | None] = {"10.0.0.2": "10.0.0.7"}
    monkeypatch.setattr(wakeups, "source_address", now.get)
    clock, moving, still = Hands(), Host("10.0.0.1"), Host("10.0.0.2")
    seen = WakeupWatcher(lambda: [moving, still], clock)
    for address, expected in zip(addresses, told, strict=True):
        now["10.0.0.1"] = address
        moving.told = 0
        seen.tick(1.0)
        assert (moving.told, still.told) == (expected, 0)


@pytest.mark.parametrize(
    ("bound", "addresses", "doubted"),
    [
        ("10.0.0.7", ["10.0.0.7", "192.168.1.3"], 1),
        ("10.0.0.7", ["10.0.0.7", None, "10.0.0.7"], 0),  # the same network again: the connection may live
        ("10.0.0.7", ["10.0.0.7", None, "192.168.1.3"], 1),
        ("10.0.0.7", ["10.0.0.7", "192.168.1.3", "10.0.0.7"], 1),  # there and back: once
        (None, ["10.0.0.7", "192.168.1.3"], 0),  # a link that is to come back
    ],
)
def test_a_link_of_another_network_is_doubted(
    monkeypatch: pytest.MonkeyPatch, bound: str | None, addresses: list[str | None], doubted: int
) -> None:
    now: dict[str | None, str | None] = {}
    monkeypatch.setattr(wakeups, "source_address", now.get)
    host = Host("10.0.0.1")
    host.source = bound
    seen = WakeupWatcher(lambda: [host], Hands())
    for address in addresses:
        now["10.0.0.1"] = address
        seen.tick(1.0)
    assert host.doubted == doubted


@pytest.mark.parametrize(
    ("away", "peer", "lost"),
    [(wakeups.CUT_OFF - 1, "10.0.0.1", False), (wakeups.CUT_OFF, "10.0.0.1", True), (wakeups.CUT_OFF, None, False)],
)
def test_a_computer_without_a_way_to_the_host_gives_the_link_up_after_a_while(
    monkeypatch: pytest.MonkeyPatch, away: float, peer: str | None, lost: bool
) -> None:
    now: dict[str | None, str | None] = {peer: "10.0.0.7"}
    monkeypatch.setattr(wakeups, "source_address", now.get)
    clock, host = Hands(), Host(peer)
    seen = WakeupWatcher(lambda: [host], clock)
    seen.tick(1.0)
    now[peer] = None
    for _ in range(int(away) + 1):
        seen.tick(1.0)
        clock.pass_(1, 1)
    assert bool(host.lost) == lost


def test_another_host_is_no_other_network() -> None:
    host = Host()
    seen = WakeupWatcher(lambda: [host], Hands())
    for peer in ("127.0.0.1", "127.0.0.2", None):
        host.peer = peer
        seen.tick(1.0)
    assert host.told == 0


def test_the_address_is_the_kernels_choice() -> None:
    assert source_address("127.0.0.1") == "127.0.0.1"
    with pytest.raises(OSError, match=r".+"):
        source_address("no address")


def test_what_cannot_be_told_ends_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file descriptor is left, say, or the host has a link-local address."""

    def fails(peer: str | None) -> str | None:
        raise OSError(24, "Too many open files")

    clock, host = Hands(), Host("fe80::1")
    host.source = "fe80::2"
    seen = WakeupWatcher(lambda: [host], clock)
    monkeypatch.setattr(wakeups, "source_address", fails)
    for _ in range(20):
        seen.tick(1.0)
        clock.pass_(1, 1)
    assert (host.told, host.lost) == (0, 0)
