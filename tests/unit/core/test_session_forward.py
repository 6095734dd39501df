"""The gate to a server and the token: only by the link that proved it, only to the port that is ours."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from jupyman import errors
from jupyman.api import ClientContext
from jupyman.core.runtime.background import Background
from jupyman.core.runtime.scheduler import Scheduler
from jupyman.core.sessions.monitor import SessionMonitor
from jupyman.core.sessions.registry import Live, SessionRegistry
from jupyman.core.sessions.session_forward import SessionForward
from jupyman.core.sessions.store import Store
from jupyman.host.servers.http_check import Asking
from jupyman.model import LinkStatus, Running, SessionSpec
from jupyman.ssh.forward.forwarder import Forwarder
from tests.bed.wait import wait_until
from tests.fakes import SESSION

UP = LinkStatus(state="up", since="2026-01-02T03:04:05Z")


class Host:
    """What a way asks of a supervisor."""

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
def live() -> Live:
    assert SESSION.server is not None
    running = Running(
        name="server1", server=SESSION.server, token="t", directory="/d", base_url="/", boot_id="b", start_ticks=1
    )
    return Live(spec=SessionSpec(name="server1", host="server1"), state="running", running=running)


def way(host: Any, live: Live) -> SessionForward:
    return SessionForward(host, host.link, live, asked=None, usual=None, share=False, suspect=lambda: None)


def test_what_one_link_proved_does_not_hold_for_the_next(host: Host, live: Live) -> None:
    made = way(host, live)
    made.open()
    assert live.passes()
    host.link = None
    with pytest.raises(errors.LinkLost):
        made.open()
    assert not live.passes()
    host.link = object()
    with pytest.raises(errors.LinkLost):
        made.listening(("127.0.0.1", 8888))
    assert not live.passes()


def test_a_look_by_a_link_that_is_gone_opens_nothing(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, host: Any, live: Live
) -> None:
    from jupyman.host.servers.nohup import Liveness

    sessions = SessionRegistry(Store(tmp_path_factory.mktemp("state") / "state.json"))
    sessions.live["server1"] = live

    class Hosts:
        def known(self, name: str) -> Any:
            return host

    def verify(link: object, running: Running) -> Liveness:
        host.link = None  # and another one comes soon
        return Liveness("alive", "it runs")

    monkeypatch.setattr("jupyman.host.servers.nohup.verify", verify)
    hosts: Any = Hosts()
    restorer = SessionMonitor(hosts, sessions, lambda live, why: None, Scheduler())
    restorer._visit("server1")
    assert not live.passes()


def test_a_listener_that_was_bound_anew_is_asked_anew(host: Host, live: Live) -> None:
    made = way(host, live)
    made.listening(("127.0.0.1", 8888))
    first = made._asking
    made.listening(("127.0.0.1", 8889))
    assert made._asking is first, "a host says so once"
    listener, live.listener = live.listener, None
    assert listener is not None
    listener.close()
    assert live.running is not None
    server = msgspec.structs.replace(live.running.server, port=8888)
    running = msgspec.structs.replace(live.running, server=server)
    made.forward(running, Background(ClientContext()))
    live.verified = False  # nobody there would answer
    asked = threading.Thread(target=made.ask, args=(running,))
    asked.start()
    wait_until(lambda: made._asking not in {None, first}, what="a new question")
    assert made._asked_by is live.listener
    made.close()
    host.forwarder.close()
    asked.join(20)
    assert not asked.is_alive()


# --- the local port -------------------------------------------------------------------------------------------------

TARGET = ("127.0.0.1", 8888)


def bound(host: Host, live: Live) -> int:
    """Give the session a listener, as it has it from before; return its port."""
    listener = host.forwarder.listen(0, TARGET, gate=live.passes)
    live.take(listener, lambda: UP, lambda: None)
    return listener.local_port


def taken(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def test_up_of_a_session_that_is_down_uses_its_listener_and_gives_it_back_where_it_fails(
    host: Host, live: Live
) -> None:
    port = bound(host, live)
    live.park()
    made = way(host, live)
    made.listening(TARGET)
    assert (live.parked, live.passes()) == (False, True)
    made.undo()
    assert (live.parked, live.passes()) == (True, False)
    assert taken(port)
    made.close()


@pytest.mark.parametrize("fails", [True, False])
def test_the_port_that_a_session_has_goes_only_when_all_has_gone_well(host: Any, live: Live, fails: bool) -> None:
    port = bound(host, live)
    asked = bound(host, Live(spec=SessionSpec(name="other", host="server1"))) + 1
    made = SessionForward(host, host.link, live, asked=asked, usual=port, had=port, share=False, suspect=lambda: None)
    made.listening(TARGET)
    assert live.listener is not None
    moved = live.listener.local_port
    assert moved != port
    assert taken(port)
    made.undo() if fails else made.keep()
    made.close()
    assert live.listener.local_port == (port if fails else moved)
    assert (taken(port), taken(moved)) == (fails, not fails)


def test_a_down_in_the_middle_of_an_up_stands(host: Host, live: Live) -> None:
    bound(host, live)
    live.park()
    made = way(host, live)
    made.listening(TARGET)
    live.park()
    with pytest.raises(errors.Interrupted):
        made.ask(live.running)  # type: ignore[arg-type]  # not None here
    made.undo()
    assert live.parked
    made.close()


def test_nobody_gets_through_before_a_heard_token_is_changed(
    host: Any, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyman.core.sessions.token_exposure.listener_uid", lambda port: 4711)
    with socket.create_server(("127.0.0.1", 0)) as his:
        port = his.getsockname()[1]
        made = SessionForward(
            host, host.link, live, asked=None, usual=port, had=port, share=False, suspect=lambda: None
        )
        made.listening(TARGET)
    assert made.stranger == "a program of uid 4711"
    assert live.listener is not None
    assert live.listener.local_port != port
    assert (live.sealed, live.spec.heard, live.passes(), live.url) == (True, True, False, None)
    assert made._asking is None, "nothing was said to anybody"
    made.undo()


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


def test_a_stranger_who_gets_the_port_gets_no_token() -> None:
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
