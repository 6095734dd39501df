"""Channels of ours, with hosts that break the protocol and hosts that are slow."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, TypeVar

import paramiko
import pytest
from paramiko.message import Message

from jupyman.ssh.channels import mux as module
from jupyman.ssh.channels.channel import Channel
from jupyman.ssh.channels.flow_control import WINDOW
from jupyman.ssh.channels.mux import ChannelMux
from jupyman.ssh.forward.forwarder import Forwarder
from jupyman.ssh.io.loop import shared
from jupyman.ssh.wire.messages import FIRST_CHANNEL
from tests.bed.wait import wait_until
from tests.unit.ssh.packets import Pair, pair

OPENED, REFUSED, ADJUST, DATA, EXTENDED, EOF, CLOSE, REQUEST = 91, 92, 93, 94, 95, 96, 97, 98


T = TypeVar("T")


def in_loop(action: Callable[[], T]) -> T:
    """Run something in the loop's thread, as everything is that channels do."""
    results: list[T] = []
    shared().call(lambda: results.append(action()))
    return results[0]


class Local:
    """The near end of a stream: notes every callback."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.size = 0

    def opened(self) -> None:
        self.calls.append("opened")

    def refused(self, reason: str) -> None:
        self.calls.append(f"refused: {reason}")

    def received(self, views: list[memoryview], size: int) -> None:
        self.size += size

    def writable(self) -> None:
        self.calls.append("writable")

    def eof(self) -> None:
        self.calls.append("eof")

    def closed(self) -> None:
        self.calls.append("closed")

    def lost(self) -> None:
        self.calls.append("lost")


class Host:
    """The far end, played by hand."""

    def __init__(self, ends: Pair) -> None:
        self.ends = ends
        self.channels = ChannelMux(ends.ours.sender, shared())

    def ask(self) -> tuple[Channel, Local, int]:
        """Ask for a channel; return it, its near end, and its number."""
        local = Local()
        channel = in_loop(lambda: self.channels.open_stream(("127.0.0.1", 80), local))
        kind, message = self.ends.other.read_message()
        assert kind == 90
        assert message.get_text() == "direct-tcpip"
        return channel, local, message.get_int()

    def open(self, window: int = 1 << 21) -> tuple[Channel, Local, int]:
        """Ask for a channel and confirm it, with 7 as the host's number."""
        channel, local, number = self.ask()
        self.send(OPENED, number, struct.pack(">III", 7, window, 32768))
        return channel, local, number

    def send(self, kind: int, number: int, rest: bytes = b"") -> None:
        message = memoryview(struct.pack(">BI", kind, number) + rest)
        shared().call(lambda: self.channels.message(kind, number, message))

    def data(self, number: int, size: int) -> None:
        self.channels.data(number, [memoryview(bytes(size))])

    def next(self) -> tuple[int, int, Message]:
        """Return the next message to the host: type, number, the rest."""
        kind, message = self.ends.other.read_message()
        return kind, message.get_int(), message


@pytest.fixture
def host() -> Iterator[Host]:
    with pair() as ends:
        yield Host(ends)


def test_numbers_are_never_paramikos_nor_given_twice(host: Host) -> None:
    numbers = [host.ask()[2] for _ in range(5)]
    assert numbers == list(range(FIRST_CHANNEL, FIRST_CHANNEL + 5))
    host.channels._next = module._LAST
    assert host.ask()[2] == module._LAST
    assert host.ask()[2] == FIRST_CHANNEL + 5  # the others are still in use


def test_a_unix_socket_is_asked_for(host: Host) -> None:
    in_loop(lambda: host.channels.open_stream("/run/jupyter.sock", Local()))
    _, message = host.ends.other.read_message()
    assert message.get_text() == "direct-streamlocal@openssh.com"
    number, window, packet = message.get_int(), message.get_int(), message.get_int()
    assert (number, window, packet) == (FIRST_CHANNEL, WINDOW, 128 * 1024)
    assert message.get_text() == "/run/jupyter.sock"


