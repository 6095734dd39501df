"""What leaves a connection when its socket is full, its threads meet in odd moments, and files run out."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import psutil
import pytest

from jupyman.ssh.wire import sender as module
from jupyman.ssh.wire.sender import FLOOD, PacketSender
from tests.bed.wait import wait_until

ANSWER = b"\x64\0\0\0\1"  # CHANNEL_FAILURE: what a host may ask for as often as it likes


class Ends:
    """A sender, and the other end of its connection."""

    def __init__(self, ours: socket.socket, host: socket.socket) -> None:
        self.host = host
        self.ours = ours
        self.box = PacketSender(ours)

    def fill(self) -> None:
        """Have the socket take nothing more."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.ours.send(bytes(4096))

    def drain(self) -> None:
        """Have the host read all that is there."""
        with contextlib.suppress(BlockingIOError):
            while self.host.recv(1 << 20):
                pass


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, host = socket.socketpair()
    with ours, host:
        ours.setblocking(False)
        host.setblocking(False)
        yield Ends(ours, host)


def test_a_caller_without_room_is_woken_even_if_another_thread_makes_it(ends: Ends) -> None:
    """A waiting thread sends the packet between the moment when it is stuck and the call of `on_stuck`."""
    called = threading.Event()
    seen: list[bool] = []

    def on_stuck() -> None:
        # All of it happens before `on_stuck` returns.
        ends.drain()
        ends.box.flush()
        seen.append(ends.box.room)
        called.set()

    ends.fill()
    ends.box.on_stuck = on_stuck
    before = ends.box._notify

    def interrupted(stuck: bool) -> None:
        assert not ends.box.room  # what a forwarder sees just now: it waits for a call
        ends.drain()
        ends.box.flush()  # another thread's wait
        before(stuck)

    ends.box._notify = interrupted  # type: ignore[method-assign]  # the moment cannot be had otherwise
    ends.box.send(b"\x02" + bytes(100), wait=False)
    assert called.is_set()
    assert seen == [True]


def test_waiting_needs_no_file_descriptor(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    ends.fill()
    before = psutil.Process().num_fds()
    during: list[int] = []
    select = module._Selector.select

    def look(selector: object, timeout: float | None = None) -> object:
        during.append(psutil.Process().num_fds())
        ends.drain()
        return select(selector, timeout)  # type: ignore[arg-type]  # its own

    monkeypatch.setattr(module._Selector, "select", look)
    ends.box.send(b"\x02" + bytes(100), wait=True)
    assert during
    assert max(during) == before


@pytest.mark.parametrize("exchanging", [False, True])
def test_small_answers_are_bounded_by_what_they_cost(ends: Ends, exchanging: bool) -> None:
    """Each is a few bytes for the host, and some hundred in our memory."""
    if exchanging:
        ends.box.send(b"\x14 KEXINIT", wait=False)
    ends.fill()
    count = 0
    while not ends.box._broken:
        ends.box.send(ANSWER, wait=False)
        count += 1
        assert count < FLOOD // 200


def test_a_direction_that_is_closed_ends_the_other(ends: Ends) -> None:
    """Otherwise the reader would keep a dead link."""
    ends.ours.shutdown(socket.SHUT_WR)
    ends.box.send(b"\x02" + bytes(100), wait=False)
    wait_until(lambda: ends.ours.recv(1) == b"", what="the end of what comes")
