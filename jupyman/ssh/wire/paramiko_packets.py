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
from typing import Any

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_KEXINIT, MSG_NEWKEYS
from paramiko.message import Message
from paramiko.packet import NeedRekeyException
from paramiko.packet import Packetizer as Theirs

from jupyman.ssh.wire.compat import Incoming, Sift
from jupyman.ssh.wire.messages import CHANNEL_MESSAGES, FIRST_CHANNEL, SIGNS_OF_LIFE, Router, data_of, number_of
from jupyman.ssh.wire.packets import MAX_PACKET, Damaged
from jupyman.ssh.wire.receiver import LINE, PATIENCE
from jupyman.ssh.wire.sender import FLOOD, PIECE

log = logging.getLogger(__name__)

FULL = 256 * 1024  # bytes that wait to be sent before the forwarder stops reading


class ParamikoPacketSender:
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


class ParamikoPacketizer(Theirs):
    """paramiko's packetizer, which keeps the channels of the router apart; attributes as for `Packetizer`.

    Only the transport's thread reads; the attributes that begin with an underscore are its own.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.settimeout(PATIENCE)
        self.heard = time.monotonic()
        self.router: Router | None = None
        self.on_room: Callable[[], None] | None = None
        self.sift: Sift | None = None
        self.outbox = ParamikoPacketSender(sock)
        self._sock = sock
        self._rest = bytearray()  # came behind the greeting's line
        self._exchanging = False  # from the host's KEXINIT to its NEWKEYS
        self._asked = False  # Transport was told that new keys are needed

    def readline(self, timeout: float) -> str:
        """Read a line of the host's greeting, whatever its bytes are; see `Inbox.line`."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._rest:
            if len(self._rest) > LINE:
                raise paramiko.SSHException("a greeting without an end")
            if time.monotonic() >= deadline:
                raise TimeoutError
            self._rest += self._some(LINE)
        line, _, rest = bytes(self._rest).partition(b"\n")
        self._rest = bytearray(rest)
        return line.removesuffix(b"\r").decode("utf-8", "replace")

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """Read bytes; of a packet no more than it may have: paramiko believes any length, of a stranger too."""
        if n > MAX_PACKET:
            raise paramiko.SSHException(f"the server announces a packet of {n} bytes")
        if n <= 0:
            return b""
        taken = self._rest[:n]
        del self._rest[:n]
        while len(taken) < n:
            if self.handshake_timed_out():
                raise EOFError
            taken += self._some(n - len(taken))
            if not taken and check_rekey and self.need_rekey():
                raise NeedRekeyException
        return bytes(taken)

    def _some(self, size: int) -> bytes:
        """Return what has come, up to `size` bytes; none where nothing came for `PATIENCE` seconds.

        Raises:
            EOFError, OSError: the connection has ended.
        """
        try:
            data = self._sock.recv(size)
        except TimeoutError as error:
            if error.errno:  # ETIMEDOUT: the kernel has given up
                raise
            if self.closed:
                raise EOFError from None
            return b""
        except OSError:
            if self.closed:
                raise EOFError from None
            raise
        if not data:
            raise EOFError
        return data

    def set_inbound_cipher(self, *words: Any, **named: Any) -> None:
        """Open with new keys from now on: the wish for them is granted."""
        super().set_inbound_cipher(*words, **named)
        self._asked = False

    def read_message(self) -> tuple[int, Message]:
        """Read until a message comes that is not for the router; see `Packetizer.read_message`."""
        while True:
            if not self._asked and self.need_rekey():
                # Transport looks for that wish between messages only, and during a download none may come for hours.
                self._asked = True
                raise NeedRekeyException
            kind, message = self._opened()
            if kind in SIGNS_OF_LIFE:
                self.heard = time.monotonic()
            if kind == MSG_KEXINIT:
                self._exchanging = True
            elif kind == MSG_NEWKEYS:
                self._exchanging = False
            router = self.router
            if router is not None and kind in CHANNEL_MESSAGES and not self._exchanging:
                payload = memoryview(bytes([kind]) + message.asbytes())
                number = number_of(payload)
                if number >= FIRST_CHANNEL:
                    if kind == MSG_CHANNEL_DATA:
                        router.data(number, [data_of(payload)])
                    else:
                        router.message(kind, number, payload)
                    continue
            if self.sift is None or not self.sift(kind, message):
                return kind, message

    def _opened(self) -> tuple[int, Incoming]:
        """Read a message.

        Raises:
            Damaged: it is no packet that the host sealed; paramiko leaves it to the cipher and others to say so.
            SSHException, NeedRekeyException, EOFError, OSError: as paramiko's.
        """
        try:
            kind, message = super().read_message()
        except (paramiko.SSHException, NeedRekeyException, EOFError, OSError):
            raise
        except Exception as error:
            raise Damaged(f"a packet came damaged ({type(error).__name__})") from error
        return kind, Incoming(message.asbytes(), message.seqno)

    def close(self) -> None:
        """End the connection; a thread that reads wakes up."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        super().close()
