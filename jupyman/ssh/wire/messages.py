"""Which messages are for channels of ours, and what they carry (RFC 4254, section 5)."""

from __future__ import annotations

import struct
from typing import Protocol

from jupyman.ssh.wire.packets import Damaged

FIRST_CHANNEL = 1 << 24  # paramiko's own channels have numbers below (Transport._next_channel)
CHANNEL_MESSAGES = range(91, 101)  # from CHANNEL_OPEN_CONFIRMATION to CHANNEL_FAILURE
# What shows that the host hears us and speaks to us (RFC 4250, section 4.1.2): its part in an exchange of keys, answers
# to global requests, whatever it says on a channel. Not what it may say unasked: IGNORE, DEBUG, requests of its own.
SIGNS_OF_LIFE = frozenset({20, 21, *range(30, 50), 81, 82, *CHANNEL_MESSAGES})
_DATA = struct.Struct(">BII")
_NUMBER = struct.Struct(">BI")  # what all of them begin with


class Router(Protocol):
    """Takes the messages to the channels from `FIRST_CHANNEL` on."""

    def data(self, number: int, views: list[memoryview]) -> None:
        """Data for a channel; the views are valid during the call."""

    def message(self, kind: int, number: int, payload: memoryview) -> None:
        """Anything else for one."""


def number_of(payload: memoryview) -> int:
    """Return the number of the channel that a message is for.

    Raises:
        Damaged: it is too short to have one.
    """
    if len(payload) < _NUMBER.size:
        raise Damaged("a message for a channel came too short")
    return int(_NUMBER.unpack_from(payload)[1])


def data_of(payload: memoryview) -> memoryview:
    """Return what a message of CHANNEL_DATA carries.

    Raises:
        Damaged: its length is wrong.
    """
    if len(payload) < _DATA.size or _DATA.unpack_from(payload)[2] != len(payload) - _DATA.size:
        raise Damaged("a message for a channel came with a wrong length")
    return payload[_DATA.size :]
