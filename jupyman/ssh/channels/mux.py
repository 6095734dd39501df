"""All channels of ours on one connection: which message is for which, and what they share."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import paramiko

from jupyman.ssh.channels.channel import Channel, Receiver
from jupyman.ssh.io.loop import WRITE, Loop, guard
from jupyman.ssh.wire.batch import PacketBatch
from jupyman.ssh.wire.messages import FIRST_CHANNEL
from jupyman.ssh.wire.packets import Damaged

SPARE = 128 * 1024 * 1024  # bytes by which the windows of one connection may grow, all together
COMPANY = 0.25  # seconds for which somebody who spoke counts as speaking
LATE = 0.25  # seconds without an acknowledgement after which a channel is reminded
_LAST = (1 << 32) - 1


class PacketSink(Protocol):
    """What they send by: `Outbox`, or `PlainOutbox`."""

    on_stuck: Callable[[], None] | None

    @property
    def sock(self) -> socket.socket:
        """To be watched while `flush` says that something is left."""

    @property
    def room(self) -> bool:
        """Whether what is posted now leaves at once."""

    def send(self, payload: bytes, *, wait: bool) -> None:
        """Send a message."""

    def post(self, packets: list[tuple[memoryview, int]]) -> None:
        """Send packets of data, without waiting."""

    def flush(self) -> bool:
        """Give the socket what it takes; return whether nothing is left."""

    def close(self) -> None:
        """Nothing is sent any more."""


class ChannelMux:
    """The channels of one connection, from `FIRST_CHANNEL` on: the packetizer's router.

    Args:
        outbox: of the connection.
    """

    first = False
    mask = 0

    def __init__(self, outbox: PacketSink) -> None:
        self.sock = outbox.sock
        self._waiting: deque[Callable[[], None]] = deque()  # the loop's alone
        self._outbox = outbox
        self._loop: Loop | None = None
        self._lock = threading.Lock()
        self._table: dict[int, Channel] = {}
        self._next = FIRST_CHANNEL
        self._spare = SPARE
        self._over = False
        self._nearest = float("inf")
        self._speaker: Channel | None = None
        self._changed = 0.0  # when another channel than the last one spoke, on the monotonic clock

    # --- from the loop ------------------------------------------------------------------------------------------------

    def channel(self, loop: Loop, receiver: Receiver) -> Channel:
        """Return a new channel, not asked for yet.

        Args:
            loop: sends what the socket does not take at once; one for all channels.
            receiver: the local end.
        """
        self.join(loop)
        return Channel(self, receiver)

    def join(self, loop: Loop) -> None:
        """Have a loop send what the socket does not take at once; from any thread."""
        with self._lock:
            if self._loop is None and not self._over:
                self._loop = loop
                self._outbox.on_stuck = lambda: loop.post(self._watch)

    @property
    def room(self) -> bool:
        """Whether what is sent now leaves at once."""
        return self._outbox.room

    @property
    def company(self) -> bool:
        """Whether more than one channel has spoken lately."""
        return time.monotonic() - self._changed < COMPANY

    def wait(self, resume: Callable[[], None]) -> None:
        """Call `resume` when there is room again."""
        self._waiting.append(resume)

    def remind(self, channel: Channel) -> None:
        """Call a channel's `due` soon."""
        if self._loop is not None:
            self._loop.remind(channel, time.monotonic() + LATE)

    def _watch(self) -> None:
        if self._loop is None or self._over:
            return
        if self._outbox.flush():
            self._loop.watch(self, 0)
            self._resume()
        else:
            self._loop.watch(self, WRITE)

    def ready(self, mask: int) -> None:  # noqa: ARG002 - there is but one
        """The SSH socket can be written again."""
        self._watch()

    def _resume(self) -> None:
        while self._waiting and self._outbox.room:
            guard(self._waiting.popleft())

    # --- for the channels ---------------------------------------------------------------------------------------------

    def number(self, channel: Channel) -> int:
        """Enter a channel and return its number.

        Raises:
            SSHException: the connection has ended.
        """
        with self._lock:
            if self._over:
                raise paramiko.SSHException("the connection ended")
            while self._next in self._table:
                self._next = self._next + 1 if self._next < _LAST else FIRST_CHANNEL
            number = self._next
            self._next = self._next + 1 if self._next < _LAST else FIRST_CHANNEL
            self._table[number] = channel
            return number

    def forget(self, number: int) -> None:
        """A channel is over."""
        with self._lock:
            self._table.pop(number, None)

    def nearer(self, seconds: float) -> float:
        """Note how long the host took to answer; return the shortest ever: about a round trip."""
        self._nearest = min(self._nearest, seconds)
        return self._nearest

    def spare(self, size: int) -> int:
        """Take from what the windows may grow by; return how much was left to take. Less than nothing gives it back."""
        with self._lock:
            size = min(size, self._spare)
            self._spare -= size
            return size

    def send(self, payload: bytes) -> None:
        """Send a message, without waiting."""
        self._outbox.send(payload, wait=False)

    def post(self, channel: Channel, tray: PacketBatch) -> None:
        """Send what a tray holds, without waiting."""
        if channel is not self._speaker:
            if self._speaker is not None:
                self._changed = time.monotonic()
            self._speaker = channel
        self._outbox.post(tray.packets)

    # --- from the transport's thread ----------------------------------------------------------------------------------

    def _find(self, number: int) -> Channel:
        channel = self._table.get(number)
        if channel is None:
            raise paramiko.SSHException("the host used a channel that is not open")
        return channel

    def data(self, number: int, views: list[memoryview]) -> None:
        """Data for a channel."""
        self._find(number).take(views)

    def message(self, kind: int, number: int, payload: memoryview) -> None:
        """Any other message for one.

        Raises:
            SSHException: it makes no sense.
        """
        channel = self._find(number)
        try:
            channel.hear(kind, payload)
        except (struct.error, IndexError) as error:
            raise Damaged("a message for a channel came too short") from error

    def resumed(self) -> None:
        """An exchange of keys is over."""
        if self._loop is not None:
            self._loop.post(self._resume)

    def lose(self) -> None:
        """The connection has ended."""
        with self._lock:
            self._over = True
            channels = list(self._table.values())
            self._table.clear()
            loop = self._loop
        for channel in channels:
            channel.lose()
        if loop is None:
            self._outbox.close()
        else:
            loop.post(lambda: self._leave(loop))

    def _leave(self, loop: Loop) -> None:
        loop.watch(self, 0)
        self._waiting.clear()
        self._outbox.close()
