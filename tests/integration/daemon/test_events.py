"""The event stream over a real socket: a snapshot, then what changes; bounded, whatever the clients do."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import psutil
import pytest

import jupyman.core.event_feed
import jupyman.daemon.event_stream
from jupyman import api
from jupyman.core.event_feed import RECENT
from jupyman.core.manager import Manager
from jupyman.core.sessions.state import Absent, ProblemSeen
from jupyman.daemon import web_server
from jupyman.daemon.event_stream import MOST
from jupyman.daemon.server import Service
from jupyman.model import Problem, SessionSpec, TunnelSpec
from jupyman.model.event import (
    AnyFeedEvent,
    ForwardChanged,
    ForwardRemoved,
    Heartbeat,
    LinkChanged,
    SessionChanged,
    SessionRemoved,
    Snapshot,
)
from jupyman.paths import Paths
from tests.bed import wait_until
from tests.unit.core import known, offline
from tests.unit.core.offline import CLIENT, Quiet

TOKEN = "a-token"
WAIT = 20.0  # seconds that a line may take on a busy machine


class Follower:
    """A client of the stream."""

    def __init__(self, port: int, query: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
        self._connection.request("GET", f"/v1/events{query}", headers={"Authorization": f"Bearer {TOKEN}"})
        self.response = self._connection.getresponse()
        self.status = self.response.status

    def next(self) -> AnyFeedEvent:
        """Return the next line that is no heartbeat."""
        while isinstance(event := self.line(), Heartbeat):
            pass
        return event

    def line(self) -> AnyFeedEvent:
        return cast("AnyFeedEvent", msgspec.json.decode(self.response.readline(), type=AnyFeedEvent))

    def until(self, right: Callable[[AnyFeedEvent], bool]) -> AnyFeedEvent:
        while not right(event := self.next()):
            pass
        return event

    def close(self) -> None:
        self.response.close()
        self._connection.close()


@dataclass
class Serving:
    """A daemon's core and its API, in this process."""

    manager: Manager
    port: int

    @contextmanager
    def follow(self, query: str = "") -> Iterator[Follower]:
        with closing(Follower(self.port, query)) as follower:
            yield follower


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return offline.folders(tmp_path)


@contextmanager
def serving(paths: Paths) -> Iterator[Serving]:
    with ExitStack() as undo:
        manager = undo.enter_context(offline.managing(paths))()
        listener = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        app = Service(manager, TOKEN, lambda: port, lambda: None, paths.log_file, manager.events).app
        server = web_server.server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        manager.start(CLIENT)
        try:
            yield Serving(manager, port)
        finally:
            server.should_exit = True
            thread.join(WAIT)
            assert not thread.is_alive()


@pytest.fixture
def daemon(paths: Paths) -> Iterator[Serving]:
    with serving(paths) as served:
        yield served


def told(number: int) -> ProblemSeen:
    return ProblemSeen(problem=Problem(code=f"told-{number}", severity="info", text="x" * 200, fix="f"))


def numbered(session: Any) -> int:
    return len(session.problems)


def test_a_snapshot_and_then_each_change(daemon: Serving) -> None:
    sessions = daemon.manager.sessions
    known.put(sessions, SessionSpec(name="old", host="h"), "exited")
    with daemon.follow() as follower:
        assert follower.response.getheader("Content-Type") == "application/x-ndjson"
        first = follower.next()
        assert isinstance(first, Snapshot)
        assert [(one.name, one.state) for one in first.sessions] == [("old", "exited")]
        assert (first.forwards, first.links) == ([], {})
        new = known.put(sessions, SessionSpec(name="new", host="h"))
        change = follower.until(lambda event: isinstance(event, SessionChanged) and event.session.state == "lost")
        assert isinstance(change, SessionChanged)
        assert (change.session.name, change.index > first.index) == ("new", True)
        sessions.keep_forward(TunnelSpec(host="h", local_port=6006, address="127.0.0.1", port=6006), None)
        opened = follower.next()
        assert isinstance(opened, ForwardChanged)
        assert (opened.forward.host, opened.forward.local) == ("h", "127.0.0.1:6006")
        daemon.manager.hosts.supervisor("h", CLIENT).want(wanted=True)
        follower.until(lambda event: isinstance(event, LinkChanged) and event.link.state == "reconnecting")
        sessions.drop_forward("h", 6006)
        closed = follower.until(lambda event: isinstance(event, ForwardRemoved))
        assert isinstance(closed, ForwardRemoved)
        assert (closed.host, closed.local) == ("h", "127.0.0.1:6006")
        sessions.remove(new)
        removed = follower.until(lambda event: isinstance(event, SessionRemoved))
        assert isinstance(removed, SessionRemoved)
        assert removed.name == "new"


