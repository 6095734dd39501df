"""Packets sealed for the host and opened again, by whatever cipher was agreed on.

The format is RFC 4253's (section 6): length, length of the padding, payload, padding, tag. AES-GCM is RFC 5647's with
the length in the clear; so is it in the order "encrypt then MAC" (OpenSSH's PROTOCOL, section 1.5). Nothing of a packet
is used before its tag was verified, and no length is believed beyond `MAX_PACKET`.
"""

from __future__ import annotations

import hmac
import os
import struct
from typing import Any, Protocol

import paramiko
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# OpenSSH's PACKET_MAX_SIZE (packet.c); RFC 4253, section 6.1, asks for 35000 at least.
MAX_PACKET = 256 * 1024
MIN_PADDING = 4  # RFC 4253, section 6
TAG = 16  # bytes of AES-GCM's tag
ROOM = 32  # bytes that a buffer for an opened packet must have beyond the packet itself
_COUNTER = struct.Struct(">Q")
_WRAP = (1 << 64) - 1
_LENGTH = struct.Struct(">I")

Buffer = bytes | bytearray | memoryview


class Damaged(paramiko.SSHException):
    """What came is not a packet that the host sealed."""


class Sealer(Protocol):
    """Seals packets for one direction, under one key.

    Attributes:
        tag: bytes of the tag.
    """

    tag: int

    def seal(self, payload: Buffer, number: int) -> bytes:
        """Return the packet with sequence number `number`, as it travels."""


class Opener(Protocol):
    """Opens packets of one direction, under one key.

    Attributes:
        head: bytes of a packet that `measure` needs.
        tag: bytes of the tag.
    """

    head: int
    tag: int

    def measure(self, data: memoryview, start: int) -> int:
        """Return the bytes of the whole packet that begins at `start`; called once for each, in order.

        Raises:
            Damaged: no packet has this length.
        """

    def open(self, packet: memoryview, out: memoryview, number: int) -> memoryview:
        """Verify and decrypt a packet.

        Args:
            packet: the whole of it.
            out: as long, and `ROOM` bytes more; the payload is left there.
            number: its sequence number.

        Returns:
            The payload, a part of `out`.

        Raises:
            Damaged: its tag or its padding is wrong.
        """


def padding(size: int, block: int, clear: int) -> int:
    """Return the bytes of padding for a payload.

    Args:
        size: of the payload, bytes.
        block: of the cipher, bytes.
        clear: bytes of the packet's beginning that are not encrypted: 4 if the length is not, else 0.
    """
    return MIN_PADDING + -(5 - clear + size + MIN_PADDING) % block


def payload_of(body: memoryview) -> memoryview:
    """Return the payload of a verified packet.

    Args:
        body: from the length of the padding to its end.

    Raises:
        Damaged: the padding is shorter than RFC 4253 allows, or leaves no payload.
    """
    pad = body[0]
    if not MIN_PADDING <= pad < len(body) - 1:
        raise Damaged("a packet came with a wrong padding")
    return body[1 : len(body) - pad]


def _checked(length: int, block: int, clear: int) -> int:
    """Return the length of a packet, as its beginning has it.

    Raises:
        Damaged: it is impossible.
    """
    if not 2 + MIN_PADDING <= length <= MAX_PACKET or (length + 4 - clear) % block:
        raise Damaged(f"a packet came with an impossible length ({length} bytes)")
    return length


class GcmSealer:
    """AES-GCM to the host.

    Args:
        engine: holds the key.
        iv: 12 bytes: 4 that stay, and the counter of packets (RFC 5647, section 7.1).
    """

    BLOCK = 16
    tag = TAG

    def __init__(self, engine: AESGCM, iv: bytes) -> None:
        self._engine = engine
        self._nonce = bytearray(iv)
        (self._count,) = _COUNTER.unpack_from(iv, 4)
        self._encrypt_into = getattr(engine, "encrypt_into", None)

    def seal(self, payload: Buffer, number: int) -> bytes:  # noqa: ARG002 - the nonce counts by itself
        """Return a sealed packet."""
        pad = padding(len(payload), self.BLOCK, 4)
        length = _LENGTH.pack(1 + len(payload) + pad)
        body = b"".join((pad.to_bytes(1, "big"), payload, bytes(pad)))
        return length + self._engine.encrypt(self._next(), body, length)

    def seal_into(self, body: memoryview, size: int, out: memoryview) -> int:
        """Seal a payload where it stands.

        Args:
            body: a byte of room, the payload, and room for the padding, which is set.
            size: of the payload, bytes.
            out: where the packet goes.

        Returns:
            Bytes of the packet.
        """
        pad = padding(size, self.BLOCK, 4)
        length = 1 + size + pad
        body[0] = pad
        # Zeros: what is encrypted in counter mode needs no random padding, and what was there may be another's.
        body[1 + size : length] = bytes(pad)
        head = _LENGTH.pack(length)
        total = 4 + length + TAG
        out[:4] = head
        if self._encrypt_into is not None:
            self._encrypt_into(self._next(), body[:length], head, out[4:total])
        else:  # cryptography before 47
            out[4:total] = self._engine.encrypt(self._next(), body[:length], head)
        return total

    def _next(self) -> bytearray:
        """Return the nonce of the next packet; each is used once, and a key never has 2^64 packets."""
        _COUNTER.pack_into(self._nonce, 4, self._count)
        self._count = (self._count + 1) & _WRAP
        return self._nonce


