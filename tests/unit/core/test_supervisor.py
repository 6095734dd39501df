"""A host's supervisor lives through days in seconds: its clock is ours, and so is the other end of the link.

Over 400 lines because all scenarios are of one supervisor in one world.
"""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import struct
import threading
from collections.abc import Callable, Iterator

import paramiko
import psutil
import pytest
from cryptography.exceptions import InvalidTag

from jupyman import errors
from jupyman.api import ClientContext
from jupyman.core.links import login, silence
from jupyman.core.links import supervisor as module
from jupyman.core.runtime.background import Background
from tests.bed.wait import wait_until
from tests.unit.core.world import ANSWER, DAY, HOUR, MINUTE, FakeLink, World, a_world


@pytest.fixture
def world() -> Iterator[World]:
    """A host whose link is up, and wanted."""
    with a_world() as made:
        made.supervisor.want(wanted=True)
        made.live(1.0)
        assert made.state == "up"
        yield made


def gaps(moments: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(moments)]


# --- a day --------------------------------------------------------------------------------------------------------


def test_a_day_of_heartbeats_neither_drifts_nor_grows(world: World) -> None:
    world.live(HOUR)
    counted = len(world.beats)
    size = footprint(world)
    world.live(DAY - HOUR)
    assert max(gaps(world.beats)) <= silence.INTERVAL + ANSWER + 0.01
    # One in each interval: as many in the last hours as in the first, and none is left out.
    assert len(world.beats) == pytest.approx((DAY - HOUR) / (silence.INTERVAL + ANSWER), rel=0.001)
    assert len(world.beats) == pytest.approx(23 * counted, rel=0.001)
    assert (world.state, world.supervisor.status.reconnects, len(world.logins)) == ("up", 0, 0)
    no_larger(footprint(world), size)


