"""What goes to the host: sealed in order, sent without waiting; what the socket does not take stays here.

While keys are exchanged (from our KEXINIT to our NEWKEYS) RFC 4253, section 7.1, allows nothing but the exchange: other
messages are held, in order, and follow at once afterwards.

Threads: any thread may send; one lock guards all fields but `wanted`, `limit` and `initial`, which Transport's thread
sets. `room` takes the lock too, or a packet that is just being sent would look like a stuck one. The
loop calls `flush`.

States: open (messages are sealed at once), shut (after our KEXINIT: messages are held), broken (nothing is sent any
more; the socket is shut down, so that the reader notices).
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable

import paramiko
from paramiko.common import MSG_KEXINIT

from jupyman.ssh.wire import batch
from jupyman.ssh.wire.packets import Buffer, GcmSealer, MacSealer, Sealer

log = logging.getLogger(__name__)

# Bytes that may wait here: a host that asks for answers and does not read them is disconnected.
FLOOD = 32 * 1024 * 1024
LAST = (1 << 32) - 1  # sequence numbers have 32 bits
_FIRST_USER = 50  # RFC 4251, section 7: from here on login and connection, below the transport
_SERVICES = (5, 6)  # of the transport, and yet not allowed while keys are exchanged
# One that needs no file descriptor: there may be none left.
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)
# Bytes that a message costs beside its content: a host may ask for millions of the smallest answers.
PIECE = 256
_LOOK = 0.5  # seconds after which a thread that waits for its message to be sent looks again


class PacketSender:
    """The sending half of a connection, for any number of threads.

    Args:
        sock: of the connection, not blocking, for this use alone.

    Attributes:
        wanted: so much was sent that new keys are needed.
        on_stuck: called, in any thread, when `flush` is needed once the socket can be written; must not wait.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.wanted = False
        self.on_stuck: Callable[[], None] | None = None
        self.sealer: Sealer = MacSealer(None, 8, None, 0, b"")
        self.number = 0
        self.deflate: Callable[[bytes], bytes] | None = None
        self.limit = (1 << 63, 1 << 63)  # bytes and packets under one key
        self.initial = True  # the first keys are not there yet
        self._lock = threading.Lock()
        self._wire = memoryview(b"")
        self._pending: deque[memoryview] = deque()  # sealed, not yet taken by the socket
        self._waiting = 0  # bytes of it
        self._taken = 0  # bytes that the socket ever took
        self._shut = False  # keys are being exchanged
        self._held: list[bytes] = []  # payloads that came meanwhile
        self._held_bytes = 0
        self._sent_bytes = self._sent_packets = 0
        self._broken = False

    @property
    def room(self) -> bool:
        """Whether what is posted now leaves at once; if not, `on_stuck` or the end of an exchange follows."""
        with self._lock:
            return not self._pending and not self._shut

    def renew(self, sealer: Sealer, limit: tuple[int, int]) -> None:
        """Seal with new keys from now on; NEWKEYS has been sent, and nothing else goes before `reopen`."""
        with self._lock:
            self.sealer, self.limit = sealer, limit
            self._sent_bytes = self._sent_packets = 0
            self.wanted = False

    def reopen(self) -> None:
        """The exchange of keys is over for this direction: send what was held."""
        with self._lock:
            self._shut = False
            held, self._held, self._held_bytes = self._held, [], 0
            for payload in held:
                self._emit(self._seal(payload))
            stuck = bool(self._pending)
        self._notify(stuck)

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, payload: bytes, *, wait: bool) -> None:
        """Send a message.

        Args:
            payload: the message, its type first.
            wait: return when the socket has taken it.

        Raises:
            EOFError: the connection has ended; only with `wait`. Without it the reader notices.
        """
        kind = payload[0]
        with self._lock:
            if self._shut and (kind >= _FIRST_USER or kind in _SERVICES):
                self._hold(payload)
                return
            self._emit(self._seal(payload))
            if kind == MSG_KEXINIT:
                self._shut = True
            mark = self._taken + self._waiting
            stuck = bool(self._pending)
        if wait and self._broken:
            raise EOFError
        self._notify(stuck)
        if wait and stuck:
            self._wait(mark)

    def send_all(self, payloads: list[bytes]) -> None:
        """Send messages together, without waiting; none of them belongs to a key exchange."""
        with self._lock:
            if self._shut:
                for payload in payloads:
                    self._hold(payload)
                return
            self._emit(b"".join([self._seal(payload) for payload in payloads]))
            stuck = bool(self._pending)
        self._notify(stuck)

    def post(self, packets: list[tuple[memoryview, int]]) -> None:
        """Send packets of data, without waiting; without `room` they stay here.

        Args:
            packets: of a `PacketBatch`.
        """
        with self._lock:
            sealer = self.sealer
            if self._shut:
                for body, size in packets:
                    self._hold(bytes(body[1 : 1 + size]))
                return
            if not isinstance(sealer, GcmSealer) or self.deflate is not None:
                self._emit(b"".join(self._seal(body[1 : 1 + size]) for body, size in packets))
            else:
                # The buffer is free unless a part of it waits for the socket.
                if self._pending or len(packets) == 1:
                    wire = memoryview(bytearray(sum(size + 64 for _, size in packets)))
                else:
                    if not self._wire:
                        self._wire = memoryview(bytearray(batch.PACKETS * (batch.DATA + 64)))
                    wire = self._wire
                end = 0
                for body, size in packets:
                    end += sealer.seal_into(body, size, wire[end:])
                self._count(end, len(packets))
                self._emit(wire[:end])
            stuck = bool(self._pending)
        self._notify(stuck)

    def raw(self, data: bytes) -> None:
        """Send bytes that are no packet: the greeting.

        Raises:
            EOFError: the connection has ended.
        """
        with self._lock:
            self._emit(data)
            mark = self._taken + self._waiting
            stuck = bool(self._pending)
        if stuck:
            self._wait(mark)

    def flush(self) -> bool:
        """Give the socket what it takes; return whether nothing is left."""
        with self._lock:
            self._push()
            return not self._pending

    def close(self) -> None:
        """Close the socket; the loop does not watch it any more."""
        with self._lock:
            self._break()
            self.sock.close()

    # --- with the lock held -------------------------------------------------------------------------------------------

    def _seal(self, payload: Buffer) -> bytes:
        if self.deflate is not None:
            payload = self.deflate(bytes(payload))
        packet = self.sealer.seal(payload, self.number)
        self._count(len(packet), 1)
        return packet

    def _count(self, size: int, packets: int) -> None:
        number = self.number + packets
        if number > LAST:
            if self.initial:
                raise paramiko.SSHException("the sequence numbers ran out during the first exchange of keys")
            number &= LAST
        self.number = number
        self._sent_bytes += size
        self._sent_packets += packets
        if self._sent_bytes >= self.limit[0] or self._sent_packets >= self.limit[1]:
            self.wanted = True
            if self._sent_packets > LAST:  # a number must not come twice under one key
                self._fail("the host gave no new keys in time")

    def _hold(self, payload: bytes) -> None:
        if self._broken:
            return
        self._held.append(payload)
        self._held_bytes += len(payload) + PIECE
        if self._held_bytes > FLOOD:
            self._fail("the host asks for answers and does not finish a key exchange")

    def _emit(self, wire: Buffer) -> None:
        if self._broken:
            return
        count = 0 if self._pending else self._give(wire)
        if count < len(wire) and not self._broken:
            self._pending.append(memoryview(wire)[count:])
            self._waiting += len(wire) - count
            if self._waiting + PIECE * len(self._pending) > FLOOD:
                self._fail("the host asks for answers and does not read them")

    def _push(self) -> None:
        pending = self._pending
        while pending:
            view = pending[0]
            count = self._give(view)
            if not pending:  # the connection has ended
                return
            self._waiting -= count
            if count < len(view):
                pending[0] = view[count:]
                return
            pending.popleft()

    def _give(self, wire: Buffer) -> int:
        """Return the bytes that the socket takes now."""
        try:
            count = self.sock.send(wire)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._end()
            return 0
        self._taken += count
        return count

    def _fail(self, reason: str) -> None:
        log.warning("disconnected: %s", reason)
        self._end()

    def _end(self) -> None:
        """Send nothing any more, and shut the socket down, so that the reader notices."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._break()

    def _break(self) -> None:
        self._broken = True
        self._pending.clear()
        self._held.clear()
        self._waiting = self._held_bytes = 0

    # --- without ------------------------------------------------------------------------------------------------------

    def _notify(self, stuck: bool) -> None:
        # `stuck` was read in the lock: a caller that found no room waits for this, even if another thread makes room.
        if stuck and self.on_stuck is not None:
            self.on_stuck()

    def _wait(self, mark: int) -> None:
        """Wait until the socket has taken `mark` bytes of all that it ever took."""
        try:
            with _Selector() as selector:
                selector.register(self.sock, selectors.EVENT_WRITE)
                while True:
                    with self._lock:
                        self._push()
                        if self._broken:
                            raise EOFError
                        if self._taken >= mark:
                            return
                    selector.select(_LOOK)
        except (ValueError, KeyError) as error:  # it was closed
            raise EOFError from error
