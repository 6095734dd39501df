"""The forwarder's contract, against a real sshd and real programs behind it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jupyman import errors
from jupyman.ssh.forward import forwarder as forward
from jupyman.ssh.forward.forwarder import Forwarder
from jupyman.ssh.link import Link
from jupyman.ssh.streams import relay
from tests.bed.sockets import connect, echo, ping, read_all, send_all, serving
from tests.bed.sshd import Sshd, private_sshd
from tests.bed.wait import wait_until

pytestmark = pytest.mark.usefixtures("packets")


# --- bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 32767, 32768, 32769, 65535, 65536, 65537, 262143, 262144, 262145, 3_000_000])
def test_every_size_arrives_both_ways(forwarder: Forwarder, size: int) -> None:
    data = os.urandom(size)
    with serving(echo) as target, ThreadPoolExecutor(1) as pool:
        listener = forwarder.listen(0, target)
        with connect(listener) as sock:
            sending = pool.submit(send_all, sock, data)
            assert read_all(sock) == data
            sending.result()
        wait_until(lambda: listener.stats() == (0, size, size))


def test_a_unix_socket_is_a_target(forwarder: Forwarder, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with serving(echo, path):
        assert ping(forwarder.listen(0, path)) == b"ping"


def test_large_streams_at_once_keep_their_bytes(forwarder: Forwarder) -> None:
    size = 20 * 1024 * 1024
    block = os.urandom(1024 * 1024)
    expected = hashlib.sha256(block * 20).hexdigest()

    def one(_: int) -> str:
        digest = hashlib.sha256()
        with connect(listener) as sock, ThreadPoolExecutor(1) as sender:
            sock.settimeout(30)

            def send() -> None:
                for _ in range(20):
                    sock.sendall(block)
                sock.shutdown(socket.SHUT_WR)

            sending = sender.submit(send)
            received = 0
            while chunk := sock.recv(1 << 18):
                digest.update(chunk)
                received += len(chunk)
            sending.result()
        assert received == size
        return digest.hexdigest()

    with serving(echo) as target, ThreadPoolExecutor(3) as pool:
        listener = forwarder.listen(0, target)
        assert list(pool.map(one, range(3))) == [expected] * 3


def test_streams_survive_new_keys(tmp_path: Path) -> None:
    data = os.urandom(6_000_000)
    with private_sshd(tmp_path / "bed", "RekeyLimit 1M") as strict, contextlib.closing(strict.open()) as link:
        one = Forwarder("rekey")
        one.attach(link)
        with serving(echo) as target, ThreadPoolExecutor(1) as pool, connect(one.listen(0, target)) as sock:
            sock.settimeout(30)
            sending = pool.submit(send_all, sock, data)
            assert read_all(sock) == data
            sending.result()
        one.close()


# --- ends ---------------------------------------------------------------------------------------------------------


def test_the_local_end_comes_first(forwarder: Forwarder) -> None:
    def handler(connection: socket.socket) -> None:
        received = read_all(connection)
        connection.sendall(b"got " + received)

    with serving(handler) as target:
        assert ping(forwarder.listen(0, target), b"question") == b"got question"


def test_the_hosts_end_comes_first(forwarder: Forwarder) -> None:
    received: list[bytes] = []
    done = threading.Event()

    def handler(connection: socket.socket) -> None:
        connection.sendall(b"greeting")
        connection.shutdown(socket.SHUT_WR)
        received.append(read_all(connection))
        done.set()

    with serving(handler) as target, connect(forwarder.listen(0, target)) as sock:
        assert read_all(sock) == b"greeting"
        sock.sendall(b"late " * 50_000)
        sock.shutdown(socket.SHUT_WR)
        assert done.wait(5)
    assert received == [b"late " * 50_000]


def test_what_was_sent_before_a_full_close_is_delivered_to_a_slow_reader(forwarder: Forwarder) -> None:
    size = 12_000_000  # less than our window, so sshd has read it all when the program's socket is reset
    sent = threading.Event()

    def handler(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"x" * size)
        sent.set()

    with serving(handler) as target, connect(forwarder.listen(0, target)) as sock:
        sock.sendall(b"1")
        assert sent.wait(5)
        pause = threading.Event()
        received = 0
        started = time.monotonic()
        while chunk := sock.recv(1 << 18):
            received += len(chunk)
            if time.monotonic() - started < relay.DRAIN + 0.5:
                pause.wait(0.2)  # a slow program: longer than the drain lasts
                with contextlib.suppress(OSError):
                    sock.sendall(b"nobody takes this: sshd closes the channel")
        assert received == size


def test_a_local_reset_ends_the_hosts_side(forwarder: Forwarder) -> None:
    over = threading.Event()

    def handler(connection: socket.socket) -> None:
        try:
            read_all(connection)
        finally:
            over.set()

    with serving(handler) as target:
        listener = forwarder.listen(0, target)
        sock = connect(listener)
        sock.sendall(b"x")
        wait_until(lambda: listener.bytes_out == 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        assert over.wait(5)
        wait_until(lambda: listener.open == 0)


def test_a_reset_by_the_host_ends_the_local_side(forwarder: Forwarder) -> None:
    def handler(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serving(handler) as target:
        listener = forwarder.listen(0, target)
        with connect(listener) as sock:
            sock.sendall(b"x")
            with contextlib.suppress(ConnectionError):
                assert sock.recv(10) == b""
        wait_until(lambda: listener.open == 0)


def test_a_refused_target_ends_only_that_connection(forwarder: Forwarder) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        listener = forwarder.listen(0, closed.getsockname())
        refused = threading.Event()
        listener.on_refused = refused.set
        assert ping(listener, b"") == b""
        assert refused.wait(20)
        assert listener.open == 0
    with serving(echo) as target:
        listener.retarget(target)
        assert ping(listener) == b"ping"


def test_forwarding_that_sshd_forbids_ends_connections_not_the_link(tmp_path: Path) -> None:
    with private_sshd(tmp_path / "bed", "AllowTcpForwarding no") as strict, contextlib.closing(strict.open()) as link:
        one = Forwarder("strict")
        one.attach(link)
        listener = one.listen(0, ("127.0.0.1", 22))
        assert ping(listener, b"") == b""
        assert link.run("echo on\n", timeout=10).stdout == b"on\n"
        one.close()


# --- links that come and go ---------------------------------------------------------------------------------------


def test_listeners_survive_links(sshd: Sshd) -> None:
    one = Forwarder("survivor")
    with serving(echo) as target:
        listener = one.listen(0, target)
        port = listener.local_port
        with connect(listener) as early, contextlib.closing(sshd.open()) as first:
            early.sendall(b"before any link")
            one.attach(first)
            assert early.recv(100) == b"before any link"
            sshd.signal_children(signal.SIGKILL)
            with contextlib.suppress(ConnectionError):
                assert early.recv(1) == b""
            one.detach()
        with connect(listener) as held, contextlib.closing(sshd.open()) as second:
            held.sendall(b"meanwhile")
            one.attach(second)
            assert held.recv(100) == b"meanwhile"
            assert listener.local_port == port
            start = time.monotonic()
            one.detach()
            with contextlib.suppress(ConnectionError):
                assert held.recv(1) == b""
            assert time.monotonic() - start < 1
    one.close()


def test_a_held_connection_is_closed_when_no_link_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "HOLD", 0.5)
    one = Forwarder("alone")
    listener = one.listen(0, ("127.0.0.1", 1))
    start = time.monotonic()
    assert ping(listener, b"") == b""
    assert 0.4 < time.monotonic() - start < 2
    one.close()


def test_a_stopped_link_does_not_stop_the_listener(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "OPEN_TIMEOUT", 0.5)
    one = Forwarder("stopped")
    with serving(echo) as target:
        listener = one.listen(0, target)
        stuck = sshd.open()
        one.attach(stuck)
        assert ping(listener) == b"ping"
        sshd.signal_children(signal.SIGSTOP)
        assert ping(listener, b"") == b""
        one.detach()
        stuck.close()
        sshd.signal_children(signal.SIGKILL)
        with contextlib.closing(sshd.open()) as fresh:
            one.attach(fresh)
            assert ping(listener) == b"ping"
    one.close()


def test_a_gate_holds_connections_until_it_opens(forwarder: Forwarder) -> None:
    open_now = threading.Event()
    with serving(echo) as target:
        listener = forwarder.listen(0, target)
        listener.gate = open_now.is_set
        with connect(listener) as sock:
            sock.sendall(b"held")
            sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            assert listener.bytes_out == 0
            sock.settimeout(10)
            open_now.set()  # noticed without `wake`
            assert sock.recv(10) == b"held"
        open_now.clear()
        with connect(listener) as sock:
            sock.sendall(b"held again")
            wait_until(lambda: listener.open == 1)
            open_now.set()
            forwarder.wake()
            assert sock.recv(20) == b"held again"

        def broken() -> bool:
            raise RuntimeError("a bug")

        listener.gate = broken
        with connect(listener) as sock:
            sock.settimeout(0.5)
            sock.sendall(b"x")
            with pytest.raises(TimeoutError):
                sock.recv(1)


# --- ports --------------------------------------------------------------------------------------------------------


def test_a_taken_port_is_named_or_avoided(forwarder: Forwarder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.PortInUse, match=rf"local port {port} is taken \(held by .*pid {os.getpid()}\)"):
            forwarder.listen(port, ("127.0.0.1", 1), strict=True)
        other = forwarder.listen(port, ("127.0.0.1", 1))
        assert other.local_port != port
        assert f"pid {os.getpid()}" in other.holder_text


def test_a_port_taken_on_every_address_is_taken(forwarder: Forwarder) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken, pytest.raises(errors.PortInUse):
        forwarder.listen(taken.getsockname()[1], ("127.0.0.1", 1), strict=True)


def test_a_port_can_be_bound_again_at_once(forwarder: Forwarder) -> None:
    with serving(echo) as target:
        listener = forwarder.listen(0, target)
        port = listener.local_port
        with connect(listener) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            listener.close()
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(listener)
        again = forwarder.listen(port, target, strict=True)
        assert again.local_port == port
        assert ping(again) == b"ping"


def test_close_ends_everything(link: Link) -> None:
    one = Forwarder("closing")
    one.attach(link)
    with serving(echo) as target:
        listener = one.listen(0, target)
        with connect(listener) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            one.close()
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(listener)
    listener.close()
    Forwarder("never used").close()
