"""One thread owns the sockets of all hosts: no host holds up another, and no command of a link its streams."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from jupyman.ssh.forward.forwarder import Forwarder
from jupyman.ssh.link import Link
from jupyman.ssh.wire import packetizer
from tests.bed.sockets import connect, echo, ping, read_all, send_all, serving
from tests.bed.sshd import Sshd, private_sshd
from tests.bed.wait import wait_until
from tests.bench.host import target
from tests.bench.traffic import Beside, call

PINGS = 50


@pytest.fixture(scope="module")
def beds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sshd, Sshd]]:
    folder = tmp_path_factory.mktemp("loop")
    with private_sshd(folder / "busy") as busy, private_sshd(folder / "other") as other:
        yield busy, other


@contextlib.contextmanager
def forwarding(bed: Sshd) -> Iterator[tuple[Link, Forwarder]]:
    with contextlib.closing(bed.open()) as link, contextlib.closing(Forwarder("test")) as forwarder:
        forwarder.attach(link)
        yield link, forwarder


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_busy_host_holds_up_no_other(beds: tuple[Sshd, Sshd], direction: str) -> None:
    with (
        forwarding(beds[0]) as (_, busy),
        forwarding(beds[1]) as (_, other),
        target("bulk") as bulk,
        target("echo") as small,
    ):
        large = [busy.listen(0, ("127.0.0.1", bulk)) for _ in range(3)]
        quick = other.listen(0, ("127.0.0.1", small))
        with contextlib.ExitStack() as stack:
            for one in large:
                stack.enter_context(Beside("load", port=one.local_port, direction=direction))
            took = call("ping", port=quick.local_port, count=PINGS, limit=30.0)
            assert len(took) == PINGS
            moved = [one.stats() for one in large]
            wait_until(lambda: all(one.stats() != before for one, before in zip(large, moved, strict=True)))


def test_a_host_that_stands_still_holds_up_no_other(beds: tuple[Sshd, Sshd]) -> None:
    """Its socket is full, and nothing reads at its end."""
    with forwarding(beds[0]) as (_, stuck), forwarding(beds[1]) as (_, other), serving(echo) as place:
        quick, full = other.listen(0, place), stuck.listen(0, place)
        with connect(full) as sock, ThreadPoolExecutor(1) as pool:
            assert ping(full) == b"ping"
            beds[0].signal_children(signal.SIGSTOP)
            try:
                sock.settimeout(60)
                data = os.urandom(20_000_000)
                sending = pool.submit(send_all, sock, data)
                for _ in range(PINGS):
                    assert ping(quick) == b"ping"
                assert not sending.done()
            finally:
                beds[0].signal_children(signal.SIGCONT)
            assert hashlib.sha256(read_all(sock)).digest() == hashlib.sha256(data).digest()
            sending.result()


def test_what_a_command_prints_and_what_a_stream_carries_share_a_link(
    beds: tuple[Sshd, Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop stops reading while paramiko's thread is behind, and goes on; new keys come in the middle of it."""
    monkeypatch.setattr(packetizer, "REKEY_BYTES", 8_000_000)
    monkeypatch.setattr(packetizer, "QUEUE", 2)
    size = 20_000_000
    data = os.urandom(size)
    with forwarding(beds[0]) as (link, forwarder), serving(echo) as place, ThreadPoolExecutor(2) as pool:
        listener = forwarder.listen(0, place)
        command = pool.submit(link.run, f"head -c {size} /dev/zero\n", timeout=60, limit=2 * size)
        with connect(listener) as sock:
            sock.settimeout(60)
            sending = pool.submit(send_all, sock, data)
            assert hashlib.sha256(read_all(sock)).digest() == hashlib.sha256(data).digest()
            sending.result()
        done = command.result()
        assert (len(done.stdout), done.status) == (size, 0)
        assert link.alive
        wait_until(lambda: listener.open == 0, what="the end of the stream")


def test_a_link_that_is_closed_leaves_no_socket_in_the_loop(beds: tuple[Sshd, Sshd]) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is needed
    for _ in range(5):
        with forwarding(beds[1]) as (link, forwarder), serving(echo) as place:
            assert ping(forwarder.listen(0, place)) == b"ping"
            link.close()
            assert not link.alive
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before + 1, what="the sockets to be closed")  # noqa: PTH208
