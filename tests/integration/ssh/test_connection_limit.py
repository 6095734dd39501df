"""The limit of a forward's connections: beyond it they are refused, and all others go on."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from jupyman.core.sessions.views import crowded
from jupyman.ssh.forward import connection_limit, engine
from jupyman.ssh.forward.engine import BoundForward, Engine, EngineName
from tests.bed.sockets import connect, echo, read_all, serving
from tests.bed.sshd import private_sshd
from tests.bed.wait import wait_until


@pytest.fixture
def many_files() -> Iterator[None]:
    """So many that a forward without a bound would find more than the bound."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(params=["native", "sshtunnel"])
def forwarder(request: pytest.FixtureRequest, many_files: None, tmp_path: Path) -> Iterator[Engine]:
    name: EngineName = request.param
    with private_sshd(tmp_path / "bed") as sshd, contextlib.closing(sshd.open()) as link:
        one = engine.make("test", name)
        one.attach(link)
        yield one
        one.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """A bound that is soon reached, also where each connection takes a thread."""
    monkeypatch.setattr(connection_limit, "MOST", 20)
    return 20


def open_now(listener: BoundForward) -> int:
    return listener.stats()[0]


def answers(listener: BoundForward) -> bool:
    """Tell whether it carries a word there and back; no end of one direction, which sshtunnel takes for both."""
    with connect(listener) as sock:
        sock.sendall(b"ping")
        return sock.recv(100) == b"ping"


def to_itself(forwarder: Engine) -> BoundForward:
    """Bind a local port that leads to itself, because the host is this computer."""
    listener = forwarder.listen(0, ("127.0.0.1", 1))
    listener.retarget(("127.0.0.1", listener.local_port))
    return listener


def test_more_than_the_bound_are_refused_and_those_that_are_there_go_on(forwarder: Engine, small: int) -> None:
    with serving(echo) as place, contextlib.ExitStack() as stack:
        listener = forwarder.listen(0, place)
        first = [stack.enter_context(connect(listener)) for _ in range(small)]
        for sock in first:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        assert crowded(listener) == []
        for _ in range(30):
            with connect(listener) as sock, contextlib.suppress(ConnectionError):
                assert sock.recv(1) == b"", "it is closed at once"
        wait_until(lambda: listener.limit.refused == 30)
        assert open_now(listener) == small
        [problem] = crowded(listener)
        assert problem.code == "forward-full"
        assert f"local port {listener.local_port} refused 30 connections: {small} were open at once" in problem.text
        first[0].sendall(b"y")
        assert first[0].recv(1) == b"y"
        first[-1].close()
        wait_until(lambda: open_now(listener) == small - 1)
        assert answers(listener), "there is room again"


def test_a_forward_to_itself_ends_at_the_bound(forwarder: Engine, small: int) -> None:
    with serving(echo) as place:
        round_and_round, other = to_itself(forwarder), forwarder.listen(0, place)
        with connect(round_and_round) as sock:
            sock.sendall(b"x")
            wait_until(lambda: round_and_round.limit.refused > 0)
            assert open_now(round_and_round) <= small
            assert answers(other)
        wait_until(lambda: open_now(round_and_round) == 0)


def test_a_forward_to_itself_leaves_this_process_its_files(many_files: None, tmp_path: Path) -> None:
    """With the real bound: what it takes is known, it takes no time afterwards, and all comes back."""
    process = psutil.Process()
    with (
        private_sshd(tmp_path / "bed") as sshd,
        contextlib.closing(sshd.open()) as link,
        contextlib.closing(engine.make("test")) as one,
        serving(echo) as place,
    ):
        one.attach(link)
        round_and_round, other = to_itself(one), one.listen(0, place)
        assert answers(other)
        before = process.num_fds()
        with connect(round_and_round) as sock:
            sock.sendall(b"x")
            wait_until(lambda: round_and_round.limit.refused > 0, 60)
            assert process.num_fds() - before <= connection_limit.MOST + 10
            assert answers(other)
            used = time.process_time()
            threading.Event().wait(1)  # the measured time itself: a full listener must not be polled
            assert time.process_time() - used < 0.3
        wait_until(lambda: open_now(round_and_round) == 0, 60)
        wait_until(lambda: process.num_fds() <= before + 10)
        assert answers(other)


def test_clients_that_reconnect_all_the_time_delay_no_other(forwarder: Engine, small: int) -> None:
    over = threading.Event()

    def knock() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", full.local_port), 5) as sock:
                read_all(sock)

    with serving(echo) as place, contextlib.ExitStack() as stack:
        full, other = forwarder.listen(0, place), forwarder.listen(0, place)
        for _ in range(small):
            sock = stack.enter_context(connect(full))
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        threads = [threading.Thread(target=knock) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: full.limit.refused > 100)
            assert all(answers(other) for _ in range(10))
            assert open_now(full) == small
        finally:
            over.set()
            for thread in threads:
                thread.join()
