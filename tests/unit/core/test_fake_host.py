"""`up`, `ps`, `logs` and `kill` on a host whose launcher is a fake: without SSH and without Jupyter."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jupyman import api, errors
from jupyman.core.manager import Manager
from jupyman.core.runtime.background import Background
from jupyman.core.sessions.session_forward import SessionForward
from jupyman.core.sessions.state import Absent, NotUsable
from jupyman.core.verbs import up_queue
from jupyman.local.peer_guard import PeerGuard
from jupyman.model import PortHolder, Running
from jupyman.model.endpoint import LOOPBACK, Target
from jupyman.ssh.forward.connection_limit import ConnectionLimit
from tests.bed.wait import wait_until
from tests.fake_shell import FakeShell
from tests.unit.core.known import ENDED
from tests.unit.core.offline import CLIENT, Quiet, folders, managing
from tests.unit.host.fake_launcher import FakeHost, FakeLauncher, fake_host

PROBE = """\
uid 1000
user tester
home /home/tester
node node-a
os Debian GNU/Linux 12 (bookworm)
gpu.status 127
part gpus
home_writable yes
disk /dev/vda 263174212 22000000 83000000 22% /
part disk
env.prefix /opt/lab
env.kind venv
env.executable /opt/lab/bin/python
env.python 3.12.4
env.app lab
env.app server
env.jupyter_server 2.21.1
part environments"""


@dataclass
class FakeLink(FakeShell):
    """A link to a host that answers the probe; everything about servers goes to the launcher."""

    peer: str = LOOPBACK
    source: str = LOOPBACK
    busy: float = 0.0
    alive: bool = True
    acknowledged: float = 0.0

    @property
    def heard(self) -> float:
        return time.monotonic()

    def heartbeat(self, timeout: float) -> float:
        return 0.001

    def on_lost(self, callback: Callable[[str], None]) -> None: ...

    def may_forward(self, target: Target) -> None: ...

    def close(self) -> None: ...

    @contextlib.contextmanager
    def shell_ahead(self) -> Iterator[FakeShell]:
        yield self


@dataclass
class FakeForward:
    """A forward to a server of this computer: its own port is the local one."""

    target: Any
    gate: Callable[[], bool] | None
    respond: Any = None
    on_refused: Any = None
    share: bool = False
    holder_text: str = ""
    peer_guard: PeerGuard = field(default_factory=lambda: PeerGuard("a test"))
    limit: ConnectionLimit = field(default_factory=ConnectionLimit)

    @property
    def local_port(self) -> int:
        return int(self.target[1])

    def retarget(self, target: Target) -> None:
        self.target = target

    def stats(self) -> tuple[int, int, int]:
        return 0, 0, 0

    def detach(self) -> None: ...

    def close(self) -> None: ...


class FakeEngine:
    """All forwards of the host."""

    def listen(
        self,
        local_port: int,
        target: Target,
        *,
        strict: bool = False,
        address: str = LOOPBACK,
        gate: Callable[[], bool] | None = None,
    ) -> FakeForward:
        return FakeForward(target, gate)

    def attach(self, link: Any) -> None: ...

    def detach(self) -> None: ...

    def hold(self) -> None: ...

    def resume(self) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def host() -> Iterator[FakeHost]:
    with fake_host() as made:
        yield made


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: FakeHost) -> Iterator[Manager]:
    monkeypatch.setattr("jupyman.ssh.forward.engine.make", lambda *_: FakeEngine())
    monkeypatch.setattr("jupyman.host.servers.choose", lambda _: lambda shell: FakeLauncher(host, shell))
    link = FakeLink({"report/probe": PROBE, "processes/visit": "pid 1", "report/ports": "uid 1000"})
    with managing(folders(tmp_path), login=lambda *_: link) as make:
        yield make()


def do(manager: Manager, request: Any) -> tuple[Any, Quiet]:
    operation = Quiet()
    return manager.handle(request, operation), operation


def test_a_session_of_a_fake_launcher_lives_and_dies(manager: Manager, host: FakeHost) -> None:
    session, _ = do(manager, api.Up(host="server1"))
    assert (session.state, session.server.node) == ("running", "node-a")
    [process] = host.processes.values()
    assert session.server.pid == process.pid
    assert f":{process.port}/" in session.url
    assert session.url.endswith(f"token={process.token}")

    again, _ = do(manager, api.Up(host="server1"))
    assert again.server.pid == process.pid
    assert len(host.processes) == 1

    [listed] = do(manager, api.PsRequest())[0].sessions
    assert (listed.name, listed.state, listed.server.pid) == ("server1", "running", process.pid)
    assert do(manager, api.PsRequest(all=True))[0].servers == []  # the session owns the only one

    process.log.append("a line of the server")
    _, operation = do(manager, api.Logs(session="server1", lines=1, follow=False))
    assert [event.line for event in operation.events if isinstance(event, api.Output)] == ["a line of the server"]

    kills, _ = do(manager, api.Kill(targets=["server1"], yes=True))
    assert [one.pid for one in kills.killed] == [process.pid]
    assert not process.alive
    assert host.records["server1"].stopped_by is not None
    assert do(manager, api.PsRequest())[0].sessions == []


def test_a_server_that_died_is_replaced(manager: Manager, host: FakeHost) -> None:
    session, _ = do(manager, api.Up(host="server1"))
    host.kill(session.server.pid)
    after, operation = do(manager, api.Up(host="server1"))
    assert after.state == "running"
    assert after.server.pid != session.server.pid
    steps = [event.text for event in operation.events if isinstance(event, api.Step)]
    assert any("the session's server is gone" in text for text in steps)


def test_a_launch_that_fails_leaves_no_session(
    manager: Manager, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise errors.LaunchTimedOut("Jupyter did not answer")

    monkeypatch.setattr(FakeLauncher, "launch", fail)
    with pytest.raises(errors.LaunchTimedOut):
        do(manager, api.Up(host="server1"))
    assert do(manager, api.PsRequest())[0].sessions == []
    assert host.processes == {}


# --- `down` and `kill` in the middle of an `up` ---------------------------------------------------------------------

DOWN = api.Down(sessions=["server1"])
KILL = api.Kill(targets=["server1"], yes=True)
UP = api.Up(host="server1", name="server1")


def once(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, act: Callable[[], Any]) -> None:
    """Do something before the next call of a function, and never again."""
    original, left = getattr(where, name), [act]

    def first_act(*arguments: Any, **named: Any) -> Any:
        if left:
            left.pop()()
        return original(*arguments, **named)

    monkeypatch.setattr(where, name, first_act)


def wants(manager: Manager) -> bool:
    """Tell whether the host's link is wanted."""
    supervisor = manager.hosts.known("server1")
    assert supervisor is not None
    return bool(supervisor._policy.wanted)


