"""paramiko's own packetizer behind the same forwarder, for the day when a new paramiko does not fit ours.

Slower, and right: it reads packet by packet, and what is sent goes through a thread of its own, because paramiko waits
where ours does not: for a full socket, and for an exchange of keys.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_KEXINIT, MSG_NEWKEYS
from paramiko.message import Message
from paramiko.packet import Packetizer as Theirs

from jupyman.ssh.inbox import PATIENCE
from jupyman.ssh.messages import CHANNEL_MESSAGES, FIRST_CHANNEL, SIGNS_OF_LIFE, Router, data_of, number_of
from jupyman.ssh.outbox import FLOOD, PIECE
from jupyman.ssh.sealing import MAX_PACKET

log = logging.getLogger(__name__)

FULL = 256 * 1024  # bytes that wait to be sent before the forwarder stops reading


class PlainOutbox:
    """What the forwarder sends by.

    Args:
        sock: of the connection.

    Attributes:
        say: sends a message, and waits while keys are exchanged: Transport's own.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.on_stuck: Callable[[], None] | None = None
        self.say: Callable[[Message], None] | None = None
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._thread: threading.Thread | None = None
        self._over = False

    @property
    def room(self) -> bool:
        """Whether more may be sent; where not, `on_stuck` follows."""
        return self._waiting < FULL

    def flush(self) -> bool:
        """Do nothing: the thread does."""
        return True

    def send(self, payload: bytes, *, wait: bool) -> None:  # noqa: ARG002 - nobody who may wait comes here
        """Send a message, without waiting."""
        with self._lock:
            if self._over:
                return
            self._waiting += len(payload)
            if self._waiting + PIECE * self._queue.qsize() > FLOOD:
                log.warning("a connection is ended: the host asks for answers, and does not read them")
                self._over = True
                with contextlib.suppress(OSError):
                    self.sock.shutdown(socket.SHUT_RDWR)
                return
            self._queue.put(payload)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="packets", daemon=True)
                self._thread.start()

    def post(self, packets: list[tuple[memoryview, int]]) -> None:
        """Send packets of data, as `Tray` has them, without waiting."""
        for body, size in packets:
            self.send(bytes(body[1 : 1 + size]), wait=False)

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            self._over = True
        self._queue.put(None)

    def _run(self) -> None:
        while (payload := self._queue.get()) is not None:
            with self._lock:
                self._waiting -= len(payload)
                quiet = self._waiting < FULL
            try:
                if self.say is not None:
                    self.say(Message(payload))
            except (OSError, EOFError, paramiko.SSHException) as error:
                # With a packet missing the connection is worth nothing.
                log.debug("a packet could not be sent: %s", error)
                with contextlib.suppress(OSError):
                    self.sock.shutdown(socket.SHUT_RDWR)
                return
            if quiet and self.on_stuck is not None:
                self.on_stuck()


class PlainPacketizer(Theirs):
    """paramiko's packetizer, which keeps the channels of the router apart; attributes as for `Packetizer`."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.settimeout(PATIENCE)
        self.heard = time.monotonic()
        self.router: Router | None = None
        self.on_room: Callable[[], None] | None = None
        self.outbox = PlainOutbox(sock)
        self._sock = sock
        self._exchanging = False

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Read bytes; of a packet no more than it may have: paramiko believes any length, of a stranger too."""
        if n > MAX_PACKET:
            raise paramiko.SSHException(f"the server announces a packet of {n} bytes")
        data: bytes = super().read_all(n, check_rekey)
        return data

    def read_message(self) -> tuple[int, Message]:
        """Read until a message comes that is not for the router; see `Packetizer.read_message`."""
        while True:
            kind, message = super().read_message()
            if kind in SIGNS_OF_LIFE:
                self.heard = time.monotonic()
            if kind == MSG_KEXINIT:
                self._exchanging = True
            elif kind == MSG_NEWKEYS:
                self._exchanging = False
            router = self.router
            if router is None or kind not in CHANNEL_MESSAGES or self._exchanging:
                return kind, message
            payload = memoryview(bytes([kind]) + message.asbytes())
            number = number_of(payload)
            if number < FIRST_CHANNEL:
                return kind, message
            if kind == MSG_CHANNEL_DATA:
                router.data(number, [data_of(payload)])
            else:
                router.message(kind, number, payload)

    def close(self) -> None:
        """End the connection; a thread that reads wakes up."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        super().close()
