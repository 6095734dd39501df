"""A channel that a forward rides on: ours, beside paramiko's on the same connection (RFC 4254, section 5).

paramiko's Channel copies every byte twice and hands it from thread to thread. This one neither copies nor waits.
"""

from __future__ import annotations

import functools
import struct
import threading
import time
from collections.abc import Callable
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

from jupyman.ssh.channels.flow_control import WINDOW, ReceiveWindow, SendWindow
from jupyman.ssh.wire.batch import PacketBatch

# ("127.0.0.1", 8888), or the path of a UNIX socket on the host.
Address = tuple[str, int] | str

PACKET = 128 * 1024  # bytes of data that we take at once


class Receiver(Protocol):
    """The local end of a channel. Everything is called in the transport's thread and must not wait."""

    def opened(self, channel: Channel) -> None:
        """The host has opened it."""

    def refused(self, channel: Channel, error: Exception) -> None:
        """It has not, or the connection has ended."""

    def data(self, channel: Channel, views: list[memoryview], size: int) -> None:
        """Bytes have come, valid during the call; `Channel.delivered` says when they are delivered."""

    def news(self, channel: Channel) -> None:
        """The host takes more, after it took nothing; or its end has come (`Channel.eof`, `Channel.closed`)."""

    def lost(self, channel: Channel) -> None:
        """The connection has ended."""


class ChannelTransport(Protocol):
    """What a channel needs of its connection: `Channels`."""

    @property
    def room(self) -> bool:
        """Whether what is sent now leaves at once."""

    @property
    def company(self) -> bool:
        """Whether more than one channel has spoken lately."""

    def number(self, channel: Channel) -> int:
        """Enter a channel and return its number; SSHException where the connection has ended."""

    def forget(self, number: int) -> None:
        """A channel is over."""

    def wait(self, resume: Callable[[], None]) -> None:
        """Call `resume` when there is room again."""

    def remind(self, channel: Channel) -> None:
        """Call a channel's `due` soon."""

    def nearer(self, seconds: float) -> float:
        """Note how long the host took to answer; return the shortest ever: about a round trip."""

    def spare(self, size: int) -> int:
        """Take from what windows may grow by."""

    def send(self, payload: bytes) -> None:
        """Send a message, without waiting."""

    def post(self, channel: Channel, tray: PacketBatch) -> None:
        """Send what a tray holds, without waiting."""


