"""Every kind of cipher of an sshd, and new keys under full load both ways."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jupyman.ssh.forward.forwarder import Forwarder
from jupyman.ssh.link import Link
from jupyman.ssh.wire import messages, packetizer
from jupyman.ssh.wire.paramiko_packets import ParamikoPacketizer
from tests.bed.sockets import connect, echo, read_all, send_all, serving
from tests.bed.sshd import private_sshd
from tests.bed.wait import wait_until

SUITES = [
    ("aes128-gcm@openssh.com", ""),
    ("aes256-gcm@openssh.com", ""),
    ("aes128-ctr", "hmac-sha2-256"),
    ("aes256-ctr", "hmac-sha2-512"),
    ("aes192-ctr", "hmac-sha2-256-etm@openssh.com"),
    ("aes128-ctr", "hmac-sha2-512-etm@openssh.com"),
    ("aes128-ctr", "hmac-sha1"),
    ("aes256-cbc", "hmac-sha2-256"),
]


@contextlib.contextmanager
def forwarding(link: Link) -> Iterator[Forwarder]:
    one = Forwarder("ciphers")
    one.attach(link)
    try:
        yield one
    finally:
        one.close()


def echoed(forwarder: Forwarder, data: bytes) -> bool:
    with serving(echo) as target, ThreadPoolExecutor(1) as pool, connect(forwarder.listen(0, target)) as sock:
        sock.settimeout(30)
        sending = pool.submit(send_all, sock, data)
        came = read_all(sock)
        sending.result()
        return came == data


@pytest.mark.usefixtures("packets")
@pytest.mark.parametrize(("cipher", "mac"), SUITES, ids=lambda value: value or "aead")
def test_each_cipher_carries_forwards_and_commands(tmp_path: Path, cipher: str, mac: str) -> None:
    options = [f"Ciphers {cipher}", *([f"MACs {mac}"] if mac else []), "RekeyLimit 1M"]
    with private_sshd(tmp_path / "bed", *options) as sshd, contextlib.closing(sshd.open()) as link:
        transport: Any = link.transport
        assert transport.remote_cipher == transport.local_cipher == cipher
        if mac:
            assert transport.remote_mac == mac
        with forwarding(link) as forwarder:
            assert echoed(forwarder, os.urandom(3_000_000))
        done = link.run("head -c 1500000 /dev/zero\n", timeout=20)
        assert (len(done.stdout), done.status) == (1_500_000, 0)
        assert link.heartbeat(5) < 5


@pytest.mark.usefixtures("packets")
def test_compression_if_both_ends_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paramiko.Transport._preferred_compression", ("zlib@openssh.com", "none"))
    with (
        private_sshd(tmp_path / "bed", "Compression yes", "RekeyLimit 500K") as sshd,
        contextlib.closing(sshd.open()) as link,
        forwarding(link) as forwarder,
    ):
        assert link.transport.local_compression == "zlib@openssh.com"
        assert echoed(forwarder, os.urandom(500_000) + bytes(1_500_000))
        assert link.run("echo on\n", timeout=10).stdout == b"on\n"


# --- new keys under load ------------------------------------------------------------------------------------------


@pytest.fixture(params=["the host's limit", "our limit", "both"])
def wearing(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packets: None
) -> Iterator[tuple[Link, list[int]]]:
    """A link whose keys wear out soon, and how often each side announced an exchange of them."""
    if request.param != "the host's limit":
        monkeypatch.setattr(packetizer, "REKEY_BYTES", 700_000)
        monkeypatch.setattr(ParamikoPacketizer, "REKEY_BYTES", 700_000)
    options = ["RekeyLimit 700K"] if request.param != "our limit" else []
    with private_sshd(tmp_path / "bed", *options) as sshd, contextlib.closing(sshd.open()) as link:
        asked = [0]
        transport: Any = link.transport
        send = transport._send_kex_init

        def counted() -> None:
            asked[0] += 1
            send()

        monkeypatch.setattr(transport, "_send_kex_init", counted)
        yield link, asked


def test_new_keys_under_load_both_ways(wearing: tuple[Link, list[int]]) -> None:
    link, asked = wearing
    size = 12_000_000
    up, down = random.Random(1).randbytes(size), random.Random(2).randbytes(size)

    def pieces(sock: socket.socket, data: bytes, seed: int) -> None:
        chosen, at = random.Random(seed), 0
        while at < len(data):
            step = chosen.choice((1, 1000, 65536, 300_000))
            sock.sendall(data[at : at + step])
            at += step
        sock.shutdown(socket.SHUT_WR)

    def handler(connection: socket.socket) -> None:
        connection.settimeout(60)
        with ThreadPoolExecutor(1) as pool:
            saying = pool.submit(pieces, connection, down, 3)
            heard = read_all(connection)
            saying.result()
        checked.append(hashlib.sha256(heard).digest() == hashlib.sha256(up).digest())

    def one(seed: int) -> bool:
        with connect(listener) as sock, ThreadPoolExecutor(1) as pool:
            sock.settimeout(60)
            saying = pool.submit(pieces, sock, up, seed)
            heard = read_all(sock)
            saying.result()
            return hashlib.sha256(heard).digest() == hashlib.sha256(down).digest()

    checked: list[bool] = []
    with forwarding(link) as forwarder, serving(handler) as target, ThreadPoolExecutor(3) as pool:
        listener = forwarder.listen(0, target)
        streams = [pool.submit(one, seed) for seed in range(2)]
        # Commands in the meantime: their channels end, and ask for things, in the middle of exchanges.
        done = [link.run(f"echo {number}; head -c 100000 /dev/zero\n", timeout=60) for number in range(8)]
        assert all(stream.result() for stream in streams)
        # The program here has said all as soon as its kernel has it.
        wait_until(lambda: len(checked) == 2, 60, "all that was said to arrive")
        assert listener.stats()[1:] == (2 * size, 2 * size)
    assert checked == [True, True]
    assert [one.stdout.split(b"\n")[0] for one in done] == [b"%d" % number for number in range(8)]
    assert asked[0] >= 5  # on a busy machine an exchange takes longer than the keys last
    assert link.alive


def test_new_keys_while_no_one_reads(wearing: tuple[Link, list[int]]) -> None:
    """A window that is used up when the keys change is opened right afterwards, without more data."""
    link, asked = wearing
    size = 6_000_000

    def flood(connection: socket.socket) -> None:
        connection.sendall(bytes(size))

    with forwarding(link) as forwarder, serving(flood) as target, serving(echo) as other:
        slow, quick = forwarder.listen(0, target), forwarder.listen(0, other)
        with connect(slow) as sock:
            sock.settimeout(30)
            received = len(sock.recv(1))
            for _ in range(6):
                with connect(quick) as one:
                    one.settimeout(30)
                    one.sendall(bytes(100_000))
                    one.shutdown(socket.SHUT_WR)
                    assert len(read_all(one)) == 100_000
                received += len(sock.recv(1 << 16))
            while chunk := sock.recv(1 << 18):
                received += len(chunk)
        assert received == size
    assert asked[0] >= 1
    assert link.alive


@pytest.mark.usefixtures("packets")
@pytest.mark.parametrize("direction", ["down", "up"])
def test_one_stream_outlives_its_keys_by_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: str) -> None:
    """No message but the stream's own comes, and it goes on for longer than the old keys may be used at all."""
    monkeypatch.setattr(packetizer, "REKEY_BYTES", 4_000_000)
    monkeypatch.setattr(messages, "OVERDUE_BYTES", 32_000_000)
    monkeypatch.setattr(ParamikoPacketizer, "REKEY_BYTES", 4_000_000)
    monkeypatch.setattr(ParamikoPacketizer, "REKEY_BYTES_OVERFLOW_MAX", 32_000_000)
    block, times = os.urandom(1_000_000), 60
    expected = hashlib.sha256(block * times).hexdigest()
    heard: list[str] = []

    def say(sock: socket.socket) -> None:
        for _ in range(times):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)

    def hear(sock: socket.socket) -> str:
        digest = hashlib.sha256()
        while chunk := sock.recv(1 << 18):
            digest.update(chunk)
        return digest.hexdigest()

    def handler(connection: socket.socket) -> None:
        if direction == "down":
            say(connection)
        else:
            heard.append(hear(connection))

    with private_sshd(tmp_path / "bed") as sshd, contextlib.closing(sshd.open()) as link, forwarding(link) as forwarder:
        session = link.transport.session_id
        with serving(handler) as target, connect(forwarder.listen(0, target)) as sock:
            sock.settimeout(60)
            if direction == "down":
                heard.append(hear(sock))
            else:
                say(sock)
                wait_until(lambda: heard, 60, "all that was said to arrive")
        assert heard == [expected]
        assert link.alive
        assert link.transport.session_id == session
        assert link.heartbeat(5) < 5
