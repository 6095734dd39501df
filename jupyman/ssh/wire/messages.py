"""From packets to messages: those for channels of ours go to the router, the others to paramiko's Transport."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Protocol

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_KEXINIT
from paramiko.packet import NeedRekeyException

from jupyman.ssh.wire.compat import Incoming
from jupyman.ssh.wire.packets import Damaged, MacOpener, Opener
from jupyman.ssh.wire.receiver import PacketReceiver
from jupyman.ssh.wire.sender import LAST, PacketSender

FIRST_CHANNEL = 1 << 24  # paramiko's own channels have numbers below (Transport._next_channel)
CHANNEL_MESSAGES = range(91, 101)  # from CHANNEL_OPEN_CONFIRMATION to CHANNEL_FAILURE
# What shows that the host receives our messages and sends its own (RFC 4250, section 4.1.2): its part in an exchange of
# keys, answers to global requests, any message for a channel. Not what it may send unasked: IGNORE, DEBUG, requests.
SIGNS_OF_LIFE = frozenset({20, 21, *range(30, 50), 81, 82, *CHANNEL_MESSAGES})
# What the host may still send under the old keys after we asked for new ones.
OVERDUE_BYTES = 1 << 30
OVERDUE_PACKETS = 1 << 29
TURN = 512  # packets that are opened in one turn of the loop: of the smallest about ten milliseconds' work
BATCH = 256  # packets that are handed on together; `sendmsg` takes 1024 (IOV_MAX)
_DATA = struct.Struct(">BII")
_NUMBER = struct.Struct(">BI")  # what every message for a channel begins with

# A message and its type; or new keys are needed, and Transport has to begin their exchange.
Found = tuple[int, Incoming] | NeedRekeyException


class Router(Protocol):
    """Takes the messages for the channels from `FIRST_CHANNEL` on."""

    def data(self, number: int, views: list[memoryview]) -> None:
        """Data for a channel; the views are valid during the call."""

    def message(self, kind: int, number: int, payload: memoryview) -> None:
        """Any other message for one."""


def number_of(payload: memoryview) -> int:
    """Return the number of the channel that a message is for.

    Raises:
        Damaged: it is too short to have one.
    """
    if len(payload) < _NUMBER.size:
        raise Damaged("a message for a channel came too short")
    return int(_NUMBER.unpack_from(payload)[1])


def data_of(payload: memoryview) -> memoryview:
    """Return the data of a CHANNEL_DATA message.

    Raises:
        Damaged: its length is wrong.
    """
    if len(payload) < _DATA.size or _DATA.unpack_from(payload)[2] != len(payload) - _DATA.size:
        raise Damaged("a message for a channel came with a wrong length")
    return payload[_DATA.size :]


class MessageReader:
    """Opens the packets of one connection, in order; for one thread at a time.

    Args:
        receiver: of their bytes.
        sender: the other direction, which may need new keys too.
        heard: when the connection began, on the monotonic clock.

    Attributes:
        router: has the channels from `FIRST_CHANNEL` on.
        inflate: decompresses a payload.
        number: sequence number of the next packet.
        heard: when the last sign of life came (`SIGNS_OF_LIFE`).
        asked: new keys are needed, and that was returned; until both directions have them.
        left: packets that `next` may still open; the caller sets it.
    """

    def __init__(self, receiver: PacketReceiver, sender: PacketSender, heard: float) -> None:
        self.router: Router | None = None
        self.inflate: Callable[[bytes], bytes] | None = None
        self.number = 0
        self.heard = heard
        self.asked = False
        self.left = 0
        self._receiver = receiver
        self._sender = sender
        self._opener: Opener = MacOpener(None, 8, None, 0, b"")
        self._limit = (1 << 63, 1 << 63)  # bytes and packets under one key
        self._received_bytes = self._received_packets = 0  # under this key
        self._overdue_bytes = self._overdue_packets = 0  # likewise, since new keys were asked for
        self._used_up = False  # this key has reached its limit
        self._exchanging = False  # the host's KEXINIT has come, and not its NEWKEYS: no channel may send

    @property
    def tag(self) -> int:
        """Bytes of the tag on a packet."""
        return self._opener.tag

    def renew(self, opener: Opener, limit: tuple[int, int]) -> None:
        """Open with new keys from now on; NEWKEYS has come.

        Args:
            opener: has them.
            limit: bytes and packets after which newer ones are needed.
        """
        self._opener, self._limit = opener, limit
        self._received_bytes = self._received_packets = 0
        self._used_up = self._exchanging = False

    def next(self) -> Found | None:
        """Hand on what has come, up to the first message for Transport.

        Returns:
            That message; None: nothing more has come, or nothing is `left`.

        Raises:
            SSHException: what came is damaged or makes no sense, or the host does not answer our request for new keys.
        """
        receiver, router = self._receiver, self.router
        current, views = 0, list[memoryview]()
        try:
            while True:
                if (self._used_up or self._sender.wanted) and not self.asked and not self._exchanging:
                    self.asked = True
                    self._overdue_bytes = self._overdue_packets = 0
                    return NeedRekeyException()
                payload = receiver.take(self._opener, self.number) if self.left else None
                if payload is None:
                    return None
                self.left -= 1
                self._count(receiver.size)
                if self.inflate is not None:
                    payload = _inflated(payload, self.inflate)
                kind = payload[0]
                if kind in SIGNS_OF_LIFE:
                    self.heard = receiver.heard
                if kind in CHANNEL_MESSAGES and router is not None and not self._exchanging:
                    number = number_of(payload)
                    if number >= FIRST_CHANNEL:
                        if views and (kind != MSG_CHANNEL_DATA or number != current or len(views) == BATCH):
                            found, views = views, []
                            router.data(current, found)
                        if kind == MSG_CHANNEL_DATA:
                            current = number
                            views.append(data_of(payload))
                        else:
                            router.message(kind, number, payload)
                        continue
                if kind == MSG_KEXINIT:
                    self._exchanging = True
                return kind, Incoming(bytes(payload[1:]), (self.number - 1) & LAST)
        finally:
            if views and router is not None:
                router.data(current, views)

    def _count(self, size: int) -> None:
        if self.number == LAST and self._sender.initial:
            raise paramiko.SSHException("the sequence numbers ran out during the first exchange of keys")
        self.number = (self.number + 1) & LAST
        self._received_bytes += size
        self._received_packets += 1
        if self.asked:
            self._overdue_bytes += size
            self._overdue_packets += 1
            if self._overdue_bytes >= OVERDUE_BYTES or self._overdue_packets >= OVERDUE_PACKETS:
                raise paramiko.SSHException("the host does not answer our request for new keys")
        elif self._received_bytes >= self._limit[0] or self._received_packets >= self._limit[1]:
            self._used_up = True


def _inflated(payload: memoryview, inflate: Callable[[bytes], bytes]) -> memoryview:
    try:
        inflated = memoryview(inflate(bytes(payload)))
    except zlib.error as error:
        raise Damaged("a packet came that cannot be decompressed") from error
    if not inflated:
        raise Damaged("a packet came without a message")
    return inflated