def test_a_day_of_troubles_leaves_no_more_than_a_quiet_one(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def day() -> None:
        for hour in range(24):
            start = world.clock.passed - 1 + hour * HOUR
            world.clock.at(start + 5 * MINUTE, world.vanish)
            world.clock.at(start + (6 + hour) * MINUTE, world.heal)
            world.clock.at(start + 45 * MINUTE, lambda: world.clock.sleep(40 * MINUTE))
        world.live(DAY)

    day()
    assert (world.state, world.supervisor.status.reconnects) == ("up", 24)
    size = footprint(world)
    with caplog.at_level(logging.INFO):
        caplog.clear()
        day()
    assert (world.state, world.supervisor.status.reconnects) == ("up", 48)
    assert len(world.logins) > 1000
    assert 24 * 3 <= len(caplog.records) < 24 * 5, "a line for what happens, none for each attempt"
    caplog.clear()
    no_larger(footprint(world), size)


def footprint(world: World) -> tuple[int, int, int]:
    """Count what could grow in this process: threads, descriptors, objects; what the test itself noted is dropped."""
    for kept in (world.beats, world.logins, world.ups, world.links):
        kept.clear()

    def settled() -> bool:
        return not [one for one in threading.enumerate() if one.name.startswith(("up ", "close ", "visit "))]

    wait_until(settled, what="the end of short threads")
    gc.collect()
    return threading.active_count(), psutil.Process().num_fds(), len(gc.get_objects())


def no_larger(after: tuple[int, int, int], before: tuple[int, int, int]) -> None:
    assert after[:2] <= before[:2]
    # The interpreter's caches take some; a thing left by each heartbeat or attempt would be thousands.
    assert after[2] - before[2] < 300


# --- outages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [0.6, 1.0, 4.0])
def test_after_a_short_outage_the_link_is_back_in_two_seconds(world: World, minutes: float) -> None:
    for _ in range(50):
        world.vanish()
        world.live(minutes * MINUTE)
        assert world.state == "reconnecting"
        world.heal()
        healed = world.clock.passed
        world.live(4.0)
        assert world.state == "up"
        assert world.ups[-1] - healed <= 2.0 * (1 + 0.2) + ANSWER


# Seconds without packets, and seconds after which the other end then sends again: measured with real kernels.
STALLS = [(3.0, 0.3), (5.0, 1.6), (7.0, 6.2), (10.0, 3.3), (15.0, 11.5), (20.0, 6.6), (29.0, 24.7)]


@pytest.mark.parametrize(("away", "late"), STALLS)
def test_a_stall_costs_no_login(world: World, away: float, late: float) -> None:
    link, shown = world.links[-1], []
    world.vanish()
    end = world.clock.passed + away
    while world.clock.passed < end:
        world.live(min(1.0, end - world.clock.passed))
        shown.append(world.supervisor.status)
    assert world.link is link, "it stands"
    assert [one.state for one in shown if one.silent_since is not None] == ["reconnecting"] * sum(
        one.state != "up" for one in shown
    )
    if away >= 6:
        assert shown[-1].state == "reconnecting"
        assert world.supervisor.silent
    world.heal(late=late)
    world.live(late + 3.0)
    assert (world.state, world.link, world.supervisor.status.silent_since) == ("up", link, None)
    assert (len(world.logins), world.supervisor.status.reconnects) == (1, 0)


def test_silence_ends_a_connection_after_half_a_minute(world: World) -> None:
    link = world.links[-1]
    world.vanish()
    world.live(silence.PATIENCE - 1)
    assert link.alive
    since = world.supervisor.status.since
    world.live(3.0)
    assert world.supervisor.link is None
    assert link.closed.wait(10)
    assert world.supervisor.status.since == since, "nothing else is shown than before"
    world.heal()
    world.live(3.0)
    assert (world.state, world.supervisor.status.reconnects) == ("up", 1)


def test_a_host_that_takes_what_we_send_gets_more_time(world: World) -> None:
    """Its own answer comes when its kernel tries again."""
    link = world.links[-1]
    world.vanish()
    world.live(silence.PATIENCE - 2)
    link.acknowledged = world.clock.now
    world.live(silence.PATIENCE - 2)
    assert (world.link, len(world.logins)) == (link, 1)
    world.live(4.0)
    assert world.link is not link


@pytest.mark.parametrize("silent", [True, False])
def test_after_a_long_sleep_a_connection_has_one_chance(world: World, silent: bool) -> None:
    link = world.links[-1]
    if silent:
        world.vanish()
        world.live(10.0)
        assert world.supervisor.silent
    world.clock.sleep(40 * MINUTE)
    world.live(5.0)
    assert (world.link is link) == (not silent)
    assert world.state == ("reconnecting" if silent else "up")


def test_a_nap_ends_no_silent_connection(world: World) -> None:
    world.vanish()
    world.live(8.0)
    world.clock.sleep(10.0)
    world.live(8.0)
    assert world.supervisor.silent


def test_a_computer_without_a_network_gives_its_links_up(world: World) -> None:
    world.vanish()
    world.live(8.0)
    world.supervisor.cut_off()
    assert world.supervisor.link is None
    assert (world.state, world.supervisor.status.silent_since) == ("reconnecting", None)


# --- a person asks while the host is silent -----------------------------------------------------------------------


class Asking:
    """A command of a person: runs in a thread of its own."""

    def __init__(self, world: World, *, renew: bool) -> None:
        self.operation = Background(ClientContext())
        self.got: list[object] = []
        self._work = functools.partial(world.supervisor.acquire, self.operation, renew=renew)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.got.append(self._work())
        except errors.JupymanError as error:
            self.got.append(error)

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> object:
        self._thread.join(10)
        (found,) = self.got
        return found


def test_commands_wait_for_a_silent_host_and_use_its_connection(world: World) -> None:
    link = world.links[-1]
    world.vanish()
    world.live(8.0)
    asking = Asking(world, renew=False)
    world.live(8.0)
    assert asking.waits
    world.heal()
    world.live(3.0)
    assert asking.result() is link
    assert len(world.logins) == 1


def test_commands_that_wait_for_a_silent_host_can_be_interrupted(world: World) -> None:
    world.vanish()
    world.live(8.0)
    asking = Asking(world, renew=False)
    asking.operation.cancelled.set()
    assert isinstance(asking.result(), errors.Interrupted)
    assert world.supervisor.silent


def test_up_does_not_wait_for_a_silent_host(world: World) -> None:
    link = world.links[-1]
    world.vanish()
    world.live(8.0)
    waiting = Asking(world, renew=False)
    world.away = None  # a new connection comes through at once; the old one waits for the host's kernel
    fresh = Asking(world, renew=True).result()
    assert fresh is world.links[-1]
    assert fresh is not link
    assert link.closed.wait(10)
    assert waiting.result() is fresh
    assert (world.state, len(world.logins)) == ("up", 2)


def test_an_up_that_fails_leaves_the_silent_connection_alone(world: World) -> None:
    link = world.links[-1]
    world.vanish()
    world.live(8.0)
    assert isinstance(Asking(world, renew=True).result(), errors.HostUnreachable)
    assert (world.link, world.supervisor.silent) == (link, True)
    world.heal()
    world.live(3.0)
    assert (world.link, world.state) == (link, "up")


def test_a_host_that_answers_during_the_login_of_an_up_keeps_its_connection(world: World) -> None:
    link = world.links[-1]
    world.vanish()
    world.live(8.0)

    def revive() -> None:
        world.heal()
        world.live(3.0)

    world.during = revive
    assert Asking(world, renew=True).result() is link
    world.during = lambda: None
    assert (world.state, len(world.logins), world.supervisor.status.reconnects) == ("up", 2, 0)
    assert not world.links[-1].alive, "the new connection is closed"


def test_a_night_away_costs_few_attempts_and_ends_in_a_minute(world: World) -> None:
    world.vanish()
    world.logins.clear()
    start = world.clock.passed
    world.live(12 * HOUR)
    assert world.state == "reconnecting"
    waits = gaps(world.logins)
    assert max(waits) <= 60 * 1.2 + login.REACH
    assert min(waits[2:]) >= 0.8, "never two at once, nor one right after the other"
    after_an_hour = [moment for moment in world.logins if moment > start + HOUR]
    assert len(after_an_hour) < 11 * 60 * 1.3
    world.heal()
    healed = world.clock.passed
    world.live(2 * MINUTE)
    assert world.state == "up"
    assert world.ups[-1] - healed <= 60 * 1.2 + ANSWER


def test_a_host_that_refuses_is_asked_ever_more_seldom(world: World) -> None:
    """Some firewalls count connections: six in half a minute, and nobody comes in any more."""
    world.links[-1].alive = False
    world.away = lambda: errors.HostUnreachable("server1: connection refused")
    world.logins.clear()
    world.live(5 * MINUTE)
    assert len(world.logins) <= 5 + 5 * 60 / 12
    late = [moment for moment in world.logins if moment > world.logins[0] + 30]
    assert min(gaps(late)) >= 15 * 0.8


def test_sleep_another_network_and_a_vpn_that_comes_later(world: World) -> None:
    world.clock.sleep(40 * MINUTE)
    world.away = lambda: errors.HostSilent("server1: the name gpu.lab does not resolve")
    woke = world.clock.passed
    world.clock.at(woke + 20, world.heal)
    world.live(4.0)
    assert world.state == "reconnecting", "woken, it looked at once"
    assert world.beats[-1] - woke <= 1.0
    world.live(30.0)
    assert world.state == "up"
    assert world.ups[-1] - (woke + 20) <= 1.2 + ANSWER
    assert world.supervisor.status.reconnects == 1


def test_sleep_during_a_long_outage_begins_the_waiting_anew(world: World) -> None:
    world.vanish()
    world.live(2 * HOUR)
    world.clock.sleep(8 * HOUR)
    woke = world.clock.passed
    world.clock.at(woke + 20, world.heal)
    world.live(MINUTE)
    assert world.state == "up"
    assert world.ups[-1] - (woke + 20) <= 1.2 + ANSWER


@pytest.mark.parametrize("jump", [-DAY, -HOUR, -1.0, 1.0, HOUR, 365 * DAY])
def test_a_clock_that_is_set_breaks_nothing(world: World, jump: float) -> None:
    world.live(MINUTE)
    world.clock.shift += jump
    world.live(MINUTE)
    assert (world.state, world.supervisor.status.reconnects) == ("up", 0)
    assert max(gaps(world.beats)) <= silence.INTERVAL + ANSWER + 0.01
    world.vanish()
    world.live(10 * MINUTE)
    world.clock.shift += jump
    world.logins.clear()
    world.live(10 * MINUTE)
    assert max(gaps(world.logins)) <= 15 * 1.2 + login.REACH
    world.heal()
    world.live(20.0)
    assert world.state == "up"


# --- what must not end it -----------------------------------------------------------------------------------------

FAULTS: dict[str, Callable[[], errors.JupymanError]] = {
    "a name without a network": lambda: errors.UnknownHost("there is no host 'gpu.lab'"),
    "a configuration that is being edited": lambda: errors.ConfigFault("ssh cannot use its configuration"),
    "a connection that ends during the login": lambda: errors.LinkLost("server1 ended the connection"),
    "a host without a shell": lambda: errors.RemoteFailed("server1 starts no session"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_passes_is_waited_for(world: World, fault: str) -> None:
    world.links[-1].alive = False
    world.away = FAULTS[fault]
    world.live(10 * MINUTE)
    assert world.state == "reconnecting"
    assert world.supervisor.status.last_error == world.away().message
    world.heal()
    world.live(20.0)
    assert world.state == "up"


RAW: list[BaseException] = [
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    struct.error("unpack requires a buffer of 4 bytes"),
    KeyError(200),
    ValueError("x"),
    AttributeError("x"),
    IndexError("x"),
    MemoryError(),
    RecursionError(),
    InvalidTag(),
    OSError(24, "Too many open files"),
    paramiko.SSHException("x"),
    AssertionError(),
    errors.Interrupted("cancelled"),
]


@pytest.mark.parametrize("error", RAW, ids=lambda error: type(error).__name__)
def test_whatever_a_login_raises_costs_one_attempt(
    world: World, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise error

    world.links[-1].alive = False
    world.during = broken
    world.logins.clear()
    world.live(10 * MINUTE)
    assert world.state == "reconnecting"
    assert world.supervisor.status.next_attempt is not None
    assert len(world.logins) > 10
    shown = sum("failed unexpectedly" in record.getMessage() for record in caplog.records)
    assert shown == (not isinstance(error, errors.JupymanError)), "once, not for every attempt of a long night"
    world.during = lambda: None
    world.live(20.0)
    assert world.state == "up"


@pytest.mark.parametrize("error", RAW, ids=lambda error: type(error).__name__)
def test_whatever_a_persons_login_raises_is_an_error_of_ours(error: BaseException) -> None:
    def broken() -> None:
        raise error

    with a_world() as world:
        world.during = broken
        with pytest.raises(errors.JupymanError) as caught:
            world.supervisor.acquire(Background(ClientContext()))
        assert caught.value.status in {10, 130}
        assert caught.value.message.isprintable()
        assert world.state == "idle"


def test_a_night_of_wakings_costs_a_host_with_codes_one_login(world: World) -> None:
    world.links[-1].alive = False
    world.away = lambda: errors.AuthenticationFailed("alice@server1 asks for a code", needs_prompt=True)
    world.logins.clear()
    for hour in range(12):
        world.clock.at(world.clock.passed + hour * HOUR + 10 * MINUTE, lambda: world.clock.sleep(30 * MINUTE))
        fresh = functools.partial(world.supervisor.nudge, ClientContext(ssh_auth_sock=f"/agent/{hour}"))
        world.clock.at(world.clock.passed + hour * HOUR + 20 * MINUTE, fresh)
    world.live(12 * HOUR)
    assert (world.state, len(world.logins)) == ("needs-auth", 1)
    assert "asks for a code" in (world.supervisor.status.last_error or "")


def test_a_changed_key_is_looked_at_once(world: World) -> None:
    world.links[-1].alive = False
    world.away = lambda: errors.HostKeyFault("the key of server1 changed")
    world.logins.clear()
    world.live(12 * HOUR)
    assert (world.state, len(world.logins)) == ("failed", 1)


def test_a_link_that_nobody_wants_any_more_is_closed(world: World) -> None:
    """`down` during a login in the background."""
    world.links[-1].alive = False
    world.during = lambda: world.supervisor.want(wanted=False)
    world.live(MINUTE)
    assert (world.state, len(world.links)) == ("idle", 2)
    assert not world.links[-1].alive
    world.during = lambda: None
    world.supervisor.want(wanted=True)
    world.live(MINUTE)
    assert world.state == "up"


def test_a_broken_turn_is_not_the_last(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(link: FakeLink, timeout: float) -> float:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(FakeLink, "heartbeat", no_thread)
        world.live(MINUTE)
    assert world.state == "up"
    world.vanish()
    world.live(MINUTE)
    assert world.state == "reconnecting"


def test_a_login_that_finds_another_under_way_is_not_forgotten(world: World) -> None:
    world.links[-1].alive = False
    with world.supervisor._login:  # somebody holds it, and then decides nothing
        world.live(MINUTE)
        assert world.state == "reconnecting"
    world.live(5.0)
    assert world.state == "up"


def test_an_idle_link_is_let_go(world: World) -> None:
    world.supervisor.want(wanted=False)
    world.live(module.LINGER - 10)
    assert world.state == "up"
    world.live(20.0)
    assert world.state == "idle"
    wait_until(lambda: not world.links[-1].alive, what="the link's end")


def test_a_link_on_which_a_command_runs_is_not_idle(world: World) -> None:
    """An installation that is watched, with no session on that host."""
    world.supervisor.want(wanted=False)
    world.links[-1].busy = 60.0
    world.live(HOUR)
    assert world.state == "up"
    world.links[-1].busy = 1.0  # our own looks
    world.live(module.LINGER + 10)
    assert world.state == "idle"


@pytest.mark.parametrize("way", ["told", "silent"])
def test_a_link_that_ended_leaves_nothing_on_the_way(world: World, way: str) -> None:
    """Jump hosts know nothing of it: their connections, and a ProxyCommand, have to be ended."""
    link = world.links[-1]
    if way == "told":
        link.ended("the host went down")
    else:
        world.vanish()
    world.live(MINUTE)
    assert link.closed.wait(10)