def test_a_whole_life(host: Host) -> None:
    channel, local, number = host.open()
    host.data(number, 1000)
    in_loop(lambda: channel.delivered(1000))
    in_loop(channel.send_eof)
    in_loop(channel.send_eof)
    assert host.next()[:2] == (EOF, 7)
    host.send(EOF, number)
    host.send(CLOSE, number)
    assert host.next()[:2] == (CLOSE, 7)
    in_loop(channel.close)
    assert (local.calls, local.size) == (["opened", "eof", "closed"], 1000)
    with pytest.raises(paramiko.SSHException):
        host.send(CLOSE, number)


def test_closed_here_it_stays_until_the_host_closes_too_and_calls_nobody_back(host: Host) -> None:
    channel, local, number = host.open()
    in_loop(channel.close)
    assert host.next()[:2] == (CLOSE, 7)
    host.data(number, 1000)
    host.send(EOF, number)
    host.send(CLOSE, number)
    assert (local.calls, local.size) == (["opened"], 0)
    with pytest.raises(paramiko.SSHException):
        host.data(number, 1)


def test_given_up_before_it_opens_it_is_closed_when_it_does(host: Host) -> None:
    channel, local, number = host.ask()
    in_loop(channel.close)
    host.send(OPENED, number, struct.pack(">III", 7, 1 << 21, 32768))
    assert host.next()[:2] == (CLOSE, 7)
    host.send(CLOSE, number)
    assert local.calls == []


def test_a_refusal(host: Host) -> None:
    channel, local, number = host.ask()
    host.send(REFUSED, number, struct.pack(">I", 2) + b"\0\0\0\x04\x1b[2J\0\0\0\0")
    assert local.calls == ["refused: Connect failed"]
    with pytest.raises(paramiko.SSHException):
        host.send(REFUSED, number, struct.pack(">I", 2))
    del channel


def test_requests_are_refused_and_what_is_extended_is_dropped(host: Host) -> None:
    _, local, number = host.open()
    host.send(REQUEST, number, b"\0\0\0\x04exec\x00\0\0\0\0")
    host.send(REQUEST, number, b"\0\0\0\x04exec\x01\0\0\0\0")
    assert host.next()[:2] == (100, 7)
    size = WINDOW // 2
    host.send(EXTENDED, number, struct.pack(">II", 1, size) + bytes(size))
    kind, _, message = host.next()
    assert (kind, message.get_int() >= size) == (ADJUST, True)
    assert (local.calls, local.size) == (["opened"], 0)


