"""A channel that carries a byte stream: ours, beside paramiko's on the same connection (RFC 4254, section 5).

paramiko's Channel copies every byte twice and hands it from thread to thread. This one neither copies nor waits.
Everything runs in the loop's thread, so whatever is sent and the note that the channel is closed are one step: OpenSSH
ends the whole connection when anything follows our CLOSE.
"""

from __future__ import annotations

import functools
import socket
import struct
import time
from collections.abc import Sequence
from typing import Protocol

import paramiko
from paramiko.common import (
    CONNECTION_FAILED_CODE,
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_FAILURE,
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_FAILURE,
    MSG_CHANNEL_OPEN_SUCCESS,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
)

from jupyman.model.endpoint import LOOPBACK, Target
from jupyman.ssh.channels.flow_control import WINDOW, ReceiveWindow, SendWindow
from jupyman.ssh.streams.byte_stream import StreamReceiver
from jupyman.ssh.wire.batch import PacketBatch, shared_batch

PACKET = 128 * 1024  # bytes of data that we take at once


class ChannelTransport(Protocol):
    """What a channel needs of its connection: `ChannelMux`."""

    @property
    def room(self) -> bool:
        """Whether what is sent now leaves at once."""

    @property
    def contended(self) -> bool:
        """Whether more than one channel has sent data lately."""

    def register(self, channel: Channel) -> int:
        """Enter a channel and return its number; ConnectionError if the connection has ended."""

    def unregister(self, number: int) -> None:
        """Remove a channel that is over."""

    def wait_for_room(self, channel: Channel) -> None:
        """Call the channel's `resume` when there is room again."""

    def schedule(self, channel: Channel) -> None:
        """Call the channel's `due` soon."""

    def round_trip(self, seconds: float) -> float:
        """Note how long the host took to answer; return the shortest time ever: about a round trip."""

    def reserve(self, size: int) -> int:
        """Take bytes from what windows may grow by; return how many were given. A negative size gives them back."""

    def send(self, payload: bytes) -> None:
        """Send a message soon, in order."""

    def send_batch(self, channel: Channel, batch: PacketBatch) -> None:
        """Send what a batch holds, without waiting."""


