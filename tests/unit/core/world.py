"""A host, the way to it, and the supervisor that is tested: its clock is ours, and so is the other end of the link."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from jupyman import errors
from jupyman.api import ClientContext
from jupyman.core.links import login
from jupyman.core.links.supervisor import Supervisor
from jupyman.core.links.wakeups import TICK, WakeupWatcher
from jupyman.core.runtime.clock import Clock
from jupyman.host.shell.script import CommandResult
from jupyman.ssh.link import Link, NoAnswer
from jupyman.ssh.login.auth import Keyring

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
NOON = 1_800_000_000.0  # some noon since 1970
ANSWER = 0.05  # seconds that a living host takes for anything


class FakeClock(Clock):
    """Time passes only where somebody waits, and then at once.

    Attributes:
        now: the monotonic clock.
        shift: what the wall clock is ahead of it.
        awake: what else waits for time to pass; here no thread of its own.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.shift = NOON
        self.end = self.now
        self.paused = threading.Event()
        self.sleepers: list[Supervisor] = []
        self.awake = WakeupWatcher(lambda: self.sleepers, self)
        self._script: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.shift

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        if self.now >= self.end:
            self.paused.set()
            condition.wait()
            return
        self.awake.wait_begins()
        step = min(TICK, self.end - self.now, *([] if seconds is None else [seconds]))
        self.now += step
        while self._script and self._script[0][0] <= self.now:
            self._script.pop(0)[1]()
        self.awake.tick(step)

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Do something when the clock comes to a moment, seconds from the start."""
        self._script.append((1000.0 + moment, action))
        self._script.sort(key=lambda entry: entry[0])

    def sleep(self, seconds: float) -> None:
        """Let the computer sleep: one clock stands still meanwhile, the other does not."""
        self.shift += seconds

    @property
    def passed(self) -> float:
        return self.now - 1000.0


class FakeLink:
    """The other end: answers heartbeats as long as its world says so.

    Attributes:
        heard: when it gave the last sign of life.
        acknowledged: when its kernel last took what was sent.
    """

    peer = "127.0.0.1"
    source = "127.0.0.1"

    def __init__(self, world: World) -> None:
        self._world = world
        self.alive = True
        self.busy = 0.0
        self.heard = world.clock.now
        self.acknowledged = 0.0
        self.ended: Callable[[str], None] = lambda reason: None
        self.closed = threading.Event()

    def heartbeat(self, timeout: float) -> float:
        world = self._world
        world.beats.append(world.clock.passed)
        if not self.alive:
            raise errors.LinkLost("server1: the connection ended")
        if world.away:
            world.clock.now += timeout
            raise NoAnswer(f"server1: no answer in {timeout:.0f} s")
        world.clock.now += ANSWER
        self.heard = world.clock.now
        return ANSWER

    def run(self, script: str, **how: object) -> CommandResult:
        """Be a host that tells nothing."""
        raise errors.RemoteFailed("server1 starts no shell")

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """As a rule nobody tells: only the heartbeat shows it."""
        self.ended = callback

    def close(self) -> None:
        self.alive = False
        self.closed.set()


class World:
    """A host, the way to it, and the supervisor that is tested.

    Attributes:
        away: why the host cannot be reached; None: it can.
        beats: when heartbeats were sent, seconds from the start.
        logins: when logins began.
        states: the link's states one after the other, with when they were seen to begin.
    """

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.away: Callable[[], errors.JupymanError] | None = None
        self.beats: list[float] = []
        self.logins: list[float] = []
        self.ups: list[float] = []
        self.links: list[FakeLink] = []
        self.during: Callable[[], None] = lambda: None
        self.supervisor = Supervisor(
            "server1",
            "server1",
            Keyring(),
            lambda _: None,
            lambda _: None,
            ClientContext(),
            login=self._login,
            clock=self.clock,
        )
        self.clock.sleepers.append(self.supervisor)

    def _login(self, *_: object) -> Link:
        self.logins.append(self.clock.passed)
        self.during()
        if self.away is not None:
            error = self.away()
            silent = isinstance(error, errors.HostSilent)
            self.clock.now += login.REACH if silent else ANSWER
            raise error
        self.clock.now += ANSWER
        self.ups.append(self.clock.passed)
        self.links.append(FakeLink(self))
        return cast("Link", self.links[-1])

    @property
    def link(self) -> FakeLink | None:
        """The supervisor's link."""
        return cast("FakeLink | None", self.supervisor.link)

    @property
    def state(self) -> str:
        return self.supervisor.status.state

    def live(self, seconds: float) -> None:
        """Let time pass."""
        with self.supervisor._wake:
            self.clock.paused.clear()
            self.clock.end = self.clock.now + seconds
            self.supervisor._wake.notify_all()
        assert self.clock.paused.wait(60), "the supervisor stands still"

    def vanish(self) -> None:
        """Nothing is answered any more."""
        self.away = lambda: errors.HostSilent("server1: no answer in 2 s")

    def heal(self, *, late: float = 0.0) -> None:
        """Let the host answer again.

        Args:
            late: seconds until it sends again what was under way over a connection that still stands.
        """
        self.away = None
        link = self.link
        if link is None:
            return
        link.acknowledged = self.clock.now

        def speak() -> None:
            if link.alive and not self.away:
                link.heard = self.clock.now

        self.clock.at(self.clock.passed + late, speak)


@contextmanager
def a_world() -> Iterator[World]:
    made = World()
    try:
        yield made
    finally:
        made.supervisor.close()
        made.supervisor._thread.join(10)
        assert not made.supervisor._thread.is_alive()