def test_the_first_client_after_none_gets_what_changed_meanwhile(
    daemon: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jupyman.core.event_feed, "REFRESH", 3600.0)
    with daemon.follow() as follower:
        first = follower.next()
        assert isinstance(first, Snapshot)
    feed = daemon.manager.events
    wait_until(lambda: not feed._followers, WAIT, "the end of the first one")
    known.put(daemon.manager.sessions, SessionSpec(name="new", host="lab1"))
    with daemon.follow() as follower:
        again = follower.next()
        assert isinstance(again, Snapshot)
        assert [one.name for one in again.sessions] == ["new"]


def test_a_change_of_a_link_is_one_of_the_sessions_that_use_it(daemon: Serving) -> None:
    known.put(daemon.manager.sessions, SessionSpec(name="s", host="h"))
    with daemon.follow() as follower:
        follower.next()
        daemon.manager.hosts.supervisor("h", CLIENT).want(wanted=True)
        changed = follower.until(
            lambda event: isinstance(event, SessionChanged) and event.session.link.state == "reconnecting"
        )
        assert isinstance(changed, SessionChanged)


def test_ps_is_the_snapshot(daemon: Serving) -> None:
    known.put(daemon.manager.sessions, SessionSpec(name="s", host="h"), "exited")
    daemon.manager.sessions.keep_forward(TunnelSpec(host="h", local_port=1, address="127.0.0.1", port=2), None)
    printed = daemon.manager.handle(api.PsRequest(), Quiet())
    with daemon.follow() as follower:
        seen = follower.next()
    assert isinstance(seen, Snapshot)
    assert (seen.sessions, seen.forwards) == (printed.sessions, printed.forwards)
    assert seen.sessions != []


def test_a_client_that_comes_back_gets_what_it_missed(daemon: Serving) -> None:
    sessions = daemon.manager.sessions
    one = known.put(sessions, SessionSpec(name="one", host="h"), "running")
    known.put(sessions, SessionSpec(name="two", host="h"))
    with daemon.follow() as follower:
        first = follower.next()
    assert isinstance(first, Snapshot)
    # While nobody follows.
    sessions.apply(one, Absent(problem=known.ENDED, at=0.0, restartable=False))
    sessions.remove(sessions.runtime("two"))
    with daemon.follow(f"?since={first.index}&epoch={first.epoch}") as follower:
        missed = {type(event): event for event in (follower.next(), follower.next())}
        changed, removed = missed[SessionChanged], missed[SessionRemoved]
        assert isinstance(changed, SessionChanged)
        assert (changed.session.name, changed.session.state) == ("one", "exited")
        assert isinstance(removed, SessionRemoved)
        assert removed.name == "two"
        last = max(changed.index, removed.index)
    with daemon.follow(f"?since={last}&epoch={first.epoch}") as follower:
        sessions.apply(one, told(1))
        assert follower.next().index == last + 1


@pytest.mark.parametrize("since", [0, 5, 10**17])
def test_a_client_of_another_daemon_gets_a_snapshot(daemon: Serving, since: int) -> None:
    with daemon.follow(f"?since={since}&epoch=0123456789abcdef") as follower:
        assert isinstance(follower.next(), Snapshot)


def test_after_a_restart_of_the_daemon_a_client_gets_a_snapshot(paths: Paths) -> None:
    with serving(paths) as daemon:
        known.put(daemon.manager.sessions, SessionSpec(name="s", host="h"))
        daemon.manager.sessions.save()
        with daemon.follow() as follower:
            before = follower.next()
    assert isinstance(before, Snapshot)
    with serving(paths) as daemon, daemon.follow(f"?since={before.index}&epoch={before.epoch}") as follower:
        after = follower.next()
    assert isinstance(after, Snapshot)
    assert after.epoch != before.epoch
    assert [one.name for one in after.sessions] == ["s"]


