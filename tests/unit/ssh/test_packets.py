"""Our packetizer against paramiko's own: every cipher, both ways; and against what no host may send."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Iterator

import paramiko
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from paramiko.message import Message

from jupyman.ssh.wire import packets as sealing
from jupyman.ssh.wire.batch import DATA, SIZE, PacketBatch
from jupyman.ssh.wire.messages import FIRST_CHANNEL
from jupyman.ssh.wire.packetizer import Packetizer
from jupyman.ssh.wire.packets import Damaged, GcmOpener, GcmSealer, padding
from tests.unit.ssh.packets import GCM, KEYED, SUITES, Pair, Suite, digest, messages, pair, read_on, text

suites = pytest.mark.parametrize("suite", SUITES, ids=str)


# --- both ways, every cipher --------------------------------------------------------------------------------------


@suites
def test_paramiko_reads_what_we_send(suite: Suite) -> None:
    with pair(suite) as ends:
        for seed, sent in enumerate(messages(1)):
            ends.ours.send_message(Message(sent))
            kind, message = ends.other.read_message()
            assert (kind, text(message)) == (2, sent[1:])
            assert message.seqno == seed


@suites
def test_we_read_what_paramiko_sends(suite: Suite) -> None:
    with pair(suite) as ends:
        for seed, sent in enumerate(messages(2)):
            ends.other.send_message(Message(sent))
            kind, message = ends.ours.read_message()
            assert (kind, text(message)) == (2, sent[1:])
            assert message.seqno == seed


@suites
def test_bytes_may_come_in_any_pieces(suite: Suite) -> None:
    chosen = random.Random(3)
    sent = messages(3, 10)
    with pair(suite) as ends, pair(other=Packetizer) as pipe:
        # What paramiko sends is caught, cut up, and given to ours piece by piece.
        caught = bytearray()
        for one in sent:
            ends.other.send_message(Message(one))
            caught += ends.sockets[0].recv(1 << 20)

        def feed() -> None:
            at = 0
            while at < len(caught):
                step = chosen.choice((1, 2, 3, 15, 16, 17, 1000, 60000))
                pipe.sockets[1].sendall(caught[at : at + step])
                at += step

        ends.ours._receiver._sock = pipe.sockets[0]
        feeder = threading.Thread(target=feed)
        feeder.start()
        got = [text(ends.ours.read_message()[1]) for _ in sent]
        feeder.join()
    assert [digest(one) for one in got] == [digest(one[1:]) for one in sent]


@suites
def test_data_of_channels_is_the_same_by_either_way_of_sending(suite: Suite) -> None:
    """The forwarder's own way, straight from a socket into packets."""
    data = random.Random(4).randbytes(3 * SIZE + 12345)
    batch = PacketBatch()
    with pair(suite) as ends:
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            feeder = threading.Thread(target=far.sendall, args=(data,))
            feeder.start()
            got = bytearray()
            limit = 1
            while len(got) < len(data):
                try:
                    size = batch.fill(near, limit, 32768)
                except BlockingIOError:
                    continue
                limit = min(SIZE, limit * 3)
                batch.address(FIRST_CHANNEL)
                ends.ours.sender.post(batch.packets)
                while size:
                    kind, message = ends.other.read_message()
                    assert kind == 94
                    assert message.get_int() == FIRST_CHANNEL
                    piece = message.get_binary()
                    got += piece
                    size -= len(piece)
            feeder.join()
    assert digest(bytes(got)) == digest(data)


@suites
def test_new_keys_in_the_middle(suite: Suite) -> None:
    with pair(suite) as ends:
        for suite_after in (
            GCM,
            Suite("aes256-ctr", "hmac-sha2-256-etm@openssh.com"),
            Suite("aes128-ctr", "hmac-sha1"),
        ):
            for sent in messages(5, 5):
                ends.ours.send_message(Message(sent))
                ends.other.send_message(Message(sent))
                assert text(ends.other.read_message()[1]) == sent[1:]
                assert text(ends.ours.read_message()[1]) == sent[1:]
            ends.seal(suite_after)
            for one in (ends.ours, ends.other):  # strict key exchange
                one.reset_seqno_in()
                one.reset_seqno_out()


