"""The forwarder under load, against a real sshd and real programs behind it."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from jupyman.ssh.forward import Forwarder
from jupyman.ssh.link import Link

from .test_ssh_bed import Sshd, connect, echo, ping, read_all, send_all, serving, sshd, until


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("forward") / "bed") as server:
        yield server


@pytest.fixture
def link(bed: Sshd) -> Iterator[Link]:
    opened = bed.open()
    yield opened
    opened.close()


@pytest.fixture
def forwarder(link: Link) -> Iterator[Forwarder]:
    one = Forwarder("test")
    one.attach(link)
    yield one
    one.close()


# --- many, and slow -----------------------------------------------------------------------------------------------


def test_three_hundred_connections_at_once(forwarder: Forwarder) -> None:
    count = 300
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    try:
        with serving(echo) as target, contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            listener = forwarder.listen(0, target)
            threads = threading.active_count()
            rounds = {}
            for number in range(count):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", listener.local_port))
                selector.register(sock, selectors.EVENT_WRITE, number)
                rounds[number] = 0
            deadline = time.monotonic() + 20
            finished = 0
            while finished < count:
                assert time.monotonic() < deadline, f"{finished} of {count}"
                for key, mask in selector.select(1):
                    one, number = key.fileobj, key.data
                    assert isinstance(one, socket.socket)
                    if mask & selectors.EVENT_READ:
                        assert one.recv(1) == b"x"
                        rounds[number] += 1
                    if rounds[number] == 4:
                        selector.unregister(one)
                        finished += 1
                        continue
                    one.send(b"x")
                    selector.modify(one, selectors.EVENT_READ, number)
            assert listener.open == count
            # The echo program has a thread for each; the forwarder has one for all.
            named = [thread for thread in threading.enumerate() if thread.name.startswith("forwards")]
            assert len(named) == 1
            assert threads > 0
        assert until(lambda: listener.stats() == (0, 4 * count, 4 * count))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_slow_reader_costs_bounded_memory_and_holds_up_nobody(forwarder: Forwarder) -> None:
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
        assert until(lambda: slow.open == 0)


def test_a_slow_target_holds_up_nobody(forwarder: Forwarder) -> None:
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
        assert until(lambda: stuck.open == 0)


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
            stack.enter_context(connect(listener))
        assert until(lambda: listener.open == 100 and not forwarder._timed)
        before = time.process_time()
        threading.Event().wait(2)  # the measured time itself
        assert (time.process_time() - before) / 2 < 0.005
