"""paramiko's own packetizer behind the same forwarder, in case a new paramiko does not fit ours.

It is slower: it reads packet by packet in Transport's thread and hands each to the loop, and a thread of its own sends,
because paramiko waits when ours does not: for a full socket, and for a key exchange.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_KEXINIT, MSG_NEWKEYS
from paramiko.message import Message
from paramiko.packet import NeedRekeyException
from paramiko.packet import Packetizer as Theirs

from jupyman.ssh.io.loop import Loop
from jupyman.ssh.wire.compat import Filter, Incoming
from jupyman.ssh.wire.messages import CHANNEL_MESSAGES, FIRST_CHANNEL, SIGNS_OF_LIFE, Router, data_of, number_of
from jupyman.ssh.wire.packets import MAX_PACKET, Damaged
from jupyman.ssh.wire.receiver import LINE, PATIENCE
from jupyman.ssh.wire.sender import FLOOD, PIECE

log = logging.getLogger(__name__)

FULL = 256 * 1024  # bytes that wait to be sent when the forwarder stops reading


class ParamikoPacketSender:
    """Sends the messages of the channels.

    Args:
        sock: of the connection.

    Attributes:
        transport_send: Transport's own way to send a message, which waits during a key exchange.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.on_stuck: Callable[[], None] | None = None
        self.transport_send: Callable[[Message], None] | None = None
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._thread: threading.Thread | None = None
        self._over = False

    @property
    def room(self) -> bool:
        """Whether more may be sent; if not, `on_stuck` follows."""
        return self._waiting < FULL

    def flush(self) -> bool:
        """Do nothing: the thread does."""
        return True

    def send(self, payload: bytes, *, wait: bool) -> None:  # noqa: ARG002 - it never waits
        """Send a message, without waiting."""
        with self._lock:
            if self._over:
                return
            self._waiting += len(payload)
            if self._waiting + PIECE * self._queue.qsize() > FLOOD:
                log.warning("disconnected: the host asks for answers and does not read them")
                self._over = True
                with contextlib.suppress(OSError):
                    self.sock.shutdown(socket.SHUT_RDWR)
                return
            self._queue.put(payload)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="packets", daemon=True)
                self._thread.start()

    def send_all(self, payloads: list[bytes]) -> None:
        """Send messages, without waiting."""
        for payload in payloads:
            self.send(payload, wait=False)

    def post(self, packets: list[tuple[memoryview, int]]) -> None:
        """Send packets of data of a `PacketBatch`, without waiting."""
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
                if self.transport_send is not None:
                    self.transport_send(Message(payload))
            except (OSError, EOFError, paramiko.SSHException) as error:
                # With a packet missing the connection is useless.
                log.debug("a packet could not be sent: %s", error)
                with contextlib.suppress(OSError):
                    self.sock.shutdown(socket.SHUT_RDWR)
                return
            if quiet and self.on_stuck is not None:
                self.on_stuck()


class ParamikoPacketizer(Theirs):
    """paramiko's packetizer, with a router for our channels; attributes as for `Packetizer`.

    Only Transport's thread reads; the attributes that begin with an underscore are its own.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.settimeout(PATIENCE)
        self.heard = time.monotonic()
        self.router: Router | None = None
        self.on_room: Callable[[], None] | None = None
        self.filter: Filter | None = None
        self.loop: Loop | None = None
        self.sender = ParamikoPacketSender(sock)
        self._sock = sock
        self._rest = bytearray()  # what came after the line of the greeting
        self._exchanging = False  # from the host's KEXINIT to its NEWKEYS
        self._asked = False  # Transport has to begin a key exchange

    def readline(self, timeout: float) -> str:
        """Read a line of the host's greeting, of any bytes; see `PacketReceiver.line`."""
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
        """Read bytes, never more than a packet may have: paramiko trusts any length, even before the login."""
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
        """Return what has come, up to `size` bytes; none if nothing came for `PATIENCE` seconds.

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
        """Open with new keys from now on."""
        super().set_inbound_cipher(*words, **named)
        self._asked = False

    def read_message(self) -> tuple[int, Message]:
        """Read until a message comes that is not for the router; see `Packetizer.read_message`."""
        while True:
            if not self._asked and self.need_rekey():
                # Transport looks for that between its own messages only, and during a download none may come for hours.
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
                        self._route(partial(router.data, number, [data_of(payload)]))
                    else:
                        self._route(partial(router.message, kind, number, payload))
                    continue
            if self.filter is None or not self.filter(kind, message):
                return kind, message

    def _route(self, action: Callable[[], None]) -> None:
        """Hand a message on in the loop's thread, and wait for it: that bounds what is under way."""
        if self.loop is not None:
            self.loop.call(action)
        else:
            action()

    def _opened(self) -> tuple[int, Incoming]:
        """Read a message.

        Raises:
            Damaged: the host did not seal it; paramiko lets the cipher and others raise what they raise.
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
