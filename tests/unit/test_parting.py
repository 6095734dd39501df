"""What becomes of a local connection whose link is lost: nobody loses what nobody has heard yet."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jupyman.core import away
from jupyman.ssh.channel import Channel, Receiver
from jupyman.ssh.channels import Channels
from jupyman.ssh.forward import Forwarder, Listener
from jupyman.ssh.loop import Loop, shared
from jupyman.ssh.windows import WINDOW
from tests.bed.wait import wait_until

from .packets import Pair, pair

OPENED, DATA, EOF, CLOSE = 91, 94, 96, 97
ASKS = b"GET /lab HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n"


class Host:
    """The other end of a link, by hand."""

    def __init__(self, ends: Pair) -> None:
        self._ends = ends
        self.channels = Channels(ends.ours.outbox)

    def channel(self, loop: Loop, receiver: Receiver) -> Channel:
        return self.channels.channel(loop, receiver)

    def asked(self) -> int:
        """Wait until a channel is asked for; return its number."""
        kind, message = self._ends.other.read_message()
        assert kind == 90
        message.get_text()
        number: int = message.get_int()
        return number

    def opens(self, number: int) -> None:
        self.says(OPENED, number, struct.pack(">III", 7, 1 << 21, 32768))

    def hears(self) -> bytes:
        """Wait for data on a channel."""
        kind, message = self._ends.other.read_message()
        assert (kind, message.get_int()) == (DATA, 7)
        data: bytes = message.get_binary()
        return data

    def says(self, kind: int, number: int, rest: bytes = b"") -> None:
        self.channels.message(kind, number, memoryview(struct.pack(">BI", kind, number) + rest))

    def sends(self, number: int, data: bytes) -> None:
        for at in range(0, len(data), 32768):
            self.channels.data(number, [memoryview(data)[at : at + 32768]])


@pytest.fixture
def host() -> Iterator[Host]:
    with pair() as ends:
        yield Host(ends)


@pytest.fixture
def other() -> Iterator[Host]:
    with pair() as ends:
        yield Host(ends)


@contextmanager
def forwarding(host: Host) -> Iterator[tuple[Forwarder, Listener, socket.socket]]:
    """A forward through a link, and a local program that has asked something."""
    forwarder = Forwarder("test")
    facts = away.Facts("session", "server1", "the link is lost")
    try:
        listener = forwarder.listen(0, ("127.0.0.1", 80))
        listener.respond = lambda head, waited: away.answer(head, facts, waited)
        forwarder.attach(host)
        with socket.socket() as local:
            local.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            local.settimeout(10)
            local.connect(("127.0.0.1", listener.local_port))
            local.sendall(ASKS)
            yield forwarder, listener, local
    finally:
        forwarder.close()


def test_a_connection_that_was_being_opened_waits_for_the_next_link(host: Host, other: Host) -> None:
    with forwarding(host) as (forwarder, listener, local):
        host.asked()
        host.channels.lose()
        forwarder.detach()
        forwarder.attach(other)
        other.opens(number := other.asked())
        assert other.hears() == ASKS
        other.sends(number, b"answer")
        assert local.recv(100) == b"answer"
        assert listener.refused == 0


def test_in_a_black_hole_it_is_answered_soon(host: Host) -> None:
    """Its link is given up without a word of the host."""
    with forwarding(host) as (forwarder, listener, local):
        host.asked()
        alarms = shared()._alarms
        wait_until(
            lambda: alarms.get(forwarder, 0.0) > time.monotonic() + 5, what="that only the far end is waited for"
        )
        forwarder.detach()
        host.channels.lose()
        assert local.recv(1000).startswith(b"HTTP/1.1 503")
        assert listener.refused == 0


def test_what_has_come_as_a_whole_is_delivered_as_a_whole(host: Host) -> None:
    """To a slow reader, whose host was done before the link was lost."""
    data = bytes(range(256)) * (WINDOW // 256)
    with forwarding(host) as (forwarder, _, local):
        host.opens(number := host.asked())
        assert host.hears() == ASKS
        [stream] = forwarder._streams
        stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        host.sends(number, data)
        host.says(EOF, number)
        host.says(CLOSE, number)
        assert stream._delivery.behind
        forwarder.detach()
        host.channels.lose()
        got = b""
        while piece := local.recv(1 << 16):
            got += piece
        assert got == data