@pytest.mark.parametrize("ending", [DOWN, KILL], ids=["down", "kill"])
@pytest.mark.parametrize("moment", ["before", "while it is planned", "while it is looked for"])
def test_a_restart_undoes_no_down_and_no_kill(
    manager: Manager, host: FakeHost, monkeypatch: pytest.MonkeyPatch, ending: Any, moment: str
) -> None:
    do(manager, api.Up(host="server1", restart="always"))
    session = manager.sessions.runtime("server1")
    running = session.current.running
    assert running is not None
    host.kill(running.server.pid)
    event = Absent(problem=ENDED, running=running, at=1.0, restartable=True)
    assert "restart" in manager.sessions.apply(session, event).effects
    if moment == "before":
        do(manager, ending)
    elif moment == "while it is planned":
        once(monkeypatch, up_queue, "wanted", lambda: do(manager, ending))
    else:
        once(monkeypatch, FakeLauncher, "verify", lambda: do(manager, ending))
    manager._ups.restart(session, "it ended", manager._call(Background(CLIENT)))
    for thread in threading.enumerate():
        if thread.name == "restart server1":
            thread.join(20)
    assert not any(process.alive for process in host.processes.values())
    assert not wants(manager)
    if ending is KILL:
        assert manager.sessions.all() == []
    else:
        assert (session.current.down, session.current.state) == (True, "exited")
        assert "restart-failed" not in {problem.code for problem in session.current.problems}


def test_a_restart_starts_the_server_again(manager: Manager, host: FakeHost) -> None:
    do(manager, UP)
    session = manager.sessions.runtime("server1")
    [process] = host.processes.values()
    process.end()
    manager._ups.restart(session, "it ended", manager._call(Background(CLIENT)))
    wait_until(lambda: "server-restarted" in {one.code for one in session.current.problems}, what="the restart")
    assert (session.current.state, session.current.down) == ("running", False)
    assert [one.alive for one in host.processes.values()] == [False, True]