def test_an_index_that_is_not_there_yet_or_no_index(daemon: Serving) -> None:
    with daemon.follow() as follower:
        first = follower.next()
    assert isinstance(first, Snapshot)
    with daemon.follow(f"?since={first.index + 1}&epoch={first.epoch}") as follower:
        assert isinstance(follower.next(), Snapshot)
    for wrong in ("-1", "x", "1" * 19, "1.5"):
        with daemon.follow(f"?since={wrong}") as follower:
            assert follower.status == 400


def test_a_heartbeat_when_nothing_changes(daemon: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jupyman.daemon.event_stream, "HEARTBEAT", 0.05)
    with daemon.follow() as follower:
        first = follower.next()
        assert [follower.line(), follower.line()] == [Heartbeat(index=first.index)] * 2


def test_what_changes_by_time_alone_is_a_change(daemon: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jupyman.core.event_feed, "REFRESH", 0.0)
    sessions = daemon.manager.sessions
    link = object()
    session = known.put(sessions, SessionSpec(name="s", host="h"), "running", running=known.server(), link=link)
    with daemon.follow() as follower:
        follower.next()
        monkeypatch.setattr("jupyman.core.sessions.views.LOST_AFTER", -1.0)
        sessions.link_lost("h")
        changed = follower.until(lambda event: isinstance(event, SessionChanged))
        assert isinstance(changed, SessionChanged)
        assert (changed.session.state, session.current.state) == ("lost", "running")


def test_so_many_clients_at_once_and_no_more(daemon: Serving) -> None:
    with ExitStack() as undo:
        followers = [undo.enter_context(daemon.follow()) for _ in range(MOST)]
        assert {follower.status for follower in followers} == {200}
        with daemon.follow() as refused:
            assert refused.status == 503
            assert refused.response.getheader("Retry-After") == "10"
        assert all(isinstance(follower.next(), Snapshot) for follower in followers)
        followers[0].close()
        # Its place is free as soon as its leaving is noticed.
        for _ in range(200):
            with daemon.follow() as again:
                if again.status == 200:
                    assert isinstance(again.next(), Snapshot)
                    break
                threading.Event().wait(0.05)
        else:
            pytest.fail("its place stays taken")


def test_only_with_the_token(daemon: Serving) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=WAIT)) as connection:
        connection.request("GET", "/v1/events")
        assert connection.getresponse().status == 401


def test_a_thousand_events_at_once_to_twenty_slow_clients(daemon: Serving) -> None:
    sessions = daemon.manager.sessions
    many = [known.put(sessions, SessionSpec(name=f"s{number}", host="h")) for number in range(50)]
    process = psutil.Process()
    with ExitStack() as undo:
        followers = [undo.enter_context(daemon.follow()) for _ in range(MOST)]
        before = process.memory_info().rss
        # None of them reads meanwhile.
        for number in range(1000):
            sessions.apply(many[number % 50], told(number))
        sessions.remove(many[49])
        grown = process.memory_info().rss - before
        for follower in followers:
            first = follower.next()
            assert isinstance(first, Snapshot)
            seen = {one.name: numbered(one) for one in first.sessions}
            index = first.index
            while "s49" in seen or set(seen.values()) != {20}:
                event = follower.next()
                if isinstance(event, SessionChanged):
                    seen[event.session.name] = numbered(event.session)
                elif isinstance(event, SessionRemoved):
                    del seen[event.name]
                elif isinstance(event, Snapshot):
                    seen = {one.name: numbered(one) for one in event.sessions}
                assert event.index > index
                index = event.index
            assert len(seen) == 49
        assert grown <= 10 * 1024 * 1024, f"{grown / 1024 / 1024:.1f} MiB"
        assert process.memory_info().rss - before <= 10 * 1024 * 1024


def test_one_that_is_too_far_behind_gets_a_snapshot(daemon: Serving) -> None:
    session = known.put(daemon.manager.sessions, SessionSpec(name="s", host="h"))
    feed = daemon.manager.events
    first = feed.read(None, 0)
    for number in range(RECENT + 1):
        daemon.manager.sessions.apply(session, told(number))
        feed.mark()
        feed._full_at = float("-inf")
        feed.read(feed.epoch, first.index)
    batch = feed.read(first.epoch, first.index)
    assert isinstance(msgspec.json.decode(batch.lines, type=AnyFeedEvent), Snapshot)
    near = feed.read(first.epoch, batch.index - RECENT)
    [line] = near.lines.splitlines()
    assert isinstance(msgspec.json.decode(line, type=AnyFeedEvent), SessionChanged)
