"""The far end of a link, played by hand, and a forward that leads to it."""

from __future__ import annotations

import functools
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from jupyman.core.sessions import outage_page
from jupyman.ssh.channels.mux import ChannelMux
from jupyman.ssh.forward.forwarder import Forwarder
from jupyman.ssh.forward.listener import Listener
from jupyman.ssh.io.loop import shared
from tests.unit.ssh.packets import Pair

OPENED, DATA, EOF, CLOSE = 91, 94, 96, 97
ASKS = b"GET /lab HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n\r\n"


class Host:
    """The far end of a link."""

    def __init__(self, ends: Pair) -> None:
        self._ends = ends
        self.channels = ChannelMux(ends.ours.sender, shared())

    def next_open(self) -> int:
        """Wait for the next CHANNEL_OPEN; return the channel's number."""
        kind, message = self._ends.other.read_message()
        assert kind == 90
        message.get_text()
        number: int = message.get_int()
        return number

    def confirm(self, number: int) -> None:
        self.send(OPENED, number, struct.pack(">III", 7, 1 << 21, 32768))

    def next_data(self) -> bytes:
        """Wait for data on a channel, and return it."""
        kind, message = self._ends.other.read_message()
        assert (kind, message.get_int()) == (DATA, 7)
        data: bytes = message.get_binary()
        return data

    def next_other(self) -> int:
        """Wait for a message other than data, and return its type."""
        kind, message = self._ends.other.read_message()
        assert (kind != DATA, message.get_int()) == (True, 7)
        found: int = kind
        return found

    def send(self, kind: int, number: int, rest: bytes = b"") -> None:
        message = memoryview(struct.pack(">BI", kind, number) + rest)
        shared().call(lambda: self.channels.message(kind, number, message))

    def send_data(self, number: int, data: bytes) -> None:
        for at in range(0, len(data), 32768):
            shared().call(functools.partial(self.channels.data, number, [memoryview(data)[at : at + 32768]]))


@contextmanager
def forwarding(
    host: Host, asks: bytes = ASKS, *, silent: bool = False
) -> Iterator[tuple[Forwarder, Listener, socket.socket]]:
    """A forward over a link, and a local program that has sent a request.

    Args:
        host: at the end of the link.
        asks: what the local program sends first.
        silent: the outage page has to say that the host is silent, not that the link is lost.
    """
    forwarder = Forwarder("test")
    facts = outage_page.OutageFacts("session", "server1", "the link is lost", silent=silent)
    try:
        listener = forwarder.listen(0, ("127.0.0.1", 80))
        listener.respond = lambda head, waited: outage_page.answer(head, facts, waited)
        forwarder.attach(host.channels)
        with socket.socket() as local:
            local.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            local.settimeout(10)
            local.connect(("127.0.0.1", listener.local_port))
            local.sendall(asks)
            yield forwarder, listener, local
    finally:
        forwarder.close()