@pytest.mark.parametrize("suite", [GCM, Suite("aes128-ctr", "hmac-sha2-256")], ids=str)
def test_compression(suite: Suite) -> None:
    from paramiko.compress import ZlibCompressor, ZlibDecompressor

    batch = PacketBatch()
    with pair(suite) as ends:
        for one in (ends.ours, ends.other):
            one.set_outbound_compressor(ZlibCompressor())
            one.set_inbound_compressor(ZlibDecompressor())
        for sent in (*messages(6, 10), b"\x02" + b"a" * 30000):
            ends.ours.send_message(Message(sent))
            ends.other.send_message(Message(sent))
            assert text(ends.other.read_message()[1]) == sent[1:]
            assert text(ends.ours.read_message()[1]) == sent[1:]
        near, far = socket.socketpair()
        with near, far:
            far.sendall(b"b" * 50000)
            assert batch.fill(near, SIZE, 32768) == 50000
        batch.address(7)
        ends.ours.sender.post(batch.packets)
        assert ends.other.read_message()[1].asbytes()[8:] == b"b" * 32768
        assert ends.other.read_message()[1].asbytes()[8:] == b"b" * (50000 - 32768)


# --- the router ---------------------------------------------------------------------------------------------------


class Recorder:
    """Takes what is for channels of ours."""

    def __init__(self) -> None:
        self.received: list[tuple[int, int, bytes]] = []

    def data(self, number: int, views: list[memoryview]) -> None:
        self.received.append((94, number, b"".join(views)))

    def message(self, kind: int, number: int, payload: memoryview) -> None:
        self.received.append((kind, number, bytes(payload[5:])))


def channel_message(kind: int, number: int, rest: bytes = b"") -> Message:
    if kind == 94:
        rest = struct.pack(">I", len(rest)) + rest
    return Message(struct.pack(">BI", kind, number) + rest)


@pytest.fixture
def routed() -> Iterator[tuple[Pair, Recorder]]:
    with pair(GCM) as ends:
        recorder = Recorder()
        ends.ours.router = recorder
        yield ends, recorder


def test_order_is_kept_between_channels_and_kinds(routed: tuple[Pair, Recorder]) -> None:
    ends, recorder = routed
    one, two = FIRST_CHANNEL, FIRST_CHANNEL + 1
    for kind, number, rest in (
        (91, one, b"opened"),
        (94, one, b"a"),
        (94, one, b"b"),
        (94, two, b"c"),
        (94, one, b"d"),
        (96, one, b""),
        (94, two, b"e"),
    ):
        ends.other.send_message(channel_message(kind, number, rest))
    ends.other.send_message(channel_message(94, 5, b"paramiko's"))
    kind, message = ends.ours.read_message()
    assert (kind, message.get_int(), message.get_binary()) == (94, 5, b"paramiko's")
    joined: list[tuple[int, int, bytes]] = []
    for kind, number, rest in recorder.received:  # data of one channel may come together
        if joined and kind == 94 and joined[-1][:2] == (kind, number):
            joined[-1] = (kind, number, joined[-1][2] + rest)
        else:
            joined.append((kind, number, rest))
    assert joined == [
        (91, one, b"opened"),
        (94, one, b"ab"),
        (94, two, b"c"),
        (94, one, b"d"),
        (96, one, b""),
        (94, two, b"e"),
    ]


def test_no_channel_message_is_routed_during_a_key_exchange(routed: tuple[Pair, Recorder]) -> None:
    ends, recorder = routed
    ends.other.send_message(Message(b"\x14 KEXINIT"))
    ends.other.send_message(channel_message(94, FIRST_CHANNEL, b"too late"))
    assert ends.ours.read_message()[0] == 20
    assert ends.ours.read_message()[0] == 94  # paramiko's Transport refuses it
    assert recorder.received == []


@pytest.mark.parametrize(
    "wrong", [b"\x5e\x01", struct.pack(">BII", 94, FIRST_CHANNEL, 5) + b"four", struct.pack(">BI", 94, FIRST_CHANNEL)]
)
def test_data_with_a_wrong_length_is_damage(routed: tuple[Pair, Recorder], wrong: bytes) -> None:
    ends, recorder = routed
    ends.other.send_message(Message(wrong))
    with pytest.raises(Damaged):
        ends.ours.read_message()
    assert recorder.received == []


# --- what no host may send ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", KEYED, ids=str)
def test_a_changed_bit_is_noticed(suite: Suite) -> None:
    chosen = random.Random(7)
    for _ in range(12):
        with pair(suite) as ends:
            ends.other.send_message(Message(b"\x02" + b"x" * 50))
            packet = bytearray(ends.sockets[0].recv(1 << 16))
            at = chosen.randrange(4, len(packet))  # the length is the next test's
            packet[at] ^= 1 << chosen.randrange(8)
            # What follows keeps a length that was changed from waiting for more.
            ends.sockets[1].sendall(packet + bytes(300_000))
            with pytest.raises(paramiko.SSHException):
                ends.ours.read_message()