class GcmOpener:
    """AES-GCM from the host; arguments as for `GcmSealer`."""

    head = 4
    tag = TAG

    def __init__(self, engine: AESGCM, iv: bytes) -> None:
        self._engine = engine
        self._nonce = bytearray(iv)
        (self._count,) = _COUNTER.unpack_from(iv, 4)
        self._decrypt_into = getattr(engine, "decrypt_into", None)

    def measure(self, data: memoryview, start: int) -> int:
        """Return the bytes of the packet."""
        (length,) = _LENGTH.unpack_from(data, start)
        if not 16 <= length <= MAX_PACKET or length & 15:
            raise Damaged(f"a packet came with an impossible length ({length} bytes)")
        return int(length) + 4 + TAG

    def open(self, packet: memoryview, out: memoryview, number: int) -> memoryview:  # noqa: ARG002 - see above
        """Verify and decrypt."""
        _COUNTER.pack_into(self._nonce, 4, self._count)
        self._count = (self._count + 1) & _WRAP
        size = len(packet) - 4 - TAG
        body = out[:size]
        try:
            if self._decrypt_into is not None:
                self._decrypt_into(self._nonce, packet[4:], packet[:4], body)
            else:  # cryptography before 47
                body[:] = self._engine.decrypt(self._nonce, packet[4:], packet[:4])
        except InvalidTag as error:
            raise Damaged("a packet was changed on the way: its tag is wrong") from error
        return payload_of(body)


class _Keyed:
    """A cipher with a MAC, as paramiko hands them over.

    Args:
        engine: encrypts or decrypts (`update`); None before the first keys.
        block: bytes.
        mac: the hash function of the HMAC.
        size: bytes of the tag.
        key: of the HMAC.
        etm: encrypt first, then MAC.
    """

    def __init__(self, engine: Any, block: int, mac: Any, size: int, key: bytes, *, etm: bool) -> None:
        self._engine = engine
        self._block = max(8, block)
        self._mac = mac
        self._key = key
        self._etm = etm
        self.tag = size if engine is not None else 0
        self._clear = 4 if etm else 0

    def _sign(self, text: Buffer) -> bytes:
        return hmac.digest(self._key, text, self._mac)[: self.tag]


class MacSealer(_Keyed):
    """Any cipher with a MAC to the host, and none before the first keys; arguments as for `_Keyed`.

    Args:
        random_padding: for ciphers that are not a key stream.
    """

    def __init__(self, *words: Any, etm: bool = False, random_padding: bool = False) -> None:
        super().__init__(*words, etm=etm)
        self._random = random_padding

    def seal(self, payload: Buffer, number: int) -> bytes:
        """Return a sealed packet."""
        pad = padding(len(payload), self._block, self._clear)
        head = struct.pack(">IB", 1 + len(payload) + pad, pad)
        packet = b"".join((head, payload, os.urandom(pad) if self._random else bytes(pad)))
        if self._engine is None:
            return packet
        first = _LENGTH.pack(number)
        if self._etm:
            packet = packet[:4] + bytes(self._engine.update(memoryview(packet)[4:]))
            return packet + self._sign(first + packet)
        return bytes(self._engine.update(packet)) + self._sign(first + packet)


class MacOpener(_Keyed):
    """Any cipher with a MAC from the host, and none before the first keys; arguments as for `_Keyed`."""

    def __init__(self, *words: Any, etm: bool = False) -> None:
        super().__init__(*words, etm=etm)
        self.head = 4 if etm or self._engine is None else self._block
        self._first = b""  # the beginning of the packet that was measured, decrypted: a cipher goes only forwards

    def measure(self, data: memoryview, start: int) -> int:
        """Return the bytes of the packet."""
        self._first = bytes(data[start : start + self.head])
        if self._engine is not None and not self._etm:
            self._first = self._engine.update(self._first)
        length = _checked(_LENGTH.unpack_from(self._first)[0], self._block, self._clear)
        return length + 4 + self.tag

    def open(self, packet: memoryview, out: memoryview, number: int) -> memoryview:
        """Verify and decrypt: number and length stand before the rest, as the MAC wants them."""
        end = len(packet) - self.tag
        _LENGTH.pack_into(out, 0, number)
        whole = out[: 4 + end]
        if self._engine is None or self._etm:
            whole[4:] = packet[:end]
        else:
            whole[4 : 4 + self.head] = self._first
            self._update(packet[self.head : end], out, 4 + self.head)
        if self.tag and not hmac.compare_digest(self._sign(whole), packet[end:]):
            raise Damaged("a packet was changed on the way: its tag is wrong")
        if self._etm:
            self._update(packet[4:end], out, 8)
        return payload_of(whole[8:])

    def _update(self, data: memoryview, out: memoryview, at: int) -> None:
        if len(data):
            # `update_into` wants room for one block more than it writes.
            self._engine.update_into(data, out[at : at + len(data) + self._block - 1])