def test_the_window_is_opened_as_data_is_delivered_and_not_before(host: Host) -> None:
    channel, local, number = host.open()
    host.data(number, WINDOW // 2)
    host.send(REQUEST, number, b"\0\0\0\x01x\x01")
    assert host.next()[0] == 100  # nothing went before
    in_loop(lambda: channel.delivered(WINDOW // 2))
    kind, _, message = host.next()
    assert kind == ADJUST
    assert message.get_int() >= WINDOW // 2
    assert local.size == WINDOW // 2


@pytest.mark.parametrize(
    ("kind", "rest"),
    [
        (ADJUST, struct.pack(">I", 1)),
        (EOF, b""),
        (CLOSE, b""),
        (REQUEST, b"\0\0\0\x01x\x01"),
        (EXTENDED, struct.pack(">II", 1, 0)),
    ],
)
def test_a_message_before_the_channel_is_open_ends_the_connection(host: Host, kind: int, rest: bytes) -> None:
    _, _, number = host.ask()
    with pytest.raises(paramiko.SSHException):
        host.send(kind, number, rest)
    with pytest.raises(paramiko.SSHException):
        host.data(number, 1)
    with pytest.raises(paramiko.SSHException):
        host.send(kind, number + 1, rest)  # never asked for


def test_more_than_the_window_ends_the_connection(host: Host) -> None:
    _, _, number = host.open()
    host.data(number, WINDOW)
    with pytest.raises(paramiko.SSHException, match="window"):
        host.data(number, 1)


def test_data_after_the_end_ends_the_connection(host: Host) -> None:
    _, local, number = host.open()
    host.send(EOF, number)
    with pytest.raises(paramiko.SSHException):
        host.data(number, 1)
    assert local.size == 0


@pytest.mark.parametrize("kind", [OPENED, REFUSED])
def test_an_answer_that_comes_twice_ends_the_connection(host: Host, kind: int) -> None:
    _, _, number = host.open()
    with pytest.raises(paramiko.SSHException):
        host.send(kind, number, struct.pack(">III", 7, 1, 1))


def test_a_host_that_takes_packets_of_nothing_is_left(host: Host) -> None:
    _, _, number = host.ask()
    with pytest.raises(paramiko.SSHException):
        host.send(OPENED, number, struct.pack(">III", 7, 1, 0))


@pytest.mark.parametrize("kind", [OPENED, REFUSED, ADJUST, EXTENDED, REQUEST])
def test_messages_that_are_cut_short_end_the_connection(host: Host, kind: int) -> None:
    _, _, number = host.ask() if kind in {OPENED, REFUSED} else host.open()
    with pytest.raises(paramiko.SSHException):
        host.send(kind, number, b"\0")
    if kind == REQUEST:
        with pytest.raises(paramiko.SSHException):
            host.send(kind, number, struct.pack(">I", 1 << 31))


def test_a_window_cannot_grow_beyond_32_bits(host: Host) -> None:
    channel, _, number = host.open()
    for _ in range(3):
        host.send(ADJUST, number, struct.pack(">I", (1 << 32) - 1))
    assert in_loop(channel.credit) == (1 << 32) - 1


def test_the_end_of_the_connection_reaches_all_channels(host: Host) -> None:
    channel, local, _ = host.open()
    _, waiting, _ = host.ask()
    host.channels.connection_lost()
    shared().call(lambda: None)
    assert local.calls == ["opened", "lost"]
    assert waiting.calls == ["lost"]
    in_loop(channel.close)
    with pytest.raises(ConnectionError):
        in_loop(lambda: host.channels.open_stream(("127.0.0.1", 80), Local()))


def test_windows_grow_together_no_further_than_allowed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPARE", WINDOW)
    channels = ChannelMux(host.ends.ours.sender, shared())
    assert channels.reserve(WINDOW // 2) == WINDOW // 2
    assert channels.reserve(WINDOW) == WINDOW // 2
    assert channels.reserve(WINDOW) == 0
    assert channels.reserve(-WINDOW) == -WINDOW
    assert channels.reserve(1) == 1


def test_a_connection_is_contended_for_a_moment(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    clock: list[float] = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    batch: Any = SimpleNamespace(packets=[])
    one, two = (Channel(host.channels, Local()) for _ in range(2))
    host.channels.send_batch(one, batch)
    host.channels.send_batch(one, batch)
    assert not host.channels.contended
    host.channels.send_batch(two, batch)
    assert host.channels.contended
    clock[0] += module.CONTENDED
    assert not host.channels.contended


def send_from(channel: Channel) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"data")
        channel.send_from(near, 100)


@pytest.mark.parametrize(
    "act",
    [
        send_from,
        lambda channel: channel.send(b"data"),
        lambda channel: channel.send_eof(),
        lambda channel: channel.delivered(WINDOW),
        lambda channel: channel.close(),
    ],
)
@pytest.mark.parametrize("theirs", [True, False], ids=["the host closes", "we close"])
def test_nothing_follows_our_close(host: Host, act: Callable[[Channel], None], theirs: bool) -> None:
    """OpenSSH ends the whole connection when something does."""
    channel, _, number = host.open()
    host.data(number, WINDOW)
    if theirs:
        host.send(CLOSE, number)
    else:
        in_loop(channel.close)
    assert host.next()[:2] == (CLOSE, 7)
    in_loop(lambda: act(channel))
    host.ask()  # which waits for the next message: it is CHANNEL_OPEN


def test_a_host_that_does_not_even_take_the_beginning_of_a_connection_loses_it(host: Host) -> None:
    forwarder = Forwarder("test")
    forwarder.attach(host.channels)
    try:
        listener = forwarder.listen(0, ("127.0.0.1", 80))
        with socket.create_connection(("127.0.0.1", listener.local_port), 10) as local:
            local.settimeout(10)
            local.sendall(b"hello")
            kind, message = host.ends.other.read_message()
            assert kind == 90
            message.get_text()
            [relay] = forwarder._relays
            wait_until(lambda: relay._asked == b"hello", what="what the program sends")
            host.send(OPENED, message.get_int(), struct.pack(">III", 7, 0, 32768))
            assert local.recv(10) == b""
    finally:
        forwarder.close()
