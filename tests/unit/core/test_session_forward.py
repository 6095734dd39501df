"""The gate to a server and the token: only over the link that proved it, only to the port that is ours."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jupyman import errors
from jupyman.api import ClientContext
from jupyman.core.runtime.background import Background
from jupyman.core.runtime.scheduler import Scheduler
from jupyman.core.sessions.monitor import SessionMonitor
from jupyman.core.sessions.registry import SessionRegistry, SessionRuntime
from jupyman.core.sessions.session_forward import SessionForward
from jupyman.core.sessions.state import Doubted, Proven, UpFailed, UpStarted
from jupyman.host.servers.base import Liveness
from jupyman.host.servers.http_check import Asking
from jupyman.model import Running, SessionSpec
from jupyman.model.endpoint import Endpoint
from jupyman.ssh.forward.forwarder import Forwarder
from tests.bed.wait import wait_until
from tests.unit.core import known
from tests.unit.core.known import AT, UP, server


class Host:
    """What is used of a supervisor here."""

    name = "server1"
    status = UP
    silent = False

    def __init__(self) -> None:
        self.link: Any = object()
        self.forwarder = Forwarder("test")


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.forwarder.close()


@pytest.fixture
def sessions(tmp_path: Path) -> SessionRegistry:
    return known.registry(tmp_path)


@pytest.fixture
def session(host: Host, sessions: SessionRegistry) -> SessionRuntime:
    """A session whose server was proven, and may be another one by now."""
    made = known.put(sessions, running=server(), state="running", link=host.link)
    sessions.apply(made, Doubted())
    return made


@pytest.fixture
def forwarding(
    host: Any, sessions: SessionRegistry, session: SessionRuntime
) -> Iterator[Callable[..., SessionForward]]:
    """What begins an `up` with its forward."""
    made: list[SessionForward] = []

    def make(asked: int | None = None, port: int | None = None) -> SessionForward:
        downs = session.current.downs
        sessions.apply(session, UpStarted(downs=downs))
        forward = SessionForward(
            sessions,
            host,
            host.link,
            session,
            asked=asked,
            usual=port,
            had=port,
            downs=downs,
            share=False,
            suspect=lambda: None,
        )
        made.append(forward)
        return forward

    yield make
    for forward in made:
        forward.close()


Forwarding = Callable[..., SessionForward]


def test_what_one_link_proved_does_not_hold_for_the_next(
    host: Host, sessions: SessionRegistry, session: SessionRuntime, forwarding: Forwarding
) -> None:
    made = forwarding()
    made.proven(server(), at=AT, exposed=())
    assert session.passes()
    sessions.link_lost("server1")
    with pytest.raises(errors.LinkLost):
        made.proven(server(), at=AT, exposed=())
    assert not session.passes()
    sessions.link_up("server1", object())
    with pytest.raises(errors.LinkLost):
        made.listening(Endpoint(None, 8888))
    assert not session.passes()


def test_a_look_over_a_link_that_is_gone_opens_nothing(
    host: Any, sessions: SessionRegistry, session: SessionRuntime
) -> None:
    verified: list[Running] = []

    def verify(running: Running) -> Liveness:
        verified.append(running)
        sessions.link_lost("server1")
        sessions.link_up("server1", object())
        return Liveness("alive", "it runs")

    class Hosts:
        def known(self, name: str) -> Any:
            return host

        def launcher(self, name: str) -> Callable[[object], Any]:
            return lambda link: SimpleNamespace(verify=verify)

    hosts: Any = Hosts()
    monitor = SessionMonitor(hosts, sessions, lambda session, why: None, Scheduler())
    monitor._look_at("server1")
    assert verified
    assert not session.passes()


def test_a_listener_that_was_bound_anew_is_asked_anew(
    host: Host, sessions: SessionRegistry, session: SessionRuntime, forwarding: Forwarding
) -> None:
    made = forwarding()
    made.listening(Endpoint(None, 8888))
    first = made._check
    made.listening(Endpoint(None, 8889))
    assert made._check is first, "a host reports it once"
    listener = session.listener
    assert listener is not None
    assert sessions.replace_listener(session, listener, None)
    listener.close()
    made.forward(server(), Background(ClientContext()))
    sessions.apply(session, Doubted())  # nobody there would answer
    asked = threading.Thread(target=made.ask, args=(server(),))
    asked.start()
    wait_until(lambda: made._check not in {None, first}, what="a new question")
    assert made._check_at is session.listener
    made.close()
    host.forwarder.close()
    asked.join(20)
    assert not asked.is_alive()


# --- the local port -------------------------------------------------------------------------------------------------

TARGET = Endpoint(None, 8888)


def bound(host: Host, sessions: SessionRegistry, session: SessionRuntime) -> int:
    """Give the session a listener, as it has it from before; return its port."""
    listener = host.forwarder.listen(0, TARGET.target, gate=session.passes)
    assert sessions.bind(session, listener, instead_of=None, status=lambda: UP, suspect=lambda: None)
    return listener.local_port


def taken(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def test_up_of_a_session_that_is_down_uses_its_listener_and_gives_it_back_if_it_fails(
    host: Host, sessions: SessionRegistry, session: SessionRuntime, forwarding: Forwarding
) -> None:
    port = bound(host, sessions, session)
    sessions.take_down(session, release=False)
    made = forwarding()
    made.listening(TARGET)
    assert (session.current.down, session.passes()) == (False, True)
    sessions.apply(session, UpFailed(undone=False))
    made.undo()
    assert (session.current.down, session.passes()) == (True, False)
    assert taken(port)


@pytest.mark.parametrize("fails", [True, False])
def test_the_port_that_a_session_has_goes_only_when_all_has_gone_well(
    host: Any, sessions: SessionRegistry, session: SessionRuntime, forwarding: Forwarding, fails: bool
) -> None:
    port = bound(host, sessions, session)
    other = known.put(sessions, SessionSpec(name="other", host="server1"))
    made = forwarding(asked=bound(host, sessions, other) + 1, port=port)
    made.listening(TARGET)
    assert session.listener is not None
    moved = session.listener.local_port
    assert moved != port
    assert taken(port)
    made.undo() if fails else made.keep()
    assert session.listener.local_port == session.current.bound_port == (port if fails else moved)
    assert (taken(port), taken(moved)) == (fails, not fails)


def test_a_down_in_the_middle_of_an_up_stands(
    host: Host, sessions: SessionRegistry, session: SessionRuntime, forwarding: Forwarding
) -> None:
    bound(host, sessions, session)
    sessions.take_down(session, release=False)
    made = forwarding()
    made.listening(TARGET)
    sessions.take_down(session, release=False)
    with pytest.raises(errors.Interrupted):
        made.ask(server())
    with pytest.raises(errors.Interrupted):
        made.forward(server(), Background(ClientContext()))
    sessions.apply(session, UpFailed(undone=False))
    made.undo()
    assert session.current.down


def test_a_down_that_releases_the_port_in_the_middle_of_an_up_leaves_no_listener(
    host: Host, sessions: SessionRegistry, session: SessionRuntime, forwarding: Forwarding
) -> None:
    port = bound(host, sessions, session)
    made = forwarding(asked=port + 1)
    made.listening(TARGET)
    moved = session.current.bound_port
    sessions.take_down(session, release=True)
    with pytest.raises(errors.Interrupted, match="taken down"):
        made.forward(server(), Background(ClientContext()))
    made.undo()
    assert not taken(port)
    assert not taken(moved or 0)
    assert session.listener is None


def test_a_kill_in_the_middle_of_an_up_leaves_no_listener(
    host: Host, sessions: SessionRegistry, session: SessionRuntime, forwarding: Forwarding
) -> None:
    port = bound(host, sessions, session)
    made = forwarding(asked=port + 1)
    made.listening(TARGET)
    moved = session.current.bound_port
    assert moved not in {None, port}
    sessions.remove(session)
    with pytest.raises(errors.Interrupted):
        made.forward(server(), Background(ClientContext()))
    made.undo()
    assert not taken(port)
    assert not taken(moved or 0)
    assert session.listener is None


def test_nothing_passes_before_a_token_that_another_user_may_know_is_changed(
    host: Any, session: SessionRuntime, forwarding: Forwarding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyman.core.sessions.token_exposure.listener_uid", lambda port: 4711)
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        made = forwarding(port=port)
        made.listening(TARGET)
    assert made.other_user == "a program of uid 4711"
    assert session.listener is not None
    assert session.listener.local_port != port
    current = session.current
    assert (current.token_exposed, current.spec.heard, current.passes, current.url) == (True, True, False, None)
    assert made._check is None, "nothing was sent to anybody"
    made.undo()


# --- where the open gate leads --------------------------------------------------------------------------------------


def gate(listener: Any) -> bool:
    assert listener.gate is not None
    return bool(listener.gate())


def test_a_listener_that_is_bound_late_leads_to_the_server_that_was_proven(
    host: Any, sessions: SessionRegistry, session: SessionRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions.apply(session, Proven(running=server(port=9999), over=host.link, at=AT))
    assert session.passes()
    unbound: list[bool] = []
    listen = host.forwarder.listen

    def watched(port: int, target: Any, **how: Any) -> Any:
        listener = listen(0, target, **how)
        unbound.append(gate(listener))
        return listener

    monkeypatch.setattr(host.forwarder, "listen", watched)
    hosts: Any = SimpleNamespace(supervisor=lambda *_: host, share=lambda _: False)
    monitor = SessionMonitor(hosts, sessions, lambda session, why: None, Scheduler())
    monitor._bind_port(session, 1)
    assert unbound == [False], "it leads to a guess"
    listener: Any = session.listener
    assert (listener.target, gate(listener)) == (Endpoint(None, 9999).target, True)


def test_a_port_that_is_given_back_leads_to_the_server_that_was_proven_meanwhile(
    host: Host, sessions: SessionRegistry, session: SessionRuntime, forwarding: Forwarding
) -> None:
    port = bound(host, sessions, session)
    old: Any = session.listener
    made = forwarding(asked=port + 1)
    made.forward(server(port=9999), Background(ClientContext()))
    made.proven(server(port=9999), at=AT, exposed=())
    assert gate(session.listener)
    assert not gate(old), "it leads to the server before"
    sessions.apply(session, UpFailed(undone=False))
    made.undo()
    assert session.current.bound_port == port
    assert (old.target, gate(old)) == (Endpoint(None, 9999).target, True)


def test_the_gate_is_shut_before_the_port_leads_to_another_server(
    host: Host, sessions: SessionRegistry, session: SessionRuntime, forwarding: Forwarding
) -> None:
    bound(host, sessions, session)
    made = forwarding()
    made.proven(server(), at=AT, exposed=())
    made.forward(server(), Background(ClientContext()))
    assert session.passes(), "it leads to the same one"
    made.forward(server(port=9999), Background(ClientContext()))
    assert not session.passes()


# --- the token ----------------------------------------------------------------------------------------------------


def listening(act: Callable[[socket.socket], None], port: int = 0) -> contextlib.AbstractContextManager[int]:
    """Accept connections and do something with each, in a thread of its own."""

    @contextlib.contextmanager
    def serve() -> Iterator[int]:
        with socket.create_server(("127.0.0.1", port)) as server:

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = server.accept()
                        thread = threading.Thread(target=one, args=(connection,))
                        threads.append(thread)
                        thread.start()

            def one(connection: socket.socket) -> None:
                with connection, contextlib.suppress(OSError):
                    act(connection)

            threads: list[threading.Thread] = [threading.Thread(target=accept)]
            threads[0].start()
            try:
                yield server.getsockname()[1]
            finally:
                server.shutdown(socket.SHUT_RDWR)
                for thread in threads:
                    thread.join()

    return serve()


def test_another_program_that_gets_the_port_gets_no_token() -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
    with (
        contextlib.closing(Asking(port, timeout=5)) as asking,
        listening(lambda connection: heard.append(connection.recv(4096)), port),
    ):
        assert asking.ask("/", "secret") == (None, None)
    assert heard == []


def test_a_server_that_drips_is_not_waited_for() -> None:
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not ended.wait(0.05):
            connection.sendall(b"x")

    with listening(drip) as port, contextlib.closing(Asking(port, timeout=0.5)) as asking:
        start = time.monotonic()
        assert asking.ask("/", "t") == (None, None)
        assert time.monotonic() - start < 4
        ended.set()
