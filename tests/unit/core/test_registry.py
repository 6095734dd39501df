"""The registry of sessions while many threads use it; and that a daemon restores what it can, and the rest later."""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import jupyman
from jupyman import api, errors
from jupyman.core.links.hosts import Hosts
from jupyman.core.manager import Manager
from jupyman.core.sessions.registry import SessionRuntime
from jupyman.core.sessions.state import SessionEvent, Settled, Transition
from jupyman.core.sessions.store import State, Store
from jupyman.model import SessionSpec, TunnelSpec
from jupyman.paths import Paths
from tests.bed.wait import wait_until
from tests.unit.core import offline
from tests.unit.core.offline import CLIENT, Quiet

CORE = Path(jupyman.__file__).parent / "core"


def outside(tree: ast.AST) -> list[int]:
    """Return the lines that name a dictionary of the registry, as only it may; `self._sessions` of others is it."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (
            node.attr == "_tunnels"
            or (node.attr == "_sessions" and not (isinstance(node.value, ast.Name) and node.value.id == "self"))
        )
    ]


def test_only_the_registry_touches_its_dictionaries() -> None:
    found = {
        path.relative_to(CORE).as_posix(): lines
        for path in sorted(CORE.rglob("*.py"))
        if (lines := outside(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert list(found) == ["sessions/registry.py"], found


def test_the_walker_sees_every_way_to_touch_them() -> None:
    for text in ("self._sessions._sessions.values()", "for x in sessions._sessions: pass", "s._tunnels[1] = 2"):
        assert outside(ast.parse(text)) == [1], text
    assert outside(ast.parse("self._sessions.all(); tunnels.parse(x); store.state.tunnels")) == []


# --- a manager without hosts --------------------------------------------------------------------------------------


def state(paths: Paths, sessions: int, forwards: int = 0) -> None:
    """Write what an earlier daemon kept; nothing of it is wanted, so no port is bound."""
    store = Store(paths.state_file)
    store.state = State(
        sessions={f"old{n}": SessionSpec(name=f"old{n}", host="h", wanted=False) for n in range(sessions)},
        tunnels=[TunnelSpec(host="h", local_port=port + 1, address="127.0.0.1", port=1) for port in range(forwards)],
    )
    store.save()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return offline.folders(tmp_path)


@pytest.fixture
def managing(paths: Paths) -> Iterator[Callable[[], Manager]]:
    with offline.managing(paths) as make:
        yield make


def test_a_session_that_comes_while_the_others_are_restored(
    paths: Paths, managing: Callable[[], Manager], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the very moment in which `start` walks the sessions a request adds one."""
    state(paths, sessions=3)
    manager = managing()
    apply = manager.sessions.apply

    def and_add(session: SessionRuntime, event: SessionEvent) -> Transition:
        if session.name == "old0" and isinstance(event, Settled):
            with suppress(errors.HostUnreachable):
                manager.handle(api.Up(host="h", name="new"), Quiet())
            manager.sessions.enter(SessionSpec(name="added", host="h"))
        return apply(session, event)

    monkeypatch.setattr(manager.sessions, "apply", and_add)
    manager.start(CLIENT)
    assert all(manager.sessions.settled(f"old{n}") for n in range(3))
    assert manager.sessions.find("added") is not None


def test_requests_of_every_kind_while_sessions_come_and_go(
    paths: Paths, managing: Callable[[], Manager], monkeypatch: pytest.MonkeyPatch
) -> None:
    state(paths, sessions=300)
    manager = managing()
    monkeypatch.setattr(manager.sessions.store, "save", lambda: None)  # the disk is not what is tested
    before = sys.getswitchinterval()
    over = threading.Event()

    def come_and_go(worker: int) -> None:
        for number in range(60):
            with pytest.raises(errors.HostUnreachable):
                manager.handle(api.Up(host="h", name=f"n{worker}-{number}"), Quiet())

    def look() -> int:
        rounds = 0
        while not over.is_set() or rounds == 0:
            manager._monitor._restore()
            manager._gpus._wanted()
            manager.handle(api.PsRequest(), Quiet())
            manager.handle(api.HostLs(), Quiet())
            for request in (api.Kill(targets=["nobody"]), api.Kill(targets=[]), api.Logs(session="nobody"), api.Up()):
                with pytest.raises(errors.UsageFault):
                    manager.handle(request, Quiet())
            with pytest.raises(errors.UsageFault):
                manager.handle(api.Tunnel(specs=["1"], close=True), Quiet())
            rounds += 1
        return rounds

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            looks = [pool.submit(look) for _ in range(2)]
            try:
                list(pool.map(come_and_go, range(2)))
            finally:
                over.set()
            assert all(one.result() > 0 for one in looks)
    finally:
        sys.setswitchinterval(before)
    assert len(manager.sessions.all()) == 300


