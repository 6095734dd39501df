"""The engine sshtunnel by the forwarder's protocol, and its known failures."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jupyman import errors
from jupyman.ssh.forward import engine
from jupyman.ssh.forward.engine import BoundForward, Engine, EngineName
from jupyman.ssh.link import Link
from tests.bed.sockets import connect, echo, read_all, serving
from tests.bed.sshd import Sshd
from tests.bed.wait import wait_until


@pytest.fixture(params=["native", "sshtunnel"])
def name(request: pytest.FixtureRequest) -> EngineName:
    chosen: EngineName = request.param
    return chosen


@pytest.fixture
def forwarder(link: Link, name: EngineName) -> Iterator[Engine]:
    one = engine.make("test", name)
    one.attach(link)
    yield one
    one.close()


def ask(listener: BoundForward, text: bytes) -> bytes:
    with connect(listener) as sock:
        sock.sendall(text)
        answer = bytearray()
        while len(answer) < len(text):
            chunk = sock.recv(65536)
            if not chunk:
                break
            answer += chunk
        return bytes(answer)


def test_bytes_go_both_ways_and_are_counted(forwarder: Engine) -> None:
    with serving(echo) as target:
        listener = forwarder.listen(0, target)
        assert ask(listener, b"x" * 100_000) == b"x" * 100_000
        wait_until(lambda: listener.stats() == (0, 100_000, 100_000))


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root can be two users; Linux tells")
def test_another_user_is_refused_unless_the_listener_is_shared(forwarder: Engine) -> None:
    ask = "import socket, sys; c = socket.socket(); c.settimeout(20); c.connect(('127.0.0.1', int(sys.argv[1])))\n"
    ask += "try: c.sendall(b'hello'); print(c.recv(9).decode())\nexcept OSError: print()"
    words = ["setpriv", "--reuid=3000001", "--regid=3000001", "--clear-groups", "python3", "-c", ask]
    heard: list[bytes] = []

    def tell(sock: socket.socket) -> None:
        heard.append(sock.recv(9))
        sock.sendall(heard[-1])

    with serving(tell) as target:
        listener = forwarder.listen(0, target)

        def asked() -> str:
            how = {"PATH": "/usr/bin:/bin"}
            command = [*words, str(listener.local_port)]
            return subprocess.run(
                command, env=how, cwd="/", stdout=subprocess.PIPE, text=True, check=True
            ).stdout.strip()

        assert asked() == ""
        wait_until(lambda: [name for name, _ in listener.peer_guard.seen()] == ["uid 3000001"])
        listener.share = True
        assert asked() == "hello"
    assert heard == [b"hello"]


def test_only_loopback_is_bound(forwarder: Engine) -> None:
    import psutil

    listener = forwarder.listen(0, ("127.0.0.1", 1))
    bound = {c.laddr for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert {place for place in bound if place[1] == listener.local_port} == {("127.0.0.1", listener.local_port)}


def test_a_refused_target_then_a_good_one(forwarder: Engine) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        listener = forwarder.listen(0, closed.getsockname())
        with contextlib.suppress(ConnectionError):
            assert ask(listener, b"x") == b""
    with serving(echo) as target:
        listener.retarget(target)
        assert ask(listener, b"good") == b"good"


def test_the_link_stays_when_listeners_go(forwarder: Engine, link: Link) -> None:
    with serving(echo) as target:
        listener = forwarder.listen(0, target)
        assert ask(listener, b"x") == b"x"
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            connect(listener)
    assert link.run("echo on\n", timeout=10).stdout == b"on\n"


def test_the_next_link_has_the_same_port(forwarder: Engine, sshd: Sshd) -> None:
    with serving(echo) as target, contextlib.closing(sshd.open()) as second:
        listener = forwarder.listen(0, target)
        port = listener.local_port
        assert ask(listener, b"x") == b"x"
        forwarder.detach()
        forwarder.attach(second)
        assert listener.local_port == port
        assert ask(listener, b"again") == b"again"


def test_a_shut_gate_carries_nothing(forwarder: Engine) -> None:
    with serving(echo) as target:
        listener = forwarder.listen(0, target)
        listener.gate = lambda: False
        with connect(listener) as sock:
            sock.settimeout(0.5)
            with contextlib.suppress(OSError):
                sock.sendall(b"secret")
                assert sock.recv(1) == b""
            assert listener.stats()[2] == 0
        listener.gate = lambda: True
        assert ask(listener, b"open") == b"open"


def test_a_taken_port_is_in_use(forwarder: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(errors.PortInUse):
        forwarder.listen(taken.getsockname()[1], ("127.0.0.1", 1), strict=True)


def test_half_close(forwarder: Engine, name: EngineName, request: pytest.FixtureRequest) -> None:
    if name == "sshtunnel":
        request.applymarker(pytest.mark.xfail(reason="known: sshtunnel ends both directions at once", strict=True))

    def handler(connection: socket.socket) -> None:
        received = read_all(connection)
        connection.sendall(b"got " + received)

    with serving(handler) as target, connect(forwarder.listen(0, target)) as sock:
        sock.sendall(b"question")
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            assert read_all(sock) == b"got question"
            return
        pytest.fail("reset")


def test_connections_wait_for_the_next_link(
    forwarder: Engine, name: EngineName, sshd: Sshd, request: pytest.FixtureRequest
) -> None:
    if name == "sshtunnel":
        request.applymarker(pytest.mark.xfail(reason="known: its listeners end with the link", strict=True))
    with serving(echo) as target, contextlib.closing(sshd.open()) as second:
        listener = forwarder.listen(0, target)
        forwarder.detach()
        with connect(listener) as sock:
            sock.sendall(b"held")
            forwarder.attach(second)
            assert sock.recv(10) == b"held"


def test_unix_sockets(forwarder: Engine, name: EngineName) -> None:
    if name == "sshtunnel":
        with pytest.raises(errors.UsageFault, match="only to ports"):
            forwarder.listen(0, "/tmp/socket")
    else:
        assert forwarder.listen(0, "/tmp/socket").target == "/tmp/socket"
