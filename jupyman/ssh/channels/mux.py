"""All channels of ours on one connection: which message is for which, and what they share.

Everything runs in the loop's thread, except `resumed` and `connection_lost`, which the transport's thread calls.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import paramiko

from jupyman.model.endpoint import Target
from jupyman.ssh.channels.channel import Channel
from jupyman.ssh.io.loop import WRITE, Loop
from jupyman.ssh.streams.byte_stream import StreamReceiver
from jupyman.ssh.wire.batch import PacketBatch
from jupyman.ssh.wire.messages import FIRST_CHANNEL
from jupyman.ssh.wire.packets import Damaged

SPARE = 128 * 1024 * 1024  # bytes by which the windows of one connection may grow, all together
CONTENDED = 0.25  # seconds for which a channel that sent data counts as sending
LATE = 0.25  # seconds without an acknowledgement after which a channel's `due` is called
_LAST = (1 << 32) - 1


class PacketSink(Protocol):
    """What they send by: `PacketSender`, or `ParamikoPacketSender`."""

    on_stuck: Callable[[], None] | None

    @property
    def sock(self) -> socket.socket:
        """To be watched while `flush` returns False."""

    @property
    def room(self) -> bool:
        """Whether what is posted now leaves at once."""

    def send_all(self, payloads: list[bytes]) -> None:
        """Send messages, without waiting."""

    def post(self, packets: list[tuple[memoryview, int]]) -> None:
        """Send packets of data, without waiting."""

    def flush(self) -> bool:
        """Give the socket what it takes; return whether nothing is left."""

    def close(self) -> None:
        """Nothing is sent any more."""


class ChannelMux:
    """The channels of one connection, from `FIRST_CHANNEL` on: a `StreamOpener`, and the packetizer's router.

    Args:
        sender: of the connection.
        loop: carries all of them, and sends what the socket does not take at once.
    """

    first = False
    mask = 0

    def __init__(self, sender: PacketSink, loop: Loop) -> None:
        self.sock = sender.sock
        self._sender = sender
        self._loop = loop
        self._waiting: deque[Channel] = deque()  # for room
        self._messages: list[bytes] = []  # of this turn; they leave together, which saves system calls
        self._table: dict[int, Channel] = {}
        self._next = FIRST_CHANNEL
        self._spare = SPARE
        self._over = False
        self._round_trip = float("inf")
        self._last_sender: Channel | None = None
        self._changed = 0.0  # when another channel than the last one sent data, on the monotonic clock
        sender.on_stuck = lambda: loop.post(self._watch)

    def open_stream(self, target: Target, receiver: StreamReceiver) -> Channel:
        """Ask for a channel; see `StreamOpener.open_stream`.

        Raises:
            ConnectionError: the connection has ended.
        """
        channel = Channel(self, receiver)
        channel.open(target)
        return channel

    # --- for the channels ---------------------------------------------------------------------------------------------

    @property
    def room(self) -> bool:
        """Whether what is sent now leaves at once."""
        return self._sender.room

    @property
    def contended(self) -> bool:
        """Whether more than one channel has sent data lately."""
        return time.monotonic() - self._changed < CONTENDED

    def register(self, channel: Channel) -> int:
        """Enter a channel and return its number.

        Raises:
            ConnectionError: the connection has ended.
        """
        if self._over:
            raise ConnectionError("the connection ended")
        while self._next in self._table:
            self._next = self._next + 1 if self._next < _LAST else FIRST_CHANNEL
        number = self._next
        self._next = self._next + 1 if self._next < _LAST else FIRST_CHANNEL
        self._table[number] = channel
        return number

    def unregister(self, number: int) -> None:
        """Remove a channel that is over."""
        self._table.pop(number, None)

    def wait_for_room(self, channel: Channel) -> None:
        """Call the channel's `resume` when there is room again; those that wait longest come first."""
        self._waiting.append(channel)

    def schedule(self, channel: Channel) -> None:
        """Call the channel's `due` soon."""
        self._loop.remind(channel, time.monotonic() + LATE)

    def round_trip(self, seconds: float) -> float:
        """Note how long the host took to answer; return the shortest time ever: about a round trip."""
        self._round_trip = min(self._round_trip, seconds)
        return self._round_trip

    def reserve(self, size: int) -> int:
        """Take bytes from what the windows may grow by; return how many were given. A negative size gives them back."""
        size = min(size, self._spare)
        self._spare -= size
        return size

    def send(self, payload: bytes) -> None:
        """Send a message at the end of this turn, or with data that is sent before."""
        if not self._messages:
            self._loop.at_end(self._send_messages)
        self._messages.append(payload)

    def _send_messages(self) -> None:
        messages, self._messages = self._messages, []
        if messages:
            self._sender.send_all(messages)

    def send_batch(self, channel: Channel, batch: PacketBatch) -> None:
        """Send what a batch holds, without waiting."""
        if channel is not self._last_sender:
            if self._last_sender is not None:
                self._changed = time.monotonic()
            self._last_sender = channel
        self._send_messages()
        self._sender.post(batch.packets)

    # --- from the loop ------------------------------------------------------------------------------------------------

    def ready(self, mask: int) -> None:  # noqa: ARG002 - there is but one
        """The SSH socket can be written again."""
        self._watch()

    def _watch(self) -> None:
        if self._over:
            return
        if self._sender.flush():
            self._loop.watch(self, 0)
            self._resume()
        else:
            self._loop.watch(self, WRITE)

    def _resume(self) -> None:
        while self._waiting and self._sender.room:
            self._waiting.popleft().resume()

    # --- from the packetizer ------------------------------------------------------------------------------------------

    def _find(self, number: int) -> Channel:
        channel = self._table.get(number)
        if channel is None:
            raise paramiko.SSHException("the host used a channel that is not open")
        return channel

    def data(self, number: int, views: list[memoryview]) -> None:
        """Data for a channel."""
        self._find(number).handle_data(views)

    def message(self, kind: int, number: int, payload: memoryview) -> None:
        """Any other message for one.

        Raises:
            SSHException: it makes no sense.
        """
        channel = self._find(number)
        try:
            channel.handle(kind, payload)
        except (struct.error, IndexError) as error:
            raise Damaged("a message for a channel came too short") from error

    # --- from the transport's thread ----------------------------------------------------------------------------------

    def resumed(self) -> None:
        """An exchange of keys is over."""
        self._loop.post(self._resume)

    def connection_lost(self) -> None:
        """The connection has ended."""
        self._loop.post(self._lose)

    def _lose(self) -> None:
        self._over = True
        channels = list(self._table.values())
        self._table.clear()
        self._waiting.clear()
        self._messages.clear()
        for channel in channels:
            channel.connection_lost()
        self._loop.watch(self, 0)
        self._sender.close()