def test_a_forward_that_is_closed_while_it_is_restored_stays_closed(
    paths: Paths, managing: Callable[[], Manager], monkeypatch: pytest.MonkeyPatch
) -> None:
    state(paths, sessions=0, forwards=1)
    manager = managing()
    bound: list[Any] = []

    class Bound:
        closed = False

        def close(self) -> None:
            self.closed = True

    def listen(self: Any, *_: Any, **__: Any) -> Any:
        manager.sessions.drop_forward("h", 1)
        bound.append(Bound())
        return bound[0]

    monkeypatch.setattr("jupyman.ssh.forward.forwarder.Forwarder.listen", listen)
    manager.start(CLIENT)
    assert bound[0].closed
    assert manager.sessions.forwards() == []


# --- what breaks while a daemon restores --------------------------------------------------------------------------


def test_one_that_cannot_be_restored_holds_up_no_other_and_is_tried_again(
    paths: Paths, managing: Callable[[], Manager], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(paths.state_file)
    store.state = State(sessions={name: SessionSpec(name=name, host=name, local_port=1) for name in "abc"})
    store.save()
    manager = managing()
    monkeypatch.setattr("jupyman.core.sessions.monitor.AGAIN", 0.01)
    tried: list[str] = []

    def bind(self: Any, session: SessionRuntime) -> None:
        tried.append(session.name)
        if session.name == "a" and tried.count("a") < 4:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr("jupyman.core.sessions.monitor.SessionMonitor._bind", bind)
    manager.start(CLIENT)
    assert tried[:3] == ["a", "b", "c"]
    assert tried.count("a") == 4
    assert all(one.status.state in {"connecting", "reconnecting"} for one in manager.hosts.all().values())
    assert set(manager.hosts.all()) == {"a", "b", "c"}


def test_a_broken_config_is_waited_for(
    paths: Paths, managing: Callable[[], Manager], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that starts while config.toml is being edited restores everything when it is whole again."""
    store = Store(paths.state_file)
    store.state = State(sessions={"a": SessionSpec(name="a", host="a")})
    store.save()
    paths.config_file.write_text("default_host = ")
    manager = managing()
    monkeypatch.setattr("jupyman.core.sessions.monitor.AGAIN", 0.01)
    looked = threading.Event()
    supervise = Hosts.supervisor

    def watched(self: Hosts, host: str, client: api.ClientContext) -> Any:
        looked.set()
        return supervise(self, host, client)

    monkeypatch.setattr(Hosts, "supervisor", watched)
    thread = threading.Thread(target=manager.start, args=(CLIENT,))
    thread.start()
    assert looked.wait(20)
    assert manager.hosts.all() == {}
    paths.config_file.write_text('default_host = "a"')
    thread.join(20)
    assert not thread.is_alive()
    wait_until(lambda: manager.hosts.all()["a"].status.state == "reconnecting", what="the link that is wanted")


def test_the_end_of_the_daemon_ends_the_waiting(
    paths: Paths, managing: Callable[[], Manager], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(paths.state_file)
    store.state = State(sessions={"a": SessionSpec(name="a", host="a")})
    store.save()
    paths.config_file.write_text("default_host = ")
    manager = managing()
    monkeypatch.setattr("jupyman.core.sessions.monitor.AGAIN", 3600.0)
    monkeypatch.setattr("jupyman.core.sessions.monitor.LOOK", 3600.0)
    thread = threading.Thread(target=manager.start, args=(CLIENT,))
    thread.start()
    manager._monitor.close()
    thread.join(20)
    assert not thread.is_alive()