def test_a_down_while_an_up_looks_at_the_server_stands(
    manager: Manager, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(manager, UP)
    once(monkeypatch, FakeLauncher, "verify", lambda: do(manager, DOWN))
    with pytest.raises(errors.Interrupted, match="taken down"):
        do(manager, UP)
    state = manager.sessions.get("server1")
    assert (state.down, state.passes, wants(manager)) == (True, False, False)
    do(manager, UP)
    assert not manager.sessions.get("server1").down


def test_an_up_after_that_down_opens_the_session_again(
    manager: Manager, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(manager, UP)
    got: list[Any] = []
    second = threading.Thread(target=lambda: got.append(do(manager, UP)[0]))

    def down_and_up() -> None:
        do(manager, DOWN)
        second.start()
        wait_until(lambda: manager._ups._latest["server1"][0].downs == 1, what="the second request")

    once(monkeypatch, FakeLauncher, "verify", down_and_up)
    with pytest.raises(errors.Interrupted, match="taken down"):
        do(manager, UP)
    second.join(20)
    assert [one.state for one in got] == ["running"]
    assert not manager.sessions.get("server1").down


@pytest.mark.parametrize(("ending", "text"), [(DOWN, "taken down"), (KILL, "killed")])
def test_an_up_that_ends_after_a_down_or_kill_reports_it_and_wants_no_link(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, ending: Any, text: str
) -> None:
    once(monkeypatch, SessionForward, "keep", lambda: do(manager, ending))
    with pytest.raises(errors.Interrupted, match=text):
        do(manager, UP)
    assert not wants(manager)


# --- servers that are found, and servers that are ended -------------------------------------------------------------


def other_record(manager: Manager, host: FakeHost) -> int:
    """Have a session whose server has a record of another name, and is not found yet; return the server's pid."""
    do(manager, api.Up(host="server1", name="other"))
    manager.sessions.remove(manager.sessions.runtime("other"))
    session, _ = do(manager, api.Up(host="server1"))
    assert [session.server.pid] == list(host.processes)
    manager.sessions.apply(manager.sessions.runtime("server1"), NotUsable(problem=ENDED, running=None))
    return int(session.server.pid)


def test_up_finds_the_server_of_a_record_of_another_name(manager: Manager, host: FakeHost) -> None:
    pid = other_record(manager, host)
    session, _ = do(manager, UP)
    assert session.server.pid == pid
    assert list(host.processes) == [pid]


def test_kill_finds_the_server_of_a_record_of_another_name(manager: Manager, host: FakeHost) -> None:
    pid = other_record(manager, host)
    kills, _ = do(manager, KILL)
    assert [one.pid for one in kills.killed] == [pid]
    assert not host.processes[pid].alive


def gates_at_stop(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, bool]]:
    """Return the list that gets the sessions' gates, by name, whenever a server is stopped."""
    seen: list[dict[str, bool]] = []
    stop = FakeLauncher.stop

    def watched(self: FakeLauncher, running: Running, **how: Any) -> bool:
        seen.append({one.name: one.passes() for one in manager.sessions.runtimes()})
        return stop(self, running, **how)

    monkeypatch.setattr(FakeLauncher, "stop", watched)
    return seen


def test_the_gate_is_shut_before_kill_stops_the_server(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    do(manager, UP)
    assert manager.sessions.runtime("server1").passes()
    seen = gates_at_stop(manager, monkeypatch)
    do(manager, KILL)
    assert seen == [{"server1": False}]


def test_the_gate_is_shut_before_a_failed_up_stops_its_server(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_then: list[bool] = []

    def ask(*_: Any) -> tuple[int, int]:
        open_then.append(manager.sessions.runtime("server1").passes())
        return 500, 500

    monkeypatch.setattr(SessionForward, "ask", ask)
    seen = gates_at_stop(manager, monkeypatch)
    with pytest.raises(errors.LinkLost):
        do(manager, UP)
    assert (open_then, seen) == ([True], [{"server1": False}])


def test_the_gate_of_another_session_is_shut_before_its_server_is_ended_for_its_port(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = do(manager, UP)
    pid, port = first.server.pid, first.server.port
    holder = PortHolder(port=port, address=LOOPBACK, uid=1000, user="tester", pid=pid, command="jupyter", ours=True)
    monkeypatch.setattr("jupyman.core.verbs.up_prepare.ports.who", lambda _: [holder])
    suspected: list[bool] = []
    monkeypatch.setattr(manager._ups, "_suspect", lambda: suspected.append(True))
    seen = gates_at_stop(manager, monkeypatch)
    do(manager, api.Up(host="server1", name="second", port=port, on_conflict="kill"))
    assert [gates["server1"] for gates in seen] == [False]
    assert suspected == [True]
