"""The packets of one SSH connection: our own in place of paramiko's, by its public argument `packetizer_class`.

One read takes up to a megabyte, and all packets in it are opened without another system call. What belongs to channels
of ours goes straight to them; paramiko's Transport gets the rest.

Threads: until the login is done Transport's own thread reads. From then on the loop does, and puts what is for
Transport into a queue (`ready`, `_drain`, `_resume`, `_fail` and `_leave` run in the loop's thread). It stops after
NEWKEYS, because what follows is sealed with keys that Transport has yet to set; when new keys are needed, until
Transport has asked for them; and when the queue is full. It goes on when all was taken. Transport's thread changes the
reader only while the loop has stopped. In one turn the loop opens up to `TURN` packets; while more may be in memory it
does not watch the socket. `_told`, `_switched`, `_logged_in` and `_thread` belong to Transport's thread;
`_gone` guards `_closed`, `_busy` and `_loop`; the sender has a lock of its own.

Over 300 lines because Transport's interface and both ways of reading meet here.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from paramiko.common import MSG_NEWKEYS, MSG_USERAUTH_SUCCESS
from paramiko.message import Message
from paramiko.packet import NeedRekeyException

from jupyman.ssh.io.loop import READ, Loop
from jupyman.ssh.wire.compat import Filter
from jupyman.ssh.wire.messages import TURN, Found, MessageReader, Router
from jupyman.ssh.wire.packets import GcmOpener, GcmSealer, MacOpener, MacSealer, Opener, Sealer
from jupyman.ssh.wire.receiver import PATIENCE, PacketReceiver
from jupyman.ssh.wire.sender import PacketSender

# RFC 4344, section 3.2, allows 64 GiB under one AES key, and OpenSSH uses them up (packet.c); new keys stop the traffic
# for two round trips. For ciphers with small blocks, what paramiko does.
REKEY_BYTES = 1 << 33
REKEY_BYTES_SMALL = 1 << 29
REKEY_PACKETS = 1 << 29
QUEUE = 64  # messages that may wait for Transport's thread; more are left in the socket

# For Transport's thread: a message, the reader's error, or None: the loop has stopped until all before it was taken.
_Item = Found | Exception | None


class Packetizer:
    """What paramiko's Transport asks of a packetizer, and more.

    Args:
        sock: connected.

    Attributes:
        sender: the other direction.
        reader: this direction.
        loop: reads once the login is done; None: Transport's thread always does.
        on_room: called, in Transport's thread, when an exchange of keys is over.
        filter: called with each message that is for Transport, which does not get those that it deals with.
    """

    first = False

    def __init__(self, sock: socket.socket) -> None:
        self.rekey_bytes, self.rekey_packets = REKEY_BYTES, REKEY_PACKETS
        self.loop: Loop | None = None
        self.on_room: Callable[[], None] | None = None
        self.filter: Filter | None = None
        self.sock = sock
        self.mask = 0
        self._receiver = PacketReceiver(sock, self._idle)
        # The same connection once more, not blocking: a timeout would belong to both directions.
        ours = sock.dup()
        ours.setblocking(False)
        self.sender = PacketSender(ours)
        self.reader = MessageReader(self._receiver, self.sender, time.monotonic())
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._loop: Loop | None = None  # it reads
        self._stopped = False  # the loop does not read now; its own
        self._closed = self._busy = False
        self._gone = threading.Lock()
        self._thread = 0  # Transport's
        self._logged_in = False  # USERAUTH_SUCCESS was the last message that Transport got
        self._told = False  # Transport has to begin an exchange of keys
        self._switched = False  # our new keys are set, and the sender still holds back
        self._fresh = 0  # directions that have new keys: 1 out, 2 in
        self._logger: logging.Logger | None = None
        self._dump = False
        self._keepalive: tuple[float, Callable[[], None]] | None = None
        self._last_sent = time.monotonic()
        self._handshake_limit: float | None = None

    # --- what Transport sets ------------------------------------------------------------------------------------------

    @property
    def router(self) -> Router | None:
        """What has the channels from `FIRST_CHANNEL` on."""
        return self.reader.router

    @router.setter
    def router(self, router: Router) -> None:
        self.reader.router = router

    @property
    def heard(self) -> float:
        """When the host gave the last sign of life, on the monotonic clock."""
        return self.reader.heard

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def _initial_kex_done(self) -> bool:
        return not self.sender.initial

    @_initial_kex_done.setter
    def _initial_kex_done(self, done: bool) -> None:  # Transport sets it
        self.sender.initial = not done

    def set_log(self, log: logging.Logger) -> None:
        """Set where `set_hexdump` writes to."""
        self._logger = log

    def set_hexdump(self, hexdump: bool) -> None:
        """Log each message's kind and size; never what is in it."""
        self._dump = hexdump

    def get_hexdump(self) -> bool:
        """Return whether messages are logged."""
        return self._dump

    def get_mac_size_in(self) -> int:
        """Return the bytes of the tag on what comes."""
        return self.reader.tag

    def get_mac_size_out(self) -> int:
        """Return the bytes of the tag on what goes."""
        return self.sender.sealer.tag

    def reset_seqno_out(self) -> None:
        """Count from zero again (OpenSSH's strict key exchange)."""
        self.sender.number = 0

    def reset_seqno_in(self) -> None:
        """Count from zero again (OpenSSH's strict key exchange)."""
        self.reader.number = 0

    def set_outbound_cipher(
        self,
        block_engine: Any,
        block_size: int,
        mac_engine: Any,
        mac_size: int,
        mac_key: bytes | None,
        sdctr: bool = False,
        etm: bool = False,
        aead: bool = False,
        iv_out: bytes | None = None,
    ) -> None:
        """Seal with new keys from now on; NEWKEYS has been sent."""
        sealer: Sealer
        if aead:
            sealer = GcmSealer(block_engine, iv_out or b"")
        else:
            sealer = MacSealer(
                block_engine, block_size, mac_engine, mac_size, mac_key, etm=etm, random_padding=not sdctr
            )
        self.sender.renew(sealer, self._limit(block_size))
        # Not before Transport has set a compressor, too: in `read_message`.
        self._switched = True
        self._renewed(1)

    def set_inbound_cipher(
        self,
        block_engine: Any,
        block_size: int,
        mac_engine: Any,
        mac_size: int,
        mac_key: bytes | None,
        etm: bool = False,
        aead: bool = False,
        iv_in: bytes | None = None,
    ) -> None:
        """Open with new keys from now on; NEWKEYS has come."""
        opener: Opener
        if aead:
            opener = GcmOpener(block_engine, iv_in or b"")
        else:
            opener = MacOpener(block_engine, block_size, mac_engine, mac_size, mac_key, etm=etm)
        self.reader.renew(opener, self._limit(block_size))
        self._renewed(2)

    def _limit(self, block: int) -> tuple[int, int]:
        size = self.rekey_bytes if block >= 16 else min(self.rekey_bytes, REKEY_BYTES_SMALL)
        return size, self.rekey_packets

    def _renewed(self, direction: int) -> None:
        self._fresh |= direction
        if self._fresh == 3:
            self._fresh = 0
            self.reader.asked = self._told = False

    def set_outbound_compressor(self, compressor: Callable[[bytes], bytes]) -> None:
        """Compress from now on."""
        self.sender.deflate = compressor

    def set_inbound_compressor(self, compressor: Callable[[bytes], bytes]) -> None:
        """Decompress from now on."""
        self.reader.inflate = compressor

    def need_rekey(self) -> bool:
        """Return whether Transport should begin an exchange of keys.

        It changes only inside `read_message` and the two setters, in Transport's own thread: otherwise Transport
        would take a request that comes at the end of one exchange for that exchange, and never begin another.
        """
        return self._told

    def set_keepalive(self, interval: float, callback: Callable[[], None]) -> None:
        """Call back when nothing was sent for `interval` seconds, while nothing comes either."""
        self._keepalive = (interval, callback) if interval else None
        self._last_sent = time.monotonic()

    def start_handshake(self, timeout: float) -> None:
        """Give the handshake so many seconds."""
        if self._handshake_limit is None:
            self._handshake_limit = time.monotonic() + timeout

    def read_timer(self) -> None:
        """The handshake's time is over."""
        self._handshake_limit = 0.0

    def handshake_timed_out(self) -> bool:
        """Return whether it is over."""
        return self._handshake_limit is not None and time.monotonic() > self._handshake_limit

    def complete_handshake(self) -> None:
        """The handshake is done."""
        if self._handshake_limit is not None:
            self._handshake_limit = float("inf")

    def close(self) -> None:
        """End the connection: a thread that reads wakes up."""
        with self._gone:
            self._closed = True
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
            loop = self._loop
            # While a thread sleeps in it, its number must not become another connection's: then that thread closes.
            if loop is None and not self._busy:
                self._dispose()
        if loop is not None:
            self._queue.put(EOFError())
            loop.post(self._leave)

    def _dispose(self) -> None:
        self.sock.close()
        if self.router is None:  # else the router does, when the loop does not watch it any more
            self.sender.close()

    # --- sending ------------------------------------------------------------------------------------------------------

    def send_message(self, data: Message) -> None:
        """Send a message, or hold it while keys are exchanged.

        Raises:
            EOFError: the connection has ended.
        """
        payload = data.asbytes()
        if self._dump:
            self._log("sent", payload[0], len(payload))
        self._last_sent = time.monotonic()
        # If the loop sends what the socket does not take, Transport's thread and the loop's go on; all others wait.
        busy = self._thread == threading.get_ident() or (self.loop is not None and self.loop.inside)
        self.sender.send(payload, wait=not busy or self.sender.on_stuck is None)

    def write_all(self, out: bytes) -> None:
        """Send bytes that are no packet.

        Raises:
            EOFError: the connection has ended.
        """
        self.sender.raw(out)

    # --- reading, in Transport's thread -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._gone:
            if self._closed:
                raise EOFError
            self._busy = True
        try:
            yield
        finally:
            with self._gone:
                self._busy = False
                if self._closed:
                    self._dispose()

    def readline(self, timeout: float) -> str:
        """Read a line of the host's greeting; see `PacketReceiver.line`."""
        with self._reading():
            return self._receiver.line(timeout)

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:  # noqa: ARG002 - paramiko's signature
        """Read bytes that are no packet."""
        with self._reading():
            return self._receiver.raw(n)

    def read_message(self) -> tuple[int, Message]:
        """Wait for a message that is not for the router.

        Raises:
            SSHException: what came is damaged, or the host does not answer our request for new keys.
            NeedRekeyException: Transport should begin an exchange of keys.
            EOFError, OSError: the connection has ended.
        """
        self._thread = threading.get_ident()
        if self._switched:
            self._switched = False
            self.sender.reopen()
            if self.on_room is not None:
                self.on_room()
        if self._logged_in and self._loop is None:
            self._hand_over()
        while True:
            found = self._taken() if self._loop is not None else self._read()
            if isinstance(found, NeedRekeyException):
                self._told = True
                raise found
            kind, message = found
            if self._dump:
                self._log("read", kind, len(message.asbytes()) + 1)
            if self.filter is None or not self.filter(kind, message):
                self._logged_in = kind == MSG_USERAUTH_SUCCESS and self.loop is not None
                return kind, message

    def _read(self) -> Found:
        """Read until there is something for Transport."""
        with self._reading():
            while True:
                self.reader.left = TURN
                if (found := self.reader.next()) is not None:
                    return found
                if self.handshake_timed_out():
                    raise EOFError
                if self.reader.left:
                    self._receiver.fill()

    def _hand_over(self) -> None:
        """Have the loop read from now on."""
        assert self.loop is not None  # noqa: S101 - the caller looked
        with self._gone:
            if self._closed:
                raise EOFError
            self._loop = self.loop
            self.sock.setblocking(False)
        self._loop.post(self._resume)

    def _taken(self) -> Found:
        """Wait for what the loop has read."""
        while True:
            try:
                item = self._queue.get(timeout=PATIENCE)
            except queue.Empty:
                self._idle()
                continue
            if item is None:
                assert self._loop is not None  # noqa: S101 - only the loop puts it there
                self._loop.post(self._resume)
            elif isinstance(item, Exception) and not isinstance(item, NeedRekeyException):
                raise item
            else:
                return item

    def _idle(self) -> None:
        """Nothing has come for Transport for a while."""
        if self._closed or self.handshake_timed_out():
            raise EOFError
        if self.sender.wanted and not self.reader.asked:
            if self._loop is None:
                self.reader.asked = self._told = True
                raise NeedRekeyException
            self._loop.post(self._drain)
        if self._loop is not None and self._receiver.large:
            self._loop.post(self._receiver.shrink)
        if self._keepalive is not None and not self.reader.asked and not self.sender.initial:
            interval, callback = self._keepalive
            if time.monotonic() > self._last_sent + interval:
                callback()
                self._last_sent = time.monotonic()

    def _log(self, what: str, kind: int, size: int) -> None:
        if self._logger is not None:
            self._logger.debug("%s message %d, %d bytes", what, kind, size)

    # --- reading, in the loop's thread --------------------------------------------------------------------------------

    def ready(self, mask: int) -> None:  # noqa: ARG002 - there is but one
        """The socket can be read."""
        try:
            self._receiver.fill()
        except (BlockingIOError, InterruptedError):
            return
        except Exception as error:
            self._fail(error)
            return
        self._drain()

    def _drain(self) -> None:
        """Hand on what was read, `TURN` packets at once: the other sockets have their turn in between."""
        self.reader.left = TURN
        try:
            while not self._stopped and (found := self.reader.next()) is not None:
                self._queue.put(found)
                if not isinstance(found, tuple) or found[0] == MSG_NEWKEYS or self._queue.qsize() >= QUEUE:
                    self._stop()
                    self._queue.put(None)
            if self._loop is None or self._stopped:
                return
            if self.reader.left:
                self._loop.watch(self, READ)
            else:  # there may be more in memory
                self._loop.watch(self, 0)
                self._loop.post(self._drain)
        except Exception as error:
            self._fail(error)

    def _resume(self) -> None:
        """Transport has dealt with all that was read: read on."""
        if self._loop is not None and not self._closed:
            self._stopped = False
            self._drain()

    def _stop(self) -> None:
        self._stopped = True
        if self._loop is not None:
            self._loop.watch(self, 0)

    def _fail(self, error: Exception) -> None:
        """Nothing more can be read."""
        self._stop()
        self._queue.put(error)

    def _leave(self) -> None:
        """The connection was closed."""
        self._stop()
        self._dispose()
