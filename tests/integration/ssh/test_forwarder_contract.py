"""The contract of all forwarders, ours and others; engines.py lists the known failures of each."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.bed.sockets import echo, read_all, serving
from tests.bed.sshd import Sshd
from tests.integration.ssh import fabric_ports
from tests.integration.ssh.engines import NAMES, Listen, Local, Name, expect, listening
from tests.integration.ssh.fabric_ports import Ports

PATIENCE = 5.0  # seconds; what does not come by then does not come


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> Name:
    chosen: Name = request.param
    expect(request, chosen)
    return chosen


@pytest.fixture(scope="module")
def fabric(shared_sshd: Sshd) -> Iterator[Ports]:
    with fabric_ports.running(shared_sshd) as ports:
        yield ports


@pytest.fixture
def listen(name: Name, sshd: Sshd, fabric: Ports) -> Iterator[Listen]:
    with listening(name, sshd, fabric) as one:
        yield one


def connect(local: Local, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((address, local.local_port), timeout=PATIENCE)


def receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (chunk := sock.recv(min(65536, size - len(data)))):
        data += chunk
    return bytes(data)


def ask(local: Local, text: bytes) -> bytes:
    """Send, and read as much from an echo."""
    with connect(local) as sock, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(sock.sendall, text)
        answer = receive(sock, len(text))
        sending.result()
        return answer


# --- bytes ----------------------------------------------------------------------------------------------------------


def test_sizes_around_the_packets(listen: Listen) -> None:
    with serving(echo) as target:
        local = listen(target)
        for size in (1, 32767, 32769, 65535, 65536, 65537, 131073, 262145):
            data = os.urandom(size)
            assert ask(local, data) == data, size


def test_a_connection_without_data(listen: Listen) -> None:
    said: list[bytes] = []
    over = threading.Event()

    def handler(connection: socket.socket) -> None:
        said.append(read_all(connection))
        over.set()

    # It stays until the far end has seen its end: who is gone at once could be anybody, and is refused.
    with serving(handler) as target, connect(listen(target)) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert over.wait(PATIENCE)
    assert said == [b""]


def test_random_pieces_both_ways_at_once(listen: Listen) -> None:
    size = 700_000
    ours, theirs = random.Random(1).randbytes(size), random.Random(2).randbytes(size)

    def pieces(sock: socket.socket, data: bytes, seed: int) -> None:
        chosen, at = random.Random(seed), 0
        while at < len(data):
            step = chosen.choice((1, 100, 5000, 65536, 100_000))
            sock.sendall(data[at : at + step])
            at += step

    heard: list[bytes] = []
    over = threading.Event()

    def handler(connection: socket.socket) -> None:
        with ThreadPoolExecutor(1) as pool:
            saying = pool.submit(pieces, connection, theirs, 3)
            heard.append(receive(connection, size))
            saying.result()
        over.set()
        connection.recv(1)

    with serving(handler) as target, connect(listen(target)) as sock, ThreadPoolExecutor(1) as pool:
        sock.settimeout(30)
        saying = pool.submit(pieces, sock, ours, 4)
        assert hashlib.sha256(receive(sock, size)).digest() == hashlib.sha256(theirs).digest()
        saying.result()
        assert over.wait(30)
    assert hashlib.sha256(heard[0]).digest() == hashlib.sha256(ours).digest()


# --- ends -----------------------------------------------------------------------------------------------------------


def test_the_local_end_comes_first(listen: Listen) -> None:
    def handler(connection: socket.socket) -> None:
        received = read_all(connection)
        connection.sendall(b"got " + received)

    with serving(handler) as target, connect(listen(target)) as sock:
        sock.sendall(b"question")
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = read_all(sock)
        assert answer == b"got question"


def test_the_hosts_end_comes_first(listen: Listen) -> None:
    received: list[bytes] = []
    done = threading.Event()

    def handler(connection: socket.socket) -> None:
        connection.sendall(b"greeting")
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            received.append(read_all(connection))
        done.set()

    with serving(handler) as target, connect(listen(target)) as sock:
        assert read_all(sock) == b"greeting"
        with contextlib.suppress(ConnectionError):
            for _ in range(10):
                sock.sendall(b"late " * 5000)
            sock.shutdown(socket.SHUT_WR)
        assert done.wait(PATIENCE)
    assert received == [b"late " * 50_000]


def test_a_reset_by_the_target_ends_the_connection(listen: Listen) -> None:
    def handler(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serving(handler) as target, connect(listen(target)) as sock:
        sock.sendall(b"x")
        with contextlib.suppress(ConnectionError):
            assert sock.recv(10) == b""


def test_a_refused_target_then_a_good_one(listen: Listen) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = free.getsockname()
    local = listen(place)  # nobody is there
    with contextlib.suppress(ConnectionError):
        assert ask(local, b"x") == b""
    server = socket.create_server(place)
    with server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                echo(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert ask(local, b"good") == b"good"
        thread.join(PATIENCE)


def test_a_link_that_is_killed_ends_its_connections(listen: Listen, sshd: Sshd) -> None:
    started = threading.Event()

    def flood(connection: socket.socket) -> None:
        connection.recv(1)
        for _ in range(200):
            connection.sendall(bytes(1 << 20))
            started.set()

    with serving(flood) as target, connect(listen(target)) as sock:
        sock.sendall(b"x")
        assert sock.recv(1000)
        assert started.wait(PATIENCE)
        sshd.signal_children(signal.SIGKILL)
        received = 0
        with contextlib.suppress(ConnectionError):
            while chunk := sock.recv(1 << 18):
                received += len(chunk)
        assert received < 200 << 20


def test_parted_from_the_host_it_goes_on_listening(listen: Listen) -> None:
    with serving(echo) as target:
        local = listen(target)
        with connect(local) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            local.gate = lambda: False
            local.detach()
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1) == b""
        local.gate = lambda: True
        assert ask(local, b"again") == b"again"


# --- places ---------------------------------------------------------------------------------------------------------


def test_a_target_on_ipv6(listen: Listen) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                echo(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert ask(listen(("::1", server.getsockname()[1])), b"six") == b"six"
        thread.join(PATIENCE)


def test_the_listener_may_be_on_ipv6(listen: Listen) -> None:
    with serving(echo) as target, connect(listen(target, "::1"), "::1") as sock:
        sock.sendall(b"six")
        assert sock.recv(10) == b"six"


def test_a_unix_socket_is_a_target(listen: Listen, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with serving(echo, path):
        assert ask(listen(path), b"path") == b"path"


# --- many, and slow -------------------------------------------------------------------------------------------------


def test_one_after_another(listen: Listen) -> None:
    with serving(echo) as target:
        local = listen(target)
        for number in range(40):
            assert ask(local, b"%d" % number) == b"%d" % number


def test_from_several_at_once(listen: Listen) -> None:
    with serving(echo) as target, ThreadPoolExecutor(4) as pool:
        local = listen(target)
        words = [b"%d" % number * 100 for number in range(60)]
        assert list(pool.map(lambda word: ask(local, word), words)) == words


def test_a_slow_reader_delays_no_other_connection(listen: Listen) -> None:
    def flood(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for _ in range(100):
                connection.sendall(bytes(1 << 20))

    with serving(flood) as target, serving(echo) as other:
        slow, quick = listen(target), listen(other)
        with connect(slow) as sock:
            assert sock.recv(1)
            threading.Event().wait(0.3)  # for the buffers to fill
            assert ask(quick, b"quick") == b"quick"