class Channel:
    """One channel.

    Args:
        carriage: its connection.
        receiver: of what comes.

    Attributes:
        eof: the host sends nothing more.
        closed: and takes nothing more.
        complete: it said so itself; all that it had to say has come.
        packet: bytes of data that the host takes at once.
    """

    def __init__(self, carriage: ChannelTransport, receiver: Receiver) -> None:
        self.eof = self.closed = self.complete = False
        self.packet = 0
        self._carriage = carriage
        self._receiver = receiver
        self._outward = SendWindow()
        self._inward = ReceiveWindow(carriage.spare)
        self._number = self._remote = 0
        self._asked = 0.0  # when, on the monotonic clock
        # Of the following; held while something is sent: OpenSSH ends the connection where anything follows our CLOSE.
        self._lock = threading.Lock()
        self._active = False  # the host has opened it
        self._ended = False  # EOF sent
        self._over = False  # CLOSE sent, or to be sent as soon as it is open

    # --- from the loop ------------------------------------------------------------------------------------------------

    def open(self, target: Address) -> None:
        """Ask for it.

        Args:
            target: address as the server sees it, or the path of a UNIX socket there.

        Raises:
            SSHException: the connection has ended.
        """
        self._number = self._carriage.number(self)
        self._asked = time.monotonic()
        kind, place = _place(target)
        numbers = struct.pack(">III", self._number, WINDOW, PACKET)
        self._carriage.send(b"".join((bytes([MSG_CHANNEL_OPEN]), kind, numbers, place)))

    @property
    def room(self) -> bool:
        """Whether what is sent now leaves at once."""
        return self._carriage.room

    def wait(self, resume: Callable[[], None]) -> None:
        """Call `resume` when there is room again."""
        self._carriage.wait(resume)

    def window(self) -> int:
        """Return the bytes that may be sent now; where that is none, `Receiver.news` comes when it has changed."""
        free = self._outward.free(company=self._carriage.company)
        if free == 0:
            self._carriage.remind(self)
        return free

    def takes(self, size: int) -> bool:
        """Return whether so many bytes may be sent now; from any thread."""
        return self._outward.free(company=False) >= size

    def due(self) -> None:
        """Nothing was acknowledged for a while."""
        if self._outward.lapse():
            self._receiver.news(self)

    def send(self, tray: PacketBatch, size: int) -> None:
        """Send what a tray has read; no more than the window."""
        with self._lock:
            if self._over:
                return
            self._outward.take(size)
            tray.address(self._remote)
            self._carriage.post(self, tray)

    def say(self, data: bytes) -> None:
        """Send a few bytes; no more than the window; from any thread."""
        with self._lock:
            if self._over:
                return
            self._outward.take(len(data))
            for at in range(0, len(data), self.packet):
                piece = data[at : at + self.packet]
                self._carriage.send(struct.pack(">BII", MSG_CHANNEL_DATA, self._remote, len(piece)) + piece)

    def end(self) -> None:
        """Send nothing more."""
        with self._lock:
            if self._ended or self._over:
                return
            self._ended = True
            self._tell(MSG_CHANNEL_EOF)

    def close(self) -> None:
        """Close it, and hear nothing more of it."""
        with self._lock:
            self._receiver = _NOBODY
            if self._over:
                return
            self._over = True
            if self._active:  # else as soon as it is
                self._tell(MSG_CHANNEL_CLOSE)

    def delivered(self, size: int) -> None:
        """Let the host send more: so many bytes have reached the local program; from any thread."""
        more = self._inward.deliver(size)
        if more:
            with self._lock:
                if not self.eof and not self._over:
                    self._tell(MSG_CHANNEL_WINDOW_ADJUST, more)

    def _tell(self, kind: int, *words: int) -> None:
        """Send a short message; the lock is held."""
        self._carriage.send(struct.pack(f">BI{len(words)}I", kind, self._remote, *words))

    # --- from the transport's thread ----------------------------------------------------------------------------------

    def take(self, views: list[memoryview]) -> None:
        """Data has come.

        Raises:
            SSHException: before it was opened, after its end, or more than we allowed.
        """
        size = sum(map(len, views))
        self._count(size)
        self._receiver.data(self, views, size)

    def _count(self, size: int) -> None:
        if not self._active or self.eof:
            raise paramiko.SSHException("the host sent data into a channel that is not open")
        if not self._inward.take(size):
            raise paramiko.SSHException("the host sent more data than a channel's window allows")

    def hear(self, kind: int, payload: memoryview) -> None:
        """A message has come.

        Raises:
            SSHException: it makes no sense.
            struct.error, IndexError: it is too short.
        """
        if kind == MSG_CHANNEL_OPEN_SUCCESS:
            self._open(*struct.unpack_from(">III", payload, 5))
        elif kind == MSG_CHANNEL_OPEN_FAILURE:
            self._refuse(*struct.unpack_from(">I", payload, 5))
        elif not self._active:
            raise paramiko.SSHException("the host spoke of a channel that is not open")
        elif kind == MSG_CHANNEL_WINDOW_ADJUST:
            if self._outward.grow(*struct.unpack_from(">I", payload, 5), company=self._carriage.company):
                self._receiver.news(self)
        elif kind == MSG_CHANNEL_EOF:
            self.eof = True
            self._receiver.news(self)
        elif kind == MSG_CHANNEL_CLOSE:
            self._close()
        elif kind == MSG_CHANNEL_EXTENDED_DATA:  # a forward has none: dropped
            (size,) = struct.unpack_from(">I", payload, 9)
            self._count(size)
            self.delivered(size)
        elif kind == MSG_CHANNEL_REQUEST:
            (size,) = struct.unpack_from(">I", payload, 5)
            with self._lock:
                if payload[9 + size] and not self._over:  # an answer is wanted
                    self._tell(MSG_CHANNEL_FAILURE)

    def _open(self, remote: int, window: int, packet: int) -> None:
        with self._lock:
            if self._active or packet == 0:
                raise paramiko.SSHException("the host opened a channel twice, or for no data")
            self._remote, self.packet = remote, packet
            self._outward.open(window, self._carriage.nearer(time.monotonic() - self._asked))
            self._active = True
            if self._over:  # nobody waits any more
                self._tell(MSG_CHANNEL_CLOSE)
        self._receiver.opened(self)

    def _refuse(self, code: int) -> None:
        if self._active:
            raise paramiko.SSHException("the host refused a channel that is open")
        self._carriage.forget(self._number)
        text = CONNECTION_FAILED_CODE.get(code, "refused")
        self._receiver.refused(self, paramiko.ChannelException(code, text))

    def _close(self) -> None:
        with self._lock:
            self.eof = self.closed = self.complete = True
            if not self._over:
                self._over = True
                self._tell(MSG_CHANNEL_CLOSE)
        self._carriage.forget(self._number)
        self._inward.close()
        self._receiver.news(self)

    def lose(self) -> None:
        """The connection has ended."""
        with self._lock:
            active, self._over = self._active, True
        self.eof = self.closed = True
        if active:
            self._receiver.lost(self)
        else:
            self._receiver.refused(self, paramiko.SSHException("the connection ended"))


@functools.lru_cache(1024)
def _place(target: Address) -> tuple[bytes, bytes]:
    """Return the kind of channel that leads to an address, and what stands for that in the message that asks for it."""
    if isinstance(target, str):  # OpenSSH's PROTOCOL, section 2.4
        return _string("direct-streamlocal@openssh.com"), _string(target) + _string("") + bytes(4)
    place = _string(target[0]) + struct.pack(">I", target[1])
    return _string("direct-tcpip"), place + _string("127.0.0.1") + bytes(4)  # RFC 4254, section 7.2


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">I", len(data)) + data


class _Nobody:
    """Receives what comes for a channel that was closed here: nothing of it matters any more."""

    def opened(self, channel: Channel) -> None:
        """Ignore."""

    def refused(self, channel: Channel, error: Exception) -> None:
        """Ignore."""

    def data(self, channel: Channel, views: list[memoryview], size: int) -> None:
        """Ignore."""

    def news(self, channel: Channel) -> None:
        """Ignore."""

    def lost(self, channel: Channel) -> None:
        """Ignore."""


_NOBODY = _Nobody()
