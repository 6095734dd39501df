"""paramiko's packetizer as our forwarder uses it: what is no packet, keys that wear out, a greeting of any bytes."""

from __future__ import annotations

import random
import socket
import struct
import zlib

import paramiko
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paramiko.message import Message
from paramiko.packet import NeedRekeyException

from jupyman.ssh.wire import packets as sealing
from jupyman.ssh.wire.compat import Incoming
from jupyman.ssh.wire.packets import Damaged
from jupyman.ssh.wire.paramiko_packets import ParamikoPacketizer
from tests.unit.ssh.packets import GCM, KEYED, SUITES, Suite, pair, read_on

ENDS = (paramiko.SSHException, EOFError, OSError)


@pytest.mark.parametrize("suite", KEYED, ids=str)
def test_a_changed_bit_is_damage(suite: Suite) -> None:
    chosen = random.Random(7)
    for _ in range(12):
        with pair(suite, ParamikoPacketizer) as ends:
            ends.ours.send_message(Message(b"\x02" + b"x" * 50))
            packet = bytearray(ends.sockets[1].recv(1 << 16))
            packet[chosen.randrange(4, len(packet))] ^= 1 << chosen.randrange(8)
            ends.sockets[0].sendall(packet + bytes(300_000))
            with pytest.raises(paramiko.SSHException):
                ends.other.read_message()


@given(st.binary(min_size=64, max_size=400))
@settings(max_examples=200, deadline=None)
def test_noise_is_an_error_that_is_expected(noise: bytes) -> None:
    for suite in SUITES:
        with pair(suite, ParamikoPacketizer) as ends:
            ends.sockets[0].sendall(noise)
            ends.sockets[0].shutdown(socket.SHUT_WR)
            with pytest.raises(ENDS):
                read_on(ends.other)


def test_a_packet_without_a_message_is_damage() -> None:
    for body in (b"\x0b" + bytes(11), b"\xff" + bytes(11)):
        with pair(None, ParamikoPacketizer) as ends:
            ends.sockets[0].sendall(struct.pack(">I", len(body)) + body)
            with pytest.raises(Damaged):
                ends.other.read_message()


@pytest.mark.parametrize("plain", [False, True], ids=["ours", "paramiko's"])
@pytest.mark.parametrize("payload", [b"\xff no zlib", zlib.compress(b"")], ids=["noise", "nothing"])
def test_what_cannot_be_decompressed_is_damage(payload: bytes, plain: bool) -> None:
    with pair(GCM, ParamikoPacketizer) as ends:
        reader, writer = (ends.other, ends.ours) if plain else (ends.ours, ends.other)
        reader.set_inbound_compressor(zlib.decompressobj().decompress)
        writer.send_message(Message(payload))
        with pytest.raises(Damaged):
            reader.read_message()


def test_new_keys_are_requested_once_while_only_the_routers_messages_come() -> None:
    class Router:
        taken = 0

        def data(self, number: int, views: list[memoryview]) -> None:
            self.taken += 1

        def message(self, kind: int, number: int, payload: memoryview) -> None:
            raise AssertionError

    with pair(GCM, ParamikoPacketizer) as ends:
        ends.other.router = router = Router()
        for round_ in (1, 2):
            ends.other.REKEY_PACKETS = 10
            data = struct.pack(">BII", 94, 1 << 24, 4) + b"data"
            for _ in range(30):
                ends.ours.send_message(Message(data))
            with pytest.raises(NeedRekeyException):
                ends.other.read_message()
            assert router.taken == 30 * (round_ - 1) + 10
            ends.ours.send_message(Message(b"\x50 for paramiko"))
            kind, message = ends.other.read_message()  # and not requested again
            assert (kind, router.taken) == (80, 30 * round_)
            assert isinstance(message, Incoming)
            ends.seal(GCM)


def test_a_greeting_may_be_of_any_bytes_but_has_an_end() -> None:
    with pair(None, ParamikoPacketizer) as ends:
        ends.sockets[0].sendall(b"\xff\xfe hello\r\nSSH-2.0-x\r\n\0\0\0\x0c" + b"\x0a\x02" + bytes(10))
        assert ends.other.readline(5) == "\ufffd\ufffd hello"
        assert ends.other.readline(5) == "SSH-2.0-x"
        assert ends.other.read_message()[0] == 2, "what came with it is not lost"
    with pair(None, ParamikoPacketizer) as ends:
        ends.sockets[0].sendall(b"x" * 100_000)
        with pytest.raises(paramiko.SSHException, match="without an end"):
            ends.other.readline(5)


def test_signs_of_life_are_messages_to_us_and_not_any_byte() -> None:
    with pair(None, ParamikoPacketizer) as ends:
        ends.other.heard = 0.0
        ends.sockets[0].sendall(struct.pack(">I", sealing.MAX_PACKET - 4) + bytes(1000))
        ends.sockets[0].shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            ends.other.read_message()
        assert ends.other.heard == 0.0
