"""Looks at many hosts at once: bounded, one at a time for each, and a slow host holds up nobody."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyman.core.runtime.per_host_pool import PerHostPool
from jupyman.core.runtime.scheduler import Scheduler
from jupyman.core.sessions.monitor import SessionMonitor
from jupyman.host.servers.base import Liveness
from jupyman.model import Running, Server, SessionSpec
from tests.bed.wait import wait_until
from tests.unit.core import known

MOST = 4


class Looks:
    """Stands for the looking: each look lasts until its host is let go."""

    def __init__(self) -> None:
        self.pool = PerHostPool(self, MOST)
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.most = 0
        self.twice = False
        self.slow: dict[str, threading.Event] = {}
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, host: str) -> None:
        with self._lock:
            self.begun[host] += 1
            self._now[host] += 1
            self.most = max(self.most, self._now.total())
            self.twice = self.twice or self._now[host] > 1
        if host in self.slow:
            assert self.slow[host].wait(20)
        with self._lock:
            self._now[host] -= 1
            self.ended[host] += 1
        if host == "broken":
            raise RuntimeError("a bug in looking")


@pytest.fixture
def looks() -> Iterator[Looks]:
    made = Looks()
    yield made
    for event in made.slow.values():
        event.set()
    made.pool.close()


def test_slow_hosts_hold_up_nobody(looks: Looks) -> None:
    for number in range(MOST - 1):
        looks.slow[f"slow{number}"] = threading.Event()
        looks.pool.ask(f"slow{number}")
    for number in range(100):
        looks.pool.ask(f"host{number}")
    wait_until(lambda: sum(looks.ended.values()) == 100, what="the looks at all other hosts")
    assert looks.most == MOST
    assert not looks.twice


def test_no_more_than_so_many_at_once(looks: Looks) -> None:
    for number in range(3 * MOST):
        looks.slow[f"slow{number}"] = threading.Event()
        looks.pool.ask(f"slow{number}")
    wait_until(lambda: sum(looks.begun.values()) == MOST, what="the first looks")
    looks.slow["slow0"].set()
    wait_until(lambda: sum(looks.begun.values()) == MOST + 1, what="the next look")
    assert looks.most == MOST


@pytest.mark.parametrize(("again", "times"), [(True, 2), (False, 1)])
def test_a_host_that_is_being_looked_at(looks: Looks, again: bool, times: int) -> None:
    looks.slow["host"] = threading.Event()
    looks.pool.ask("host")
    wait_until(lambda: looks.begun["host"] == 1, what="the look")
    for _ in range(5):
        looks.pool.ask("host", again=again)
    looks.slow["host"].set()
    looks.pool.ask("other")
    wait_until(lambda: looks.ended["host"] == times and looks.ended["other"] == 1, what="the looks that were asked for")
    assert not looks.twice


def test_a_bug_ends_one_look_only(looks: Looks) -> None:
    looks.pool.ask("broken")
    looks.pool.ask("host")
    looks.pool.ask("broken")
    wait_until(lambda: looks.ended["broken"] >= 1 and looks.ended["host"] == 1, what="the looks")
    before = looks.ended["broken"]
    looks.pool.ask("broken")
    wait_until(lambda: looks.ended["broken"] > before, what="another look")


def test_nothing_begins_after_the_end(looks: Looks) -> None:
    looks.pool.close()
    looks.pool.ask("host")
    assert looks.pool._threads == 0
    assert looks.begun["host"] == 0


# --- the restorer uses it -----------------------------------------------------------------------------------------


class OneSupervisor:
    """What the restorer asks of a supervisor whose link is up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.link: Any = name
        self.silent = False
        self.forwarder = self

    def wake(self) -> None: ...


class SomeHosts:
    """What the restorer asks of `Hosts`."""

    def __init__(self, *names: str) -> None:
        self.supervisors = {name: OneSupervisor(name) for name in names}

    def all(self) -> dict[str, OneSupervisor]:
        return self.supervisors

    def known(self, name: str) -> OneSupervisor:
        return self.supervisors[name]


def running(name: str) -> Running:
    server = Server(pid=1, port=8888, version=None, app="lab", env=None, root_dir=None, started=None)
    return Running(name=name, server=server, token="", directory="", base_url="/", boot_id="", start_ticks=1)


def test_a_session_is_proven_while_another_host_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["hangs", *(f"host{number}" for number in range(20))]
    sessions = known.registry(tmp_path)
    for name in names:
        known.put(sessions, SessionSpec(name=name, host=name), running=running(name))
        sessions.link_up(name, name)
    release = threading.Event()

    def verify(link: str, one: Running) -> Liveness:
        if link == "hangs":
            release.wait(20)
        return Liveness("alive", f"{one.name} runs")

    monkeypatch.setattr("jupyman.host.servers.nohup.NohupLauncher.verify", verify)
    hosts: Any = SomeHosts(*names)
    restorer = SessionMonitor(hosts, sessions, lambda session, why: None, Scheduler())
    try:
        for supervisor in hosts.all().values():
            restorer.on_up(supervisor)
        wait_until(lambda: sum(one.proven for one in sessions.all()) == 20, what="the other sessions")
        assert not sessions.get("hangs").proven
        release.set()
        wait_until(lambda: sessions.get("hangs").proven, what="the last session")
    finally:
        release.set()
        restorer.close()


def test_a_thread_that_could_not_be_started_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()
    patrol = PerHostPool(lambda host: looked.set(), 1)

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        patrol.ask("server1")
    patrol.ask("server1")
    assert looked.wait(10)
