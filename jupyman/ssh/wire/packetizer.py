"""The packets of one SSH connection: our own in place of paramiko's, by its public argument `packetizer_class`.

One read takes up to a megabyte, and all packets in it are opened without another call of the system. What belongs to
channels of ours goes straight to them, in the transport's thread; paramiko sees the rest. outbox.py is what is sent.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_KEXINIT
from paramiko.message import Message
from paramiko.packet import NeedRekeyException

from jupyman.ssh.wire.compat import Incoming, Sift
from jupyman.ssh.wire.messages import CHANNEL_MESSAGES, FIRST_CHANNEL, SIGNS_OF_LIFE, Router, data_of, number_of
from jupyman.ssh.wire.packets import Damaged, GcmOpener, GcmSealer, MacOpener, MacSealer, Opener, Sealer
from jupyman.ssh.wire.receiver import PacketReceiver
from jupyman.ssh.wire.sender import LAST, PacketSender

# RFC 4344, section 3.2, allows 64 GiB under one AES key, and OpenSSH uses them up (packet.c); new keys stop the traffic
# for two round trips. For ciphers with small blocks, what paramiko does.
REKEY_BYTES = 1 << 33
REKEY_BYTES_SMALL = 1 << 29
REKEY_PACKETS = 1 << 29
# What the host may still send under the old keys when it was told that new ones are needed.
OVERDUE_BYTES = 1 << 30
OVERDUE_PACKETS = 1 << 29
BATCH = 256  # packets that are handed on together; `sendmsg` takes 1024 (IOV_MAX)


class Packetizer:
    """What paramiko's Transport asks of a packetizer, and more.

    Args:
        sock: connected.

    Attributes:
        outbox: the other direction.
        router: whose the channels from `FIRST_CHANNEL` on are.
        on_room: told, in the transport's thread, that an exchange of keys is over.
        sift: asked about each message that is for paramiko, which does not see those that are dealt with.
        heard: when the last sign of life of the host came (`SIGNS_OF_LIFE`), on the monotonic clock.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.rekey_bytes, self.rekey_packets = REKEY_BYTES, REKEY_PACKETS
        self.router: Router | None = None
        self.on_room: Callable[[], None] | None = None
        self.sift: Sift | None = None
        self.heard = time.monotonic()
        self._sock = sock
        self._inbox = PacketReceiver(sock, self._idle)
        # The same connection once more, not blocking: a timeout would belong to both directions.
        ours = sock.dup()
        ours.setblocking(False)
        self.outbox = PacketSender(ours)
        self._closed = self._busy = False
        self._gone = threading.Lock()
        self._reader = 0
        self._logger: logging.Logger | None = None
        self._dump = False
        self._keepalive: tuple[float, Callable[[], None]] | None = None
        self._last_sent = time.monotonic()
        self._handshake_limit: float | None = None

        self._opener: Opener = MacOpener(None, 8, None, 0, b"")
        self._number_in = 0
        self._inflate: Callable[[bytes], bytes] | None = None
        self._limit_in = 1 << 63
        self._received_bytes = self._received_packets = 0  # under this key
        self._overdue_bytes = self._overdue_packets = 0  # likewise, since new keys were asked for
        self._rekey = False  # so much came that new keys are needed
        self._asked = False  # and Transport was told
        self._exchanging = False  # the host's KEXINIT has come, and not its NEWKEYS: no channel may speak
        self._switched = False  # our new keys are set, and the outbox is still shut
        self._fresh = 0  # directions that have new keys: 1 out, 2 in

    # --- what Transport sets ------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def _initial_kex_done(self) -> bool:
        return not self.outbox.initial

    @_initial_kex_done.setter
    def _initial_kex_done(self, done: bool) -> None:  # Transport's way to say so
        self.outbox.initial = not done

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
        return self._opener.tag

    def get_mac_size_out(self) -> int:
        """Return the bytes of the tag on what goes."""
        return self.outbox.sealer.tag

    def reset_seqno_out(self) -> None:
        """Count from zero again (OpenSSH's strict key exchange)."""
        self.outbox.number = 0

    def reset_seqno_in(self) -> None:
        """Count from zero again (OpenSSH's strict key exchange)."""
        self._number_in = 0

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
        self.outbox.renew(sealer, (self._limit(block_size), self.rekey_packets))
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
        if aead:
            self._opener = GcmOpener(block_engine, iv_in or b"")
        else:
            self._opener = MacOpener(block_engine, block_size, mac_engine, mac_size, mac_key, etm=etm)
        self._received_bytes = self._received_packets = 0
        self._limit_in = self._limit(block_size)
        self._rekey = self._exchanging = False
        self._renewed(2)

    def _limit(self, block: int) -> int:
        return self.rekey_bytes if block >= 16 else min(self.rekey_bytes, REKEY_BYTES_SMALL)

    def _renewed(self, direction: int) -> None:
        self._fresh |= direction
        if self._fresh == 3:
            self._fresh = 0
            self._asked = False

    def set_outbound_compressor(self, compressor: Callable[[bytes], bytes]) -> None:
        """Compress from now on."""
        self.outbox.deflate = compressor

    def set_inbound_compressor(self, compressor: Callable[[bytes], bytes]) -> None:
        """Decompress from now on."""
        self._inflate = compressor

    def need_rekey(self) -> bool:
        """Return whether Transport should begin an exchange of keys.

        It changes only inside `read_message` and the two setters: in Transport's own thread, which would otherwise take
        a wish that comes at the end of one exchange for the exchange itself, and never begin another.
        """
        return self._asked

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
        """Return whether they are over."""
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
                self._sock.shutdown(socket.SHUT_RDWR)
            # While a thread sleeps in it, its number must not become another connection's: then that thread closes.
            if not self._busy:
                self._dispose()

    def _dispose(self) -> None:
        self._sock.close()
        if self.router is None:  # else that one does, when nobody watches it any more
            self.outbox.close()

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
        # The transport's thread goes on reading, where somebody watches for it; all others wait.
        self.outbox.send(payload, wait=self._reader != threading.get_ident() or self.outbox.on_stuck is None)

    def write_all(self, out: bytes) -> None:
        """Send bytes that are no packet.

        Raises:
            EOFError: the connection has ended.
        """
        self.outbox.raw(out)

    # --- reading ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._gone:
            if self._closed:
                raise EOFError
            self._busy = True
        self._reader = threading.get_ident()
        try:
            yield
        finally:
            with self._gone:
                self._busy = False
                if self._closed:
                    self._dispose()

    def readline(self, timeout: float) -> str:
        """Read a line of the host's greeting; see `Inbox.line`."""
        with self._reading():
            return self._inbox.line(timeout)

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:  # noqa: ARG002 - paramiko's signature
        """Read bytes that are no packet."""
        with self._reading():
            return self._inbox.raw(n)

    def read_message(self) -> tuple[int, Message]:
        """Read until a message comes that is not for the router; in the transport's thread only.

        Raises:
            SSHException: what came is damaged, or the host does not answer our wish for new keys.
            NeedRekeyException: Transport should begin an exchange of keys.
            EOFError, OSError: the connection has ended.
        """
        with self._reading():
            if self._switched:
                self._switched = False
                self.outbox.reopen()
                if self.on_room is not None:
                    self.on_room()
            return self._read()

    def _read(self) -> tuple[int, Message]:
        inbox, router = self._inbox, self.router
        current, views = 0, list[memoryview]()
        try:
            while True:
                if self._rekey or self.outbox.wanted:
                    self._ask()
                payload = inbox.take(self._opener, self._number_in)
                if payload is None:
                    if views and router is not None:
                        found, views = views, []
                        router.data(current, found)
                    if self.handshake_timed_out():
                        raise EOFError
                    inbox.fill()
                    continue
                self._count(inbox.size)
                if self._inflate is not None:
                    payload = self._inflated(payload)
                kind = payload[0]
                if kind in SIGNS_OF_LIFE:
                    self.heard = inbox.heard
                if kind in CHANNEL_MESSAGES and router is not None and not self._exchanging:
                    number = number_of(payload)
                    if number >= FIRST_CHANNEL:
                        if views and (kind != MSG_CHANNEL_DATA or number != current or len(views) == BATCH):
                            found, views = views, []
                            router.data(current, found)
                        if kind == MSG_CHANNEL_DATA:
                            current = number
                            views.append(data_of(payload))
                        else:
                            router.message(kind, number, payload)
                        continue
                if kind == MSG_KEXINIT:
                    self._exchanging = True
                if self._dump:
                    self._log("read", kind, len(payload))
                message = Incoming(bytes(payload[1:]), (self._number_in - 1) & LAST)
                if self.sift is None or not self.sift(kind, message):
                    return kind, message
        finally:
            if views and router is not None:
                router.data(current, views)

    def _inflated(self, payload: memoryview) -> memoryview:
        assert self._inflate is not None  # noqa: S101 - the caller looked
        try:
            inflated = memoryview(self._inflate(bytes(payload)))
        except zlib.error as error:
            raise Damaged("a packet came that cannot be decompressed") from error
        if not inflated:
            raise Damaged("a packet came without a message")
        return inflated

    def _count(self, size: int) -> None:
        if self._number_in == LAST and not self._initial_kex_done:
            raise paramiko.SSHException("the sequence numbers ran out during the first exchange of keys")
        self._number_in = (self._number_in + 1) & LAST
        self._received_bytes += size
        self._received_packets += 1
        if self._asked:
            self._overdue_bytes += size
            self._overdue_packets += 1
            if self._overdue_bytes >= OVERDUE_BYTES or self._overdue_packets >= OVERDUE_PACKETS:
                raise paramiko.SSHException("the host does not answer our wish for new keys")
        elif self._received_bytes >= self._limit_in or self._received_packets >= self.rekey_packets:
            self._rekey = True

    def _ask(self) -> None:
        """Make Transport begin an exchange of keys, unless one is under way."""
        if not self._asked and not self._exchanging:
            self._asked = True
            self._overdue_bytes = self._overdue_packets = 0
            raise NeedRekeyException

    def _idle(self) -> None:
        """Nothing has come for a while."""
        if self._closed or self.handshake_timed_out():
            raise EOFError
        if self._rekey or self.outbox.wanted:
            self._ask()
        if self._keepalive is not None and not self._asked and not self.outbox.initial:
            interval, callback = self._keepalive
            if time.monotonic() > self._last_sent + interval:
                callback()
                self._last_sent = time.monotonic()

    def _log(self, what: str, kind: int, size: int) -> None:
        if self._logger is not None:
            self._logger.debug("%s message %d, %d bytes", what, kind, size)
