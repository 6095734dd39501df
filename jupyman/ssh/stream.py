"""One forwarded connection: bytes from the local program to the host's channel and back, without ever waiting."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import paramiko

from jupyman.ssh.command import Bell

if TYPE_CHECKING:
    from jupyman.ssh.forward import Listener

HOLD = 20.0  # seconds that a connection waits for a link or for its server's proof
GRACE = 1.0  # seconds before a waiting connection may be answered in the host's stead; a blip needs no answer
HEAD = 16384  # bytes of what a waiting connection says that are looked at
DRAIN = 2.0  # seconds that the rest of a finished connection is read and dropped, so that no reset overtakes our data
CHUNK = 262144
TURN = 1024 * 1024  # bytes of one connection before the next one has its turn
_PACKETS = 8  # likewise, uplink

# Asked what to say in the host's stead: what the local program said since it was last answered, and for how many
# seconds it has waited (None: the link was lost in the middle). Bytes are said, then it is closed; None: it waits.
Respond = Callable[[bytes, float | None], bytes | None]
_BROKEN = (OSError, EOFError, paramiko.SSHException)


class Loop(Protocol):
    """What a stream needs of the loop that owns it."""

    def watch(self, stream: Stream, mask: int) -> None:
        """Wait for these events of its socket from now on."""

    def ring(self, stream: Stream) -> None:
        """Let it have its turn soon; from any thread."""

    def linger(self, stream: Stream) -> None:
        """End it when its deadline comes."""

    def end(self, stream: Stream) -> None:
        """End it now."""

    def drop(self, channel: paramiko.Channel) -> None:
        """Close a channel whose link is gone."""


class Stream:
    """One local connection and its channel.

    Args:
        loop: its owner; every method here is called in the loop's thread.
        listener: where it came in.
        sock: accepted, not blocking.
    """

    def __init__(self, loop: Loop, listener: Listener, sock: socket.socket) -> None:
        self.loop = loop
        self.listener = listener
        self.sock = sock
        self.channel: paramiko.Channel | None = None
        self.since = time.monotonic()
        self.deadline = self.since + HOLD  # while it waits or opens; afterwards while it drains
        self.answer_at = self.since + GRACE
        self.opening = False
        self.attempt = 0  # an answer to an earlier one, over a link that is gone, does not count
        self.queued = False
        self.dead = False
        self.mask = 0
        self._down = memoryview(b"")  # from the host, not yet taken by the local program
        self._up = memoryview(b"")  # from the local program, not yet taken by the channel's window
        self._asked = b""  # the beginning of what the local program said since the host last answered
        self._local_eof = False
        self._up_broken = False  # the host takes nothing more
        self._down_done = False  # all that the host sent is delivered, and its end
        self._lingering = False

    def carry(self, channel: paramiko.Channel) -> None:
        """Start: the channel is open."""
        self.channel = channel
        channel.settimeout(0.0)
        bell = Bell(lambda: self.loop.ring(self))
        channel.out_buffer_cv = _Window(channel.lock, bell.set)
        channel.in_buffer.set_event(bell)
        self.loop.watch(self, selectors.EVENT_READ)
        if self._asked:  # of a link before this one
            self._up = memoryview(self._asked)
            self._push()
        self._downlink()

    @property
    def waits(self) -> bool:
        """For a link, or for its server's proof."""
        return self.channel is None and not self.opening and not self._lingering

    def answer(self) -> None:
        """Answer in the host's stead, where the listener has something to say to what was said so far."""
        self.answer_at = time.monotonic() + GRACE
        respond = self.listener.respond
        try:
            head = self._asked or self.sock.recv(HEAD, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            head = b""
        if not head:  # it has given up
            self.loop.end(self)
            return
        said = respond(head, time.monotonic() - self.since) if respond is not None else None
        if said is not None:
            self._say(said)

    def part(self) -> None:
        """Let go of a link that was lost: answer what was asked and not answered, or ask it again later, or end.

        To JupyterLab a request without an answer is a broken network, which it covers the page with.
        """
        if self.opening:
            self.opening = False
            self.attempt += 1  # whatever comes of it does not count
            return
        channel, self.channel = self.channel, None
        if channel is not None:
            self.loop.drop(channel)
        respond = self.listener.respond
        whole = self._asked and len(self._asked) < HEAD and not self._down and not self._local_eof
        said = respond(self._asked, None) if respond is not None and whole else b""
        if said is None:
            # As if it had just come in: the next link gets all that was said.
            self.since = time.monotonic()
            self.deadline, self.answer_at = self.since + HOLD, self.since + GRACE
            self.loop.watch(self, 0)
            self.loop.linger(self)
        else:
            self._say(said)

    def _say(self, text: bytes) -> None:
        """Say the last words to the local program, and wait a moment for it to hear them."""
        if not text:
            self.loop.end(self)
            return
        try:
            self.sock.send(text)  # a page: it fits into the empty buffer of a socket
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.loop.end(self)
            return
        self._up = memoryview(b"")
        self._lingering = self._up_broken = True
        self.deadline = time.monotonic() + DRAIN
        self.loop.linger(self)
        self.loop.watch(self, selectors.EVENT_READ)

    def socket_ready(self, mask: int) -> None:
        """The local socket can be written or read."""
        if mask & selectors.EVENT_WRITE:
            self._downlink()
        if mask & selectors.EVENT_READ and not self.dead:
            self._uplink()

    def turn(self) -> None:
        """Something came from the host, its window grew, or it ended."""
        self.queued = False
        if self.dead or self.channel is None:
            return
        if self._up:
            self._push()
        if not self.dead:
            self._downlink()
        self._settle()

    # --- towards the host -------------------------------------------------------------------------------------------

    def _uplink(self) -> None:
        try:
            data = self.sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # reset by the local program
            self.loop.end(self)
            return
        if not data:
            self._local_eof = True
            self.loop.watch(self, self.mask & ~selectors.EVENT_READ)
            self._send_eof()
        elif not self._up_broken:
            if len(self._asked) < HEAD:
                self._asked += data[: HEAD - len(self._asked)]
            self._up = memoryview(data)
            self._push()

    def _push(self) -> None:
        """Give the channel what its window takes; while it takes nothing, the local program is not read."""
        channel: Any = self.channel
        size = max(1, channel.out_max_packet_size - 64)  # what paramiko sends at once; the rest would be copied in vain
        self.loop.watch(self, self.mask & ~selectors.EVENT_READ)
        try:
            for _ in range(_PACKETS):
                if not self._up:
                    break
                count = channel.send(bytes(self._up[:size]))
                if count == 0:
                    self._break_up()
                    return
                self.listener.bytes_out += count
                self._up = self._up[count:]
        except TimeoutError:  # the window is full: its growth rings
            return
        except _BROKEN:
            self._break_up()
            return
        if self._up:
            self.loop.ring(self)
        elif self._local_eof:
            self._send_eof()
        else:
            self.loop.watch(self, self.mask | selectors.EVENT_READ)

    def _send_eof(self) -> None:
        if self.channel is not None and not self._up and not self._up_broken:
            with contextlib.suppress(*_BROKEN):
                self.channel.shutdown_write()
        self._settle()

    def _break_up(self) -> None:
        """The host takes nothing more; what it sent before is still delivered, what the local program sends is not."""
        self._up_broken = True
        self._up = memoryview(b"")
        if not self._local_eof:
            self.loop.watch(self, self.mask | selectors.EVENT_READ)
        self._downlink()
        self._settle()

    # --- towards the local program ----------------------------------------------------------------------------------

    def _downlink(self) -> None:
        """Deliver what came; only what the local program takes is read from the channel, so its window bounds us."""
        channel = self.channel
        if channel is None or self._down_done:
            return
        turn = 0
        try:
            while True:
                if not self._down:
                    if not channel.recv_ready():
                        break
                    if turn >= TURN:
                        self.loop.ring(self)
                        return
                    self._down = memoryview(channel.recv(CHUNK))
                count = self.sock.send(self._down)
                self._down = self._down[count:]
                self._asked = b""
                self.listener.bytes_in += count
                turn += count
        except (BlockingIOError, InterruptedError):
            self.loop.watch(self, self.mask | selectors.EVENT_WRITE)
            return
        except _BROKEN:
            self.loop.end(self)
            return
        self.loop.watch(self, self.mask & ~selectors.EVENT_WRITE)
        # In this order: nothing comes after the end, but data and the end may have come since the look above.
        if (channel.eof_received or channel.closed) and not channel.recv_ready():
            self._down_done = True
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
            self._settle()

    # --- the end ----------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """End where both directions have; where only the local program may go on to send in vain, soon."""
        channel = self.channel
        if self._lingering and self._local_eof:
            self.loop.end(self)
        if self.dead or not self._down_done or channel is None:
            return
        if self._local_eof and not self._up:
            self.loop.end(self)
        elif (self._up_broken or channel.closed) and not self._lingering:
            # Closing with bytes unread would send a reset, which overtakes what was delivered: read and drop first.
            self._lingering = self._up_broken = True
            self._up = memoryview(b"")
            self.deadline = time.monotonic() + DRAIN
            self.loop.linger(self)
            if self._local_eof:
                self.loop.end(self)
            else:
                self.loop.watch(self, self.mask | selectors.EVENT_READ)

    def release(self) -> paramiko.Channel | None:
        """Close the local socket; the channel is for the caller to close."""
        self.sock.close()
        self._down = self._up = memoryview(b"")
        channel, self.channel = self.channel, None
        return channel


class _Window(threading.Condition):
    """Stands where paramiko announces that a channel's window grew, and rings as well."""

    def __init__(self, lock: Any, ring: Callable[[], None]) -> None:
        super().__init__(lock)
        self._ring = ring

    def notify_all(self) -> None:
        """Wake paramiko's own waiters, and the loop."""
        super().notify_all()
        self._ring()
