"""Our packetizer when keys wear out, sockets are full, and connections end."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading

import paramiko
import pytest
from paramiko.message import Message
from paramiko.packet import NeedRekeyException
from paramiko.packet import Packetizer as Theirs

from jupyman.ssh.wire.batch import PacketBatch
from jupyman.ssh.wire.packetizer import Packetizer
from tests.unit.ssh.packets import GCM, KEYED, Suite, pair, read_on, text

# --- keys wear out ------------------------------------------------------------------------------------------------


def test_new_keys_are_asked_for_once_by_bytes_received() -> None:
    with pair() as ends:
        ends.ours.rekey_bytes = 10_000
        ends.seal(GCM)
        for _ in range(20):
            ends.other.send_message(Message(b"\x02" + bytes(1000)))
        for _ in range(9):
            ends.ours.read_message()
            assert not ends.ours.need_rekey()
        with pytest.raises(NeedRekeyException):
            read_on(ends.ours)
        assert ends.ours.need_rekey()
        ends.ours.read_message()  # what is still on its way is read
        ends.seal(GCM)
        assert not ends.ours.need_rekey()


def test_new_keys_are_asked_for_by_packets_sent() -> None:
    with pair() as ends:
        ends.ours.rekey_packets = 10
        ends.seal(GCM)
        ends.other.send_message(Message(b"\x02first"))
        ends.ours.read_message()
        for _ in range(10):
            ends.ours.send_message(Message(b"\x02x"))
        assert not ends.ours.need_rekey()  # it is for the transport's thread to say
        with pytest.raises(NeedRekeyException):
            ends.ours.read_message()
        assert ends.ours.need_rekey()


def test_no_new_keys_are_asked_for_during_an_exchange() -> None:
    with pair() as ends:
        ends.ours.rekey_packets = 3
        ends.seal(GCM)
        ends.other.send_message(Message(b"\x14 KEXINIT"))
        for _ in range(5):
            ends.other.send_message(Message(b"\x1f kex"))
        assert ends.ours.read_message()[0] == 20
        for _ in range(5):
            assert ends.ours.read_message()[0] == 31
        assert not ends.ours.need_rekey()


def test_a_host_that_ignores_a_request_for_new_keys_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyman.ssh.wire.messages.OVERDUE_PACKETS", 5)
    with pair() as ends:
        ends.ours.rekey_packets = 1
        ends.seal(GCM)
        for _ in range(10):
            ends.other.send_message(Message(b"\x02x"))
        ends.ours.read_message()
        with pytest.raises(NeedRekeyException):
            ends.ours.read_message()
        with pytest.raises(paramiko.SSHException, match="new keys"):
            read_on(ends.ours)


def test_small_blocks_wear_out_sooner() -> None:
    with pair() as ends:
        ends.seal(Suite("3des-cbc", "hmac-sha2-256"))
        assert ends.ours.sender.limit[0] == 1 << 29
        ends.seal(GCM)
        assert ends.ours.sender.limit[0] == 1 << 33


def test_nothing_but_the_exchange_is_sent_during_it_and_the_rest_follows_in_order() -> None:
    batch = PacketBatch()
    with pair(GCM) as ends:
        box = ends.ours.sender
        ends.ours.send_message(Message(b"\x14 KEXINIT"))
        assert not box.room
        box.send(b"\x5d one", wait=False)  # WINDOW_ADJUST
        ends.ours.send_message(Message(b"\x1e kex"))
        box.send(b"\x61 two", wait=False)  # CLOSE
        near, far = socket.socketpair()
        with near, far:
            far.sendall(b"data")
            batch.fill(near, 100, 32768)
        batch.address(9)
        box.post(batch.packets)
        ends.ours.send_message(Message(b"\x05 service"))
        ends.ours.send_message(Message(b"\x15 NEWKEYS"))
        assert [ends.other.read_message()[0] for _ in range(3)] == [20, 30, 21]
        ends.seal(GCM)
        box.send(b"\x02 not yet: Transport may still set a compressor", wait=False)
        called = threading.Event()
        ends.ours.on_room = called.set
        ends.other.send_message(Message(b"\x02x"))
        ends.ours.read_message()
        assert called.is_set()
        assert box.room
        assert [ends.other.read_message()[0] for _ in range(5)] == [2, 93, 97, 94, 5]


def test_sequence_numbers_do_not_run_out_before_the_first_keys() -> None:
    with pair() as ends:
        ends.ours.sender.number = (1 << 32) - 1
        with pytest.raises(paramiko.SSHException, match="ran out"):
            ends.ours.send_message(Message(b"\x02x"))


def test_sequence_numbers_begin_again_under_keys() -> None:
    with pair(Suite("aes128-ctr", "hmac-sha2-256")) as ends:
        ends.ours._initial_kex_done = ends.other._initial_kex_done = True
        ends.ours.sender.number = ends.ours.reader.number = (1 << 32) - 1
        ends.other._Packetizer__sequence_number_in = ends.other._Packetizer__sequence_number_out = (1 << 32) - 1
        for sent in (b"\x02last", b"\x02first"):
            ends.ours.send_message(Message(sent))
            assert text(ends.other.read_message()[1]) == sent[1:]
            ends.other.send_message(Message(sent))
            assert text(ends.ours.read_message()[1]) == sent[1:]


# --- sockets that are full, ends, greetings -----------------------------------------------------------------------


def test_a_full_socket_blocks_only_callers_that_wait() -> None:
    with pair(GCM, other=Packetizer) as ends:
        box = ends.ours.sender
        called = threading.Event()
        box.on_stuck = called.set
        count = 0
        while not called.is_set():
            box.send(b"\x02" + bytes(30000), wait=False)
            count += 1
        assert not box.room
        assert not box.flush()
        sent = threading.Event()

        def last() -> None:
            ends.ours.send_message(Message(b"\x03last"))
            sent.set()

        waiting = threading.Thread(target=last)
        waiting.start()
        assert not sent.wait(0.1)
        for _ in range(count):
            assert len(text(ends.other.read_message()[1])) == 30000
        assert text(ends.other.read_message()[1]) == b"last"
        waiting.join(5)
        assert sent.is_set()
        assert box.room


def test_a_host_that_asks_and_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyman.ssh.wire.sender.FLOOD", 4_000_000)
    with pair(GCM) as ends:
        ends.ours.sender.on_stuck = lambda: None
        for _ in range(300):
            ends.ours.sender.send(b"\x02" + bytes(30000), wait=False)
        with pytest.raises(EOFError):
            ends.ours.read_message()


def test_closing_wakes_a_reader_and_a_writer() -> None:
    with pair(GCM) as ends:
        ended: list[str] = []

        def read() -> None:
            with pytest.raises(EOFError):
                ends.ours.read_message()
            ended.append("reader")

        def write() -> None:
            with pytest.raises(EOFError):
                send_on()
            ended.append("writer")

        def send_on() -> None:
            while True:
                ends.ours.send_message(Message(b"\x02" + bytes(30000)))

        threads = [threading.Thread(target=one) for one in (read, write)]
        for thread in threads:
            thread.start()
        while not ends.ours.sender._waiting:
            threading.Event().wait(0.01)
        ends.ours.close()
        for thread in threads:
            thread.join(5)
        assert sorted(ended) == ["reader", "writer"]
        assert ends.ours.closed
        assert ends.sockets[0].fileno() == -1


def test_the_greeting_is_read_line_by_line() -> None:
    with pair() as ends:
        ends.sockets[1].sendall(b"notice\r\nSSH-2.0-x y\nrest")
        assert ends.ours.readline(5) == "notice"
        assert ends.ours.readline(5) == "SSH-2.0-x y"
        assert ends.ours.read_all(4) == b"rest"
        with pytest.raises(TimeoutError):
            ends.ours.readline(0.05)
        ends.sockets[1].sendall(b"x" * 9000)
        with pytest.raises(paramiko.SSHException, match="without an end"):
            ends.ours.readline(5)


def test_packets_right_behind_the_greeting_are_kept() -> None:
    with pair() as ends:
        ends.sockets[1].sendall(b"SSH-2.0-x\r\n")
        ends.other.send_message(Message(b"\x02hello"))
        assert ends.ours.readline(5) == "SSH-2.0-x"
        assert text(ends.ours.read_message()[1]) == b"hello"


def test_a_greeting_that_drips_is_late_too() -> None:
    with pair() as ends:
        ends.ours.start_handshake(0.2)
        ended = threading.Event()

        def drip() -> None:
            ends.sockets[1].sendall(struct.pack(">I", 35004))
            while not ended.wait(0.05):
                with contextlib.suppress(OSError):
                    ends.sockets[1].sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with pytest.raises(EOFError):
                ends.ours.read_message()
        finally:
            ended.set()
            dripping.join()
        assert ends.watchdog is not None
        assert ends.watchdog.is_alive(), "it was the watchdog"


def test_the_log_has_kinds_and_sizes_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with pair(GCM) as ends:
        ends.ours.set_log(logging.getLogger("packets"))
        ends.ours.set_hexdump(True)
        assert ends.ours.get_hexdump()
        caplog.set_level(logging.DEBUG)
        ends.ours.send_message(Message(b"\x02my password"))
        ends.other.send_message(Message(b"\x02my password"))
        ends.ours.read_message()
    ours = [record.getMessage() for record in caplog.records if record.name == "packets"]
    assert ours == ["sent message 2, 12 bytes", "read message 2, 12 bytes"]


def test_what_transport_asks_for_besides() -> None:
    with pair() as ends:
        ours, theirs = ends.ours, ends.other
        assert isinstance(theirs, Theirs)
        for suite in KEYED:
            ends.seal(suite)
            assert ours.get_mac_size_in() == theirs.get_mac_size_in()
            assert ours.get_mac_size_out() == theirs.get_mac_size_out()
        assert not ours.handshake_timed_out()
        ours.start_handshake(1000)
        assert not ours.handshake_timed_out()
        ours.read_timer()
        assert ours.handshake_timed_out()
        ours.complete_handshake()
        assert not ours.handshake_timed_out()
        beats: list[int] = []
        ours.set_keepalive(0.01, lambda: beats.append(1))
        ours._initial_kex_done = True
        threading.Event().wait(0.05)  # the interval itself
        ours._idle()
        assert beats == [1]
        ours.set_keepalive(0, lambda: None)
        ours._idle()
