"""The packetizer after the login: the loop reads for Transport's thread, which the test plays."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import paramiko
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from paramiko.message import Message

from jupyman.ssh.io.loop import READ, shared
from jupyman.ssh.wire import packetizer
from jupyman.ssh.wire.messages import FIRST_CHANNEL, TURN
from tests.bed.wait import wait_until
from tests.unit.ssh.packets import GCM, Pair, pair, text

NEWKEYS, LOGGED_IN, OTHER, ADJUST = 21, 52, 2, 93


@pytest.fixture
def ends() -> Iterator[Pair]:
    """Yield a pair on which USERAUTH_SUCCESS was just taken, so that the next call hands over to the loop."""
    with pair(GCM) as made:
        made.ours.loop = shared()
        made.other.send_message(Message(bytes([LOGGED_IN])))
        assert made.ours.read_message()[0] == LOGGED_IN
        yield made
        made.ours.close()
        shared().call(lambda: None)


def send(ends: Pair, number: int) -> None:
    ends.other.send_message(Message(bytes([OTHER]) + b"%d" % number))


def test_messages_come_in_order(ends: Pair) -> None:
    for number in range(10):
        send(ends, number)
    assert [text(ends.ours.read_message()[1]) for _ in range(10)] == [b"%d" % number for number in range(10)]
    assert ends.ours.mask == READ


def test_nothing_is_opened_between_newkeys_and_the_new_keys(ends: Pair) -> None:
    """What follows NEWKEYS is there at once, and sealed with keys that Transport sets after it has taken NEWKEYS."""
    send(ends, 1)
    ends.other.send_message(Message(bytes([NEWKEYS])))
    key, iv = os.urandom(16), os.urandom(12)
    ends.other.set_outbound_cipher(AESGCM(key), 16, None, 16, None, aead=True, iv_out=iv)
    for number in range(2, 5):
        send(ends, number)
    assert text(ends.ours.read_message()[1]) == b"1"
    assert ends.ours.read_message()[0] == NEWKEYS
    shared().call(lambda: None)
    assert ends.ours.mask == 0
    ends.ours.set_inbound_cipher(AESGCM(key), 16, None, 16, None, aead=True, iv_in=iv)
    assert [text(ends.ours.read_message()[1]) for _ in range(3)] == [b"2", b"3", b"4"]


def test_what_transport_does_not_take_stays_in_the_socket(ends: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packetizer, "QUEUE", 5)
    count = 50
    for number in range(count):
        send(ends, number)
    assert text(ends.ours.read_message()[1]) == b"0"
    wait_until(lambda: ends.ours.mask == 0, what="the loop to stop")
    assert ends.ours._queue.qsize() <= packetizer.QUEUE + 1
    assert [text(ends.ours.read_message()[1]) for _ in range(count - 1)] == [
        b"%d" % number for number in range(1, count)
    ]


def test_a_damaged_packet_is_raised_in_transports_thread(ends: Pair) -> None:
    send(ends, 1)
    assert text(ends.ours.read_message()[1]) == b"1"
    ends.sockets[1].sendall(b"\0\0\0\x20" + bytes(48))
    with pytest.raises(paramiko.SSHException, match="tag"):
        ends.ours.read_message()


def test_closing_wakes_a_waiting_thread(ends: Pair) -> None:
    raised: list[BaseException] = []

    def read() -> None:
        try:
            ends.ours.read_message()
        except EOFError as error:
            raised.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    wait_until(lambda: ends.ours.mask == READ, what="the loop to read")
    ends.ours.close()
    reading.join(10)
    assert len(raised) == 1
    shared().call(lambda: None)
    assert (ends.ours.mask, ends.ours.sock.fileno()) == (0, -1)


class Counting:
    """The router, which counts; and another socket of the loop, which notes how many came before its turn.

    Args:
        sock: that other socket.
        on_first: called with the first message.
    """

    first = False

    def __init__(self, sock: socket.socket, on_first: Callable[[], object]) -> None:
        self.sock = sock
        self.mask = 0
        self.count = 0
        self.served: int | None = None
        self._on_first = on_first

    def data(self, number: int, views: list[memoryview]) -> None:
        raise AssertionError((number, views))

    def message(self, kind: int, number: int, payload: memoryview) -> None:
        assert (kind, number, len(payload)) == (ADJUST, FIRST_CHANNEL, 9)
        self.count += 1
        if self.count == 1:
            self._on_first()

    def ready(self, mask: int) -> None:
        self.sock.recv(mask)
        self.served = self.count


@pytest.mark.parametrize("marks", [0, 50])
def test_many_small_packets_hold_up_no_other_socket(ends: Pair, monkeypatch: pytest.MonkeyPatch, marks: int) -> None:
    """All are in memory at once, `marks` of them for Transport; the other socket has its turn in between."""
    send(ends, 0)
    assert text(ends.ours.read_message()[1]) == b"0"
    size = 29_000
    sealed = bytearray()
    with monkeypatch.context() as patch:
        patch.setattr(ends.other, "write_all", sealed.extend)
        for number in range(size):
            ends.other.send_message(Message(struct.pack(">BII", ADJUST, FIRST_CHANNEL, 1)))
            if marks and number % (size // marks) == 0:
                send(ends, number)
    other, its = socket.socketpair()
    with other, its:
        router = Counting(other, lambda: its.send(b"x"))
        ends.ours.reader.router = router

        def come() -> None:
            shared().watch(router, READ)
            receiver = ends.ours._receiver
            receiver._resize(len(sealed))
            receiver._view[:] = sealed
            receiver._end = len(sealed)
            ends.ours._drain()

        shared().call(come)
        for number in range(marks):
            assert text(ends.ours.read_message()[1]) == b"%d" % (number * (size // marks))
        wait_until(lambda: router.count == size, what="all to come")
        assert router.served is not None
        assert router.served <= 2 * TURN
        shared().call(lambda: shared().watch(router, 0))
    send(ends, 7)
    assert text(ends.ours.read_message()[1]) == b"7"
