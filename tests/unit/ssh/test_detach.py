"""Local connections whose link is lost: what the host has not received is not lost."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from jupyman.ssh.channels.flow_control import WINDOW
from jupyman.ssh.io.loop import shared
from tests.bed.wait import wait_until
from tests.unit.ssh.far_end import ASKS, CLOSE, EOF, Host, forwarding
from tests.unit.ssh.packets import pair


@pytest.fixture
def host() -> Iterator[Host]:
    with pair() as ends:
        yield Host(ends)


@pytest.fixture
def other() -> Iterator[Host]:
    with pair() as ends:
        yield Host(ends)


def test_a_connection_that_was_being_opened_waits_for_the_next_link(host: Host, other: Host) -> None:
    with forwarding(host) as (forwarder, _, local):
        host.next_open()
        host.channels.connection_lost()
        forwarder.detach()
        forwarder.attach(other.channels)
        other.confirm(number := other.next_open())
        assert other.next_data() == ASKS
        other.send_data(number, b"answer")
        assert local.recv(100) == b"answer"


def test_in_a_black_hole_it_is_answered_soon(host: Host) -> None:
    """Its link is given up, and the host never answered."""
    with forwarding(host) as (forwarder, _, local):
        host.next_open()
        alarms = shared()._alarms
        wait_until(
            lambda: alarms.get(forwarder, 0.0) > time.monotonic() + 5, what="that only the far end is waited for"
        )
        forwarder.detach()
        host.channels.connection_lost()
        assert local.recv(1000).startswith(b"HTTP/1.1 503")


def test_what_has_come_as_a_whole_is_delivered_as_a_whole(host: Host) -> None:
    """To a slow reader, whose host was done before the link was lost."""
    data = bytes(range(256)) * (WINDOW // 256)
    with forwarding(host) as (forwarder, _, local):
        host.confirm(number := host.next_open())
        assert host.next_data() == ASKS
        [relay] = forwarder._relays
        relay.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        host.send_data(number, data)
        host.send(EOF, number)
        host.send(CLOSE, number)
        assert relay._writer.pending
        forwarder.detach()
        host.channels.connection_lost()
        got = b""
        while piece := local.recv(1 << 16):
            got += piece
        assert got == data


def test_one_listener_is_detached_and_the_others_go_on(host: Host) -> None:
    """One session is taken down, and another one still uses the host."""
    with forwarding(host) as (forwarder, listener, local), socket.socket() as beside, socket.socket() as late:
        host.confirm(host.next_open())
        assert host.next_data() == ASKS
        other = forwarder.listen(0, ("127.0.0.1", 81))
        beside.settimeout(10)
        beside.connect(("127.0.0.1", other.local_port))
        beside.sendall(b"hello")
        host.confirm(second := host.next_open())
        assert host.next_data() == b"hello"
        listener.gate = lambda: False
        listener.detach()
        assert local.recv(1000).startswith(b"HTTP/1.1 503")
        host.send_data(second, b"answer")
        assert beside.recv(100) == b"answer"
        # It goes on listening, and answers by itself.
        late.settimeout(10)
        late.connect(("127.0.0.1", listener.local_port))
        late.sendall(ASKS)
        assert late.recv(1000).startswith(b"HTTP/1.1 503")