@pytest.mark.parametrize("suite", SUITES, ids=str)
@pytest.mark.parametrize("length", [0, 1, 5, 6, 17, 262_145, 262_160, 1 << 20, (1 << 31) + 12, (1 << 32) - 4])
def test_an_impossible_length_is_refused_at_once(suite: Suite, length: int) -> None:
    with pair(suite) as ends:
        # Where the length is encrypted this is noise, which is a length beyond all bounds but once in 8192 times.
        ends.sockets[1].sendall(struct.pack(">I", length) + bytes(60))
        ends.sockets[1].shutdown(socket.SHUT_WR)
        plain = not suite.mac or "etm" in suite.mac
        with pytest.raises(Damaged if plain else (Damaged, EOFError)):
            ends.ours.read_message()


@suites
def test_an_end_in_the_middle_is_an_end(suite: Suite) -> None:
    for cut in (1, 3, 4, 5, 15, 16, 17, 30, 70):
        with pair(suite) as ends:
            ends.other.send_message(Message(b"\x02" + b"x" * 50))
            packet = ends.sockets[0].recv(1 << 16)
            ends.sockets[1].sendall(packet[: min(cut, len(packet) - 1)])
            ends.sockets[1].shutdown(socket.SHUT_WR)
            with pytest.raises(EOFError):
                ends.ours.read_message()


@pytest.mark.parametrize("pad", [0, 1, 3, 15, 200, 255])
def test_a_wrong_padding_is_damage_even_with_the_right_tag(pad: int) -> None:
    key, iv = bytes(16), bytes(12)
    body = bytes([pad]) + b"\x02" + bytes(14)
    length = struct.pack(">I", len(body))
    packet = memoryview(length + AESGCM(key).encrypt(iv, body, length))
    opener = GcmOpener(AESGCM(key), iv)
    assert opener.measure(packet, 0) == len(packet)
    with pytest.raises(Damaged, match="padding"):
        opener.open(packet, memoryview(bytearray(100)), 0)


@given(st.binary(min_size=64, max_size=400))
@settings(max_examples=200)
def test_noise_is_an_error_and_never_a_hang(noise: bytes) -> None:
    for suite in (Suite(), GCM):
        with pair(suite) as ends:
            ends.sockets[1].sendall(noise)
            ends.sockets[1].shutdown(socket.SHUT_WR)
            with pytest.raises((paramiko.SSHException, EOFError)):
                read_on(ends.ours)


@given(st.integers(0, 40000), st.sampled_from((8, 16)), st.sampled_from((0, 4)))
def test_padding_is_as_paramiko_has_it(size: int, block: int, clear: int) -> None:
    pad = padding(size, block, clear)
    assert 4 <= pad < block + 4
    assert (5 - clear + size + pad) % block == 0


def test_nothing_of_an_earlier_packet_is_left_in_the_padding() -> None:
    batch = PacketBatch()
    key, iv = bytes(16), bytes(12)
    near, far = socket.socketpair()
    with near, far:
        far.sendall(b"s" * DATA)
        assert batch.fill(near, DATA, DATA) == DATA
        far.sendall(b"!")
        assert batch.fill(near, DATA, DATA) == 1
    batch.address(1)
    [(body, size)] = batch.packets
    wire = memoryview(bytearray(200))
    count = GcmSealer(AESGCM(key), iv).seal_into(body, size, wire)
    plain = AESGCM(key).decrypt(iv, bytes(wire[4:count]), bytes(wire[:4]))
    assert plain[1 : 1 + size] == struct.pack(">BII", 94, 1, 1) + b"!"
    assert plain[1 + size :] == bytes(plain[0])


def test_older_cryptography_seals_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `encrypt_into` and `decrypt_into`, which came with 47."""

    class Old:
        def __init__(self, key: bytes) -> None:
            self.encrypt, self.decrypt = AESGCM(key).encrypt, AESGCM(key).decrypt

    key, iv = bytes(16), bytes(12)
    wires = []
    for engine in (AESGCM(key), Old(key)):
        body = memoryview(bytearray(b"\0" + b"payload" + bytes(40)))
        wire = memoryview(bytearray(100))
        count = GcmSealer(engine, iv).seal_into(body, 7, wire)  # type: ignore[arg-type]  # its likeness
        wires.append(bytes(wire[:count]))
        opened = GcmOpener(engine, iv).open(wire[:count], memoryview(bytearray(200)), 0)  # type: ignore[arg-type]
        assert bytes(opened) == b"payload"
    assert wires[0] == wires[1]
    assert sealing.TAG == 16
