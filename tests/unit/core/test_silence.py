"""Local connections while the host is silent and the link to it stands: nothing is lost, and pages are told."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from jupyman.ssh.io.loop import shared
from jupyman.ssh.streams import relay
from tests.bed.wait import wait_until
from tests.unit.ssh.far_end import ASKS, CLOSE, Host, forwarding
from tests.unit.ssh.packets import pair

API = b"GET /api/kernels HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Mode: cors\r\n\r\n"
OTHER = b"\x00\x01 no HTTP at all"


@pytest.fixture
def host() -> Iterator[Host]:
    with pair() as ends:
        yield Host(ends)


@pytest.fixture
def other() -> Iterator[Host]:
    with pair() as ends:
        yield Host(ends)


def settled() -> None:
    """Return when the loop has done all that it was told until now."""
    shared().call(lambda: None)


def connect(port: int, says: bytes) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), 10)
    made.sendall(says)
    return made


@pytest.mark.parametrize("asks", [API, OTHER])
def test_what_is_new_waits_and_is_carried_when_the_host_answers(host: Host, asks: bytes) -> None:
    with forwarding(host, silent=True) as (forwarder, listener, _):
        host.confirm(host.next_open())
        assert host.next_data() == ASKS
        forwarder.hold()
        with connect(listener.local_port, asks) as late:
            wait_until(lambda: listener.open == 2, what="the second connection")
            forwarder.resume()
            host.confirm(number := host.next_open())
            assert host.next_data() == asks
            host.send_data(number, b"answer")
            assert late.recv(100) == b"answer"


def test_what_is_new_waits_longer_than_for_a_link(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may be silent for longer than a connection waits for a link."""
    monkeypatch.setattr(relay, "HOLD", 0.0)
    with forwarding(host, silent=True) as (forwarder, listener, _):
        host.confirm(host.next_open())
        assert host.next_data() == ASKS
        forwarder.hold()
        settled()
        with connect(listener.local_port, API) as late:
            wait_until(lambda: listener.open == 2, what="the second connection")
            for _ in range(3):
                shared().call(forwarder.due)
            forwarder.resume()
            host.confirm(number := host.next_open())
            assert host.next_data() == API
            host.send_data(number, b"answer")
            assert late.recv(100) == b"answer"


def test_a_page_on_a_new_connection_is_answered_by_us(host: Host) -> None:
    with forwarding(host, silent=True) as (forwarder, listener, _):
        host.confirm(host.next_open())
        assert host.next_data() == ASKS
        forwarder.hold()
        with connect(listener.local_port, ASKS) as page:
            assert page.recv(1000).startswith(b"HTTP/1.1 503")


def test_a_page_on_a_connection_that_is_carried_is_answered_by_us(host: Host) -> None:
    """Browsers keep connections, and ask for the next page on one of them."""
    with forwarding(host, silent=True) as (forwarder, _, local):
        host.confirm(number := host.next_open())
        assert host.next_data() == ASKS
        host.send_data(number, b"HTTP/1.1 204 No Content\r\n\r\n")
        assert local.recv(100).startswith(b"HTTP/1.1 204")
        forwarder.hold()
        settled()
        local.sendall(ASKS)
        assert local.recv(1000).startswith(b"HTTP/1.1 503")
        assert host.next_other() == CLOSE, "the host has heard nothing of it"


@pytest.mark.parametrize("says", [API, b"\x81\x85 a frame of a websocket"])
def test_what_is_carried_goes_on(host: Host, says: bytes) -> None:
    with forwarding(host, silent=True) as (forwarder, _, local):
        host.confirm(number := host.next_open())
        assert host.next_data() == ASKS
        host.send_data(number, b"HTTP/1.1 204 No Content\r\n\r\n")
        assert local.recv(100).startswith(b"HTTP/1.1 204")
        forwarder.hold()
        settled()
        local.sendall(says)
        assert host.next_data() == says, "it is under way"
        forwarder.resume()
        host.send_data(number, b"answer")
        assert local.recv(100) == b"answer"


def test_what_the_host_has_not_opened_is_asked_for_again(host: Host) -> None:
    with forwarding(host, API, silent=True) as (forwarder, _, local):
        first = host.next_open()
        forwarder.hold()
        settled()
        host.confirm(first)
        assert host.next_other() == CLOSE, "nobody wants it any more"
        forwarder.resume()
        host.confirm(second := host.next_open())
        assert second != first
        assert host.next_data() == API
        host.send_data(second, b"answer")
        assert local.recv(100) == b"answer"


def test_after_a_link_that_was_given_up_those_that_waited_get_the_next_one(host: Host, other: Host) -> None:
    with forwarding(host, OTHER, silent=True) as (forwarder, listener, _):
        host.confirm(host.next_open())
        assert host.next_data() == OTHER
        forwarder.hold()
        with connect(listener.local_port, OTHER) as late:
            wait_until(lambda: listener.open == 2, what="the second connection")
            forwarder.detach()
            host.channels.connection_lost()
            forwarder.attach(other.channels)
            other.confirm(number := other.next_open())
            assert other.next_data() == OTHER
            other.send_data(number, b"answer")
            assert late.recv(100) == b"answer"