class Channel:
    """One channel: a `ByteStream`.

    Args:
        transport: its connection.
        receiver: of what comes.
    """

    def __init__(self, transport: ChannelTransport, receiver: StreamReceiver) -> None:
        self._transport = transport
        self._receiver: StreamReceiver | None = receiver  # None: closed by us, and nothing of it matters any more
        self._send_window = SendWindow()
        self._receive_window = ReceiveWindow(transport.reserve)
        self._number = self._remote = 0
        self._packet = 0  # bytes of data that the host takes in one message
        self._opened_at = 0.0  # when it was asked for, on the monotonic clock
        self._open = False  # the host has opened it
        self._waiting = False  # for room on the connection
        self._eof_sent = False
        self._close_sent = False  # or to be sent as soon as it is open
        self._eof_received = False

    # --- the byte stream ----------------------------------------------------------------------------------------------

    def open(self, target: Target) -> None:
        """Ask for it.

        Args:
            target: address as the server sees it, or the path of a UNIX socket there.

        Raises:
            ConnectionError: the connection has ended.
        """
        self._number = self._transport.register(self)
        self._opened_at = time.monotonic()
        kind, address = _open_fields(target)
        numbers = struct.pack(">III", self._number, WINDOW, PACKET)
        self._transport.send(b"".join((bytes([MSG_CHANNEL_OPEN]), kind, numbers, address)))

    def credit(self) -> int:
        """Return the bytes that may be sent now; see `ByteStream.credit`."""
        free = self._send_window.free(contended=self._transport.contended)
        if free == 0:
            self._transport.schedule(self)
        elif not self._transport.room:
            if not self._waiting:
                self._waiting = True
                self._transport.wait_for_room(self)
            return 0
        return free

    def send(self, data: bytes) -> bool:
        """Send a few bytes if the host's window takes them all; return whether it does."""
        if self._close_sent:
            return True
        if not self._send_window.fits(len(data)):
            return False
        self._send_window.take(len(data))
        for at in range(0, len(data), self._packet):
            piece = data[at : at + self._packet]
            self._transport.send(struct.pack(">BII", MSG_CHANNEL_DATA, self._remote, len(piece)) + piece)
        return True

    def send_from(self, sock: socket.socket, limit: int) -> Sequence[memoryview]:
        """Read from a socket and send; see `ByteStream.send_from`."""
        batch = shared_batch()
        size = batch.fill(sock, limit, self._packet)
        if size and not self._close_sent:
            self._send_window.take(size)
            batch.address(self._remote)
            self._transport.send_batch(self, batch)
        return batch.views

    def send_eof(self) -> None:
        """Send nothing more."""
        if not self._eof_sent and not self._close_sent:
            self._eof_sent = True
            self._message(MSG_CHANNEL_EOF)

    def close(self) -> None:
        """Close it; no callback follows."""
        self._receiver = None
        if not self._close_sent:
            self._close_sent = True
            if self._open:  # else as soon as it is
                self._message(MSG_CHANNEL_CLOSE)

    def delivered(self, size: int) -> None:
        """Let the host send more: so many bytes have reached the local program."""
        more = self._receive_window.deliver(size)
        if more and not self._eof_received and not self._close_sent:
            self._message(MSG_CHANNEL_WINDOW_ADJUST, more)

    def _message(self, kind: int, *words: int) -> None:
        self._transport.send(struct.pack(f">BI{len(words)}I", kind, self._remote, *words))

    # --- from the connection ------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """There is room on the connection again."""
        self._waiting = False
        if self._receiver is not None:
            self._receiver.writable()

    def due(self) -> None:
        """Nothing was acknowledged for a while."""
        if self._send_window.lapse() and self._receiver is not None:
            self._receiver.writable()

    def handle_data(self, views: list[memoryview]) -> None:
        """Data has come.

        Raises:
            SSHException: before it was opened, after its end, or more than we allowed.
        """
        size = sum(map(len, views))
        self._count(size)
        if self._receiver is not None:
            self._receiver.received(views, size)

    def _count(self, size: int) -> None:
        if not self._open or self._eof_received:
            raise paramiko.SSHException("the host sent data into a channel that is not open")
        if not self._receive_window.take(size):
            raise paramiko.SSHException("the host sent more data than a channel's window allows")

    def handle(self, kind: int, payload: memoryview) -> None:
        """A message has come.

        Raises:
            SSHException: it makes no sense.
            struct.error, IndexError: it is too short.
        """
        if kind == MSG_CHANNEL_OPEN_SUCCESS:
            self._handle_open(*struct.unpack_from(">III", payload, 5))
        elif kind == MSG_CHANNEL_OPEN_FAILURE:
            self._handle_refusal(*struct.unpack_from(">I", payload, 5))
        elif not self._open:
            raise paramiko.SSHException("the host sent a message for a channel that is not open")
        elif kind == MSG_CHANNEL_WINDOW_ADJUST:
            grown = self._send_window.grow(*struct.unpack_from(">I", payload, 5), contended=self._transport.contended)
            if grown and self._receiver is not None:
                self._receiver.writable()
        elif kind == MSG_CHANNEL_EOF:
            self._eof_received = True
            if self._receiver is not None:
                self._receiver.eof()
        elif kind == MSG_CHANNEL_CLOSE:
            self._handle_close()
        elif kind == MSG_CHANNEL_EXTENDED_DATA:  # a forward has none: dropped
            (size,) = struct.unpack_from(">I", payload, 9)
            self._count(size)
            self.delivered(size)
        elif kind == MSG_CHANNEL_REQUEST:
            (size,) = struct.unpack_from(">I", payload, 5)
            if payload[9 + size] and not self._close_sent:  # an answer is wanted
                self._message(MSG_CHANNEL_FAILURE)

    def _handle_open(self, remote: int, window: int, packet: int) -> None:
        if self._open or packet == 0:
            raise paramiko.SSHException("the host opened a channel twice, or for no data")
        self._remote, self._packet = remote, packet
        self._send_window.open(window, self._transport.round_trip(time.monotonic() - self._opened_at))
        self._open = True
        if self._close_sent:  # nobody waits for it any more
            self._message(MSG_CHANNEL_CLOSE)
        if self._receiver is not None:
            self._receiver.opened()

    def _handle_refusal(self, code: int) -> None:
        if self._open:
            raise paramiko.SSHException("the host refused a channel that is open")
        self._transport.unregister(self._number)
        if self._receiver is not None:
            self._receiver.refused(CONNECTION_FAILED_CODE.get(code, "refused"))

    def _handle_close(self) -> None:
        self._eof_received = True
        if not self._close_sent:
            self._close_sent = True
            self._message(MSG_CHANNEL_CLOSE)
        self._transport.unregister(self._number)
        self._receive_window.close()
        if self._receiver is not None:
            self._receiver.closed()

    def connection_lost(self) -> None:
        """The connection has ended."""
        self._close_sent = True
        if self._receiver is not None:
            self._receiver.lost()


@functools.lru_cache(1024)
def _open_fields(target: Target) -> tuple[bytes, bytes]:
    """Return the kind of channel that leads to an address, and the address as the message that asks for it has it."""
    if isinstance(target, str):  # OpenSSH's PROTOCOL, section 2.4
        return _string("direct-streamlocal@openssh.com"), _string(target) + _string("") + bytes(4)
    address = _string(target[0]) + struct.pack(">I", target[1])
    return _string("direct-tcpip"), address + _string(LOOPBACK) + bytes(4)  # RFC 4254, section 7.2


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">I", len(data)) + data
