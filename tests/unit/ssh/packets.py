"""Two ends of a connection for the tests of the packetizer: ours, and paramiko's own as the oracle."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import paramiko
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from paramiko.message import Message
from paramiko.packet import Packetizer as Theirs

from jupyman.ssh.wire.packetizer import Packetizer

LIMIT = 20.0  # seconds; a test that hangs is ended by it


@dataclass(frozen=True)
class Suite:
    """A cipher and a MAC as SSH names them; "" before the first keys."""

    cipher: str = ""
    mac: str = ""

    def __str__(self) -> str:
        return f"{self.cipher or 'clear'} {self.mac}".strip()


GCM = Suite("aes128-gcm@openssh.com")
SUITES = [
    Suite(),
    GCM,
    Suite("aes256-gcm@openssh.com"),
    Suite("aes128-ctr", "hmac-sha2-256"),
    Suite("aes192-ctr", "hmac-sha2-512"),
    Suite("aes256-ctr", "hmac-sha1"),
    Suite("aes128-ctr", "hmac-sha1-96"),
    Suite("aes128-ctr", "hmac-sha2-256-etm@openssh.com"),
    Suite("aes256-ctr", "hmac-sha2-512-etm@openssh.com"),
    Suite("aes256-cbc", "hmac-sha2-256"),
    Suite("aes128-cbc", "hmac-sha2-512-etm@openssh.com"),
    Suite("3des-cbc", "hmac-md5"),
]
KEYED = SUITES[1:]


class Pair:
    """Ours, with one of paramiko's (or another of ours) at the other end."""

    def __init__(self, ours: Packetizer, other: Any, sockets: tuple[socket.socket, socket.socket]) -> None:
        self.ours = ours
        self.other = other
        self.sockets = sockets
        self.watchdog: threading.Timer | None = None

    def seal(self, suite: Suite) -> None:
        """Give both the same new keys, in both directions; NEWKEYS, which goes before, is not sent."""
        for sender, reader in ((self.ours, self.other), (self.other, self.ours)):
            _seal(sender, reader, suite)


def _seal(sender: Any, reader: Any, suite: Suite) -> None:
    info: dict[str, Any] = getattr(paramiko.Transport, "_cipher_info")[suite.cipher]  # noqa: B009 - not in the stubs
    key = os.urandom(info["key-size"])
    if info.get("is_aead"):
        iv = os.urandom(12)
        sender.set_outbound_cipher(AESGCM(key), 16, None, 16, None, aead=True, iv_out=iv)
        reader.set_inbound_cipher(AESGCM(key), 16, None, 16, None, aead=True, iv_in=iv)
        return
    mac: dict[str, Any] = getattr(paramiko.Transport, "_mac_info")[suite.mac]  # noqa: B009 - likewise
    block = info["block-size"]
    cipher = Cipher(info["class"](key), info["mode"](os.urandom(block)))
    etm = "etm" in suite.mac
    signing = os.urandom(mac["class"]().digest_size)
    words = (block, mac["class"], mac["size"], signing)
    sender.set_outbound_cipher(cipher.encryptor(), *words, sdctr=suite.cipher.endswith("-ctr"), etm=etm)
    reader.set_inbound_cipher(cipher.decryptor(), *words, etm=etm)


@contextlib.contextmanager
def pair(suite: Suite | None = None, other: type = Theirs) -> Iterator[Pair]:
    """Connect the two; whatever hangs is ended after `LIMIT`."""
    left, right = socket.socketpair()
    for one in (left, right):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    made = Pair(Packetizer(left), other(right), (left, right))
    watchdog = threading.Timer(LIMIT, left.shutdown, [socket.SHUT_RDWR])
    watchdog.daemon = True
    watchdog.start()
    made.watchdog = watchdog
    try:
        if suite is not None and suite.cipher:
            made.seal(suite)
        yield made
    finally:
        watchdog.cancel()
        watchdog.join()
        made.ours.close()
        made.ours.sender.close()
        made.other.close()
        if isinstance(made.other, Packetizer):
            made.other.sender.close()


def messages(seed: int, count: int = 60) -> list[bytes]:
    """Random messages to paramiko's own layer: small ones, large ones, and every length around the block sizes."""
    chosen = random.Random(seed)
    sizes = [
        *range(1, 40),
        *(chosen.choice((chosen.randrange(1, 300), chosen.randrange(1, 35000))) for _ in range(count)),
    ]
    # 2 is MSG_IGNORE: not one that anything is done with here.
    return [b"\x02" + chosen.randbytes(size) for size in sizes]


def read_on(packetizer: Packetizer) -> None:
    """Read until that is an error."""
    while True:
        packetizer.read_message()


def text(message: Message) -> bytes:
    """What a message carries, its kind left out."""
    return bytes(message.asbytes())


def digest(data: bytes) -> str:
    """Return a digest, short enough to be printed when two differ."""
    return hashlib.sha256(data).hexdigest()
