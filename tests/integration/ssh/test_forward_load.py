"""The forwarder under load, against a real sshd and real programs behind it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from jupyman.ssh.forward.forwarder import Forwarder
from tests.bed.sockets import connect, echo, ping, read_all, send_all, serving
from tests.bed.sshd import Sshd, private_sshd
from tests.bed.wait import wait_until
from tests.bench.host import target
from tests.bench.traffic import Beside, call

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset


pytestmark = pytest.mark.usefixtures("packets")


# --- many, and slow -----------------------------------------------------------------------------------------------


def test_a_thousand_connections_at_once(many_files: None, tmp_path: Path) -> None:
    count = 1000
    with (
        private_sshd(tmp_path / "bed") as sshd,
        contextlib.closing(sshd.open()) as link,
        target("echo") as port,
        contextlib.ExitStack() as stack,
        selectors.DefaultSelector() as selector,
    ):
        one = Forwarder("many")
        stack.callback(one.close)
        one.attach(link)
        listener = one.listen(0, ("127.0.0.1", port))
        rounds: dict[int, int] = {}
        clients: list[socket.socket] = []
        threads = threading.active_count()
        for number in range(count):
            sock = stack.enter_context(socket.socket())
            clients.append(sock)
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", listener.local_port))
            selector.register(sock, selectors.EVENT_WRITE, number)
            rounds[number] = 0
        deadline = time.monotonic() + 60
        finished = 0
        while finished < count:
            assert time.monotonic() < deadline, f"{finished} of {count}"
            for key, mask in selector.select(1):
                sock, number = key.fileobj, key.data  # type: ignore[assignment]  # it was registered above
                if mask & selectors.EVENT_READ:
                    assert sock.recv(1) == b"x"
                    rounds[number] += 1
                if rounds[number] == 4:
                    selector.unregister(sock)
                    finished += 1
                    continue
                sock.send(b"x")
                selector.modify(sock, selectors.EVENT_READ, number)
        assert listener.open == count
        assert threading.active_count() <= threads
        for client in clients:
            client.close()
        wait_until(lambda: listener.open == 0, what="the end of every connection")
        assert listener.stats() == (0, 4 * count, 4 * count)


def test_one_thread_for_the_forwards_of_all_hosts(sshd: Sshd) -> None:
    with contextlib.ExitStack() as stack, serving(echo) as place:
        for number in range(3):
            link = stack.enter_context(contextlib.closing(sshd.open()))
            one = Forwarder(f"host{number}")
            stack.callback(one.close)
            one.attach(link)
            assert all(ping(one.listen(0, place)) == b"ping" for _ in range(10))
        named = [thread for thread in threading.enumerate() if thread.name.startswith("forwards")]
        assert len(named) == 1


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_gibibyte_keeps_every_bit(forwarder: Forwarder, direction: str) -> None:
    with target("bulk") as port:
        listener = forwarder.listen(0, ("127.0.0.1", port))
        call(direction, port=listener.local_port, size=1 << 30, hashed=True)


def test_a_storm_of_connections(forwarder: Forwarder) -> None:
    """Opened, used, and ended in every way, many at once; none is left over."""

    def handler(connection: socket.socket) -> None:
        word = connection.recv(1)
        if word == b"r":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif word == b"e":
            connection.sendall(word)

    def one(number: int) -> None:
        with connect(listener) as sock:
            word = b"erx"[number % 3 : number % 3 + 1]
            if number % 4 == 3:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return
            sock.sendall(word)
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1) == (b"e" if word == b"e" else b"")

    with serving(handler) as place, ThreadPoolExecutor(8) as pool:
        listener = forwarder.listen(0, place)
        list(pool.map(one, range(600)))
        wait_until(lambda: listener.open == 0)
        assert ping(listener, b"e") == b"e"


@pytest.mark.parametrize("direction", ["down", "up"])
def test_bulk_does_not_starve_other_connections(forwarder: Forwarder, direction: str) -> None:
    with target("bulk") as bulk, target("echo") as small:
        large, quick = (forwarder.listen(0, ("127.0.0.1", port)) for port in (bulk, small))
        with Beside("load", port=large.local_port, direction=direction), ThreadPoolExecutor(4) as pool:
            # Each waits at most for what is on its way before it: never for the end of the transfer, which has none.
            took = pool.map(lambda _: call("ping", port=quick.local_port, count=50, limit=30.0), range(4))
            assert [len(one) for one in took] == [50] * 4
            moved = large.stats()[1:]
            wait_until(lambda: large.stats()[1:] != moved)


def test_a_slow_reader_costs_bounded_memory_and_delays_no_other_connection(forwarder: Forwarder) -> None:
    sent = [0]

    def flood(connection: socket.socket) -> None:
        block = bytes(1 << 20)
        while sent[0] < 200 << 20:
            connection.sendall(block)
            sent[0] += len(block)

    with serving(flood) as target, serving(echo) as other:
        slow, quick = forwarder.listen(0, target), forwarder.listen(0, other)
        before = psutil.Process().memory_info().rss
        with connect(slow):
            seen = -1
            while seen != sent[0]:  # until the windows are full
                seen = sent[0]
                threading.Event().wait(0.5)
            assert 0 < seen < 60 << 20
            start = time.monotonic()
            assert ping(quick) == b"ping"
            assert time.monotonic() - start < 1
            assert psutil.Process().memory_info().rss - before < 80 << 20
        wait_until(lambda: slow.open == 0)


def test_a_slow_target_delays_no_other_connection(forwarder: Forwarder) -> None:
    def deaf(connection: socket.socket) -> None:
        release.wait(20)

    release = threading.Event()
    with serving(deaf) as target, serving(echo) as other:
        stuck, quick = forwarder.listen(0, target), forwarder.listen(0, other)
        with connect(stuck) as sock:
            sock.setblocking(False)
            pushed, quiet = 0, 0
            while quiet < 10:  # until the window and all buffers are full
                try:
                    pushed += sock.send(bytes(1 << 18))
                    quiet = 0
                except BlockingIOError:
                    quiet += 1
                    threading.Event().wait(0.05)
            assert pushed < 60 << 20
            before = time.process_time()
            assert ping(quick) == b"ping"
            threading.Event().wait(1)  # the measured time itself: a full window must not be polled
            assert time.process_time() - before < 0.3
        release.set()
        wait_until(lambda: stuck.open == 0)


def test_a_window_that_opens_again_resumes_the_stream(forwarder: Forwarder) -> None:
    go = threading.Event()
    received: list[int] = []

    def late(connection: socket.socket) -> None:
        go.wait(20)
        received.append(len(read_all(connection)))
        connection.sendall(b"done")

    size = 12 << 20  # more than sshd's window and every buffer
    with serving(late) as target, ThreadPoolExecutor(1) as pool:
        listener = forwarder.listen(0, target)
        with connect(listener) as sock:
            sock.settimeout(30)
            sending = pool.submit(send_all, sock, bytes(size))
            last = -1
            while last != listener.bytes_out:
                last = listener.bytes_out
                threading.Event().wait(0.3)
            assert 0 < last < size
            go.set()
            assert read_all(sock) == b"done"
            sending.result()
    assert received == [size]


def test_idle_connections_cost_nothing(forwarder: Forwarder) -> None:
    with serving(echo) as target, contextlib.ExitStack() as stack:
        listener = forwarder.listen(0, target)
        for _ in range(100):
            sock = stack.enter_context(connect(listener))
            sock.sendall(b"x")  # answered: the server is idle too, which runs in this process
            assert sock.recv(1) == b"x"
        wait_until(lambda: listener.open == 100 and not forwarder._timed)
        before = time.process_time()
        threading.Event().wait(2)  # the measured time itself
        assert (time.process_time() - before) / 2 < 0.005
