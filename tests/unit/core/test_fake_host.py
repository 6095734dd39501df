"""`up`, `ps`, `logs` and `kill` on a host whose launcher is a fake: without SSH and without Jupyter."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jupyman import api, errors
from jupyman.core.manager import Manager
from jupyman.local.peer_guard import PeerGuard
from jupyman.model.endpoint import LOOPBACK, Target
from jupyman.ssh.forward.connection_limit import ConnectionLimit
from tests.fake_shell import FakeShell
from tests.unit.core.offline import Quiet, folders, managing
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
    link = FakeLink({"report/probe": PROBE, "processes/visit": "pid 1"})
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
