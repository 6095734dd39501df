"""One relayed connection: bytes from a local socket to a byte stream and back, without ever waiting.

States (`Relay.state`), and what leads from one to the next:

| state    | meaning                                             | event → next state                                  |
|----------|-----------------------------------------------------|-----------------------------------------------------|
| WAITING  | no stream: no link, a closed gate, or a silent host | begin → OPENING; answer → DRAINING or ENDED         |
| OPENING  | a stream was asked for                              | opened → OPEN; refused → ENDED (by the owner);      |
|          |                                                     | withdraw, detach, lost → WAITING: nothing was sent  |
| OPEN     | bytes go both ways; each direction ends by itself   | detach, lost → DRAINING if the origin answers,      |
|          |                                                     | WAITING if it asks for another try, else ENDED;     |
|          |                                                     | both directions over → ENDED; only the local        |
|          |                                                     | program may still send, in vain → DRAINING          |
| DRAINING | the last bytes are written; what the local program  | its EOF, or the deadline → ENDED                    |
|          | sends is dropped, so that no reset overtakes them   |                                                     |
| ENDED    | the socket and the stream are closed                |                                                     |

From every state: the owner's `end`, or a local reset, → ENDED.

While OPEN, four flags; none is ever reset:
- `_local_eof`: the local program sends nothing more; `send_eof` was called.
- `_far_eof`: the far end sends nothing more. `_down_done`: and all of it, and its end, has been written.
- `_far_closed`: the far end takes nothing more either; what the local program sends is dropped.

Invariants:
- Until the stream is OPEN, up to `HEAD` bytes are read ahead into `_asked`, and no change of state loses them. While it
  is OPEN, `_asked` holds (up to `HEAD`) what was sent since the far end last sent something: that decides whether a
  request can be answered or repeated when the link is lost.
- Credit is given back for what was written, and not before: a slow reader stops its own far end and nobody else's.

Thread rule: everything runs in the loop's thread, so nothing has a lock. Only this class writes its fields, except
`deadline` (the owner too) and `mask` (the loop).

Over 300 lines because the states and all that changes them are read together.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import logging
import socket
import time
from collections.abc import Callable
from typing import TypeVarTuple

from jupyman.ssh.io.local_writer import LocalWriter
from jupyman.ssh.io.loop import READ, WRITE, Watcher
from jupyman.ssh.streams.byte_stream import ByteStream
from jupyman.ssh.streams.origin import Origin, Owner

log = logging.getLogger(__name__)

HOLD = 20.0  # seconds that a connection waits for a link or for its server's proof
GRACE = 1.0  # seconds before a waiting connection may be answered in the host's place; a blip needs no answer
HEAD = 16384  # bytes that are read from a waiting connection
DRAIN = 2.0  # seconds that the rest of a finished connection is read and dropped, so that no reset overtakes our data
# Bytes that are read in one turn: room for many costs something even if few come, so a lot is read only after a lot.
LITTLE = 32 * 1024
LOT = 640 * 1024

Arguments = TypeVarTuple("Arguments")


class RelayState(enum.Enum):
    """See the head of this module."""

    WAITING = enum.auto()
    OPENING = enum.auto()
    OPEN = enum.auto()
    DRAINING = enum.auto()
    ENDED = enum.auto()


def _guarded(method: Callable[[Relay, *Arguments], None]) -> Callable[[Relay, *Arguments], None]:
    """Keep a bug in one relay from the loop and from the carrier of all others: it ends this relay."""

    @functools.wraps(method)
    def call(self: Relay, *arguments: *Arguments) -> None:
        try:
            method(self, *arguments)
        except Exception:
            log.exception("a relayed connection is ended")
            self.owner.end(self)

    return call


class Relay:
    """One local connection and its byte stream.

    Args:
        loop: watches the socket.
        owner: of it.
        origin: where it came in.
        sock: accepted, not blocking.

    Attributes:
        since: when it came in, on the monotonic clock.
        deadline: while WAITING, OPENING and DRAINING: when the owner ends it.
        answer_at: while WAITING: when the owner calls `answer`.
    """

    first = False

    def __init__(self, loop: Watcher, owner: Owner, origin: Origin, sock: socket.socket) -> None:
        self.loop = loop
        self.owner = owner
        self.origin = origin
        self.sock = sock
        self.mask = 0
        self.state = RelayState.WAITING
        self.stream: ByteStream | None = None
        self.since = time.monotonic()
        self.deadline = self.since + HOLD
        self.answer_at = self.since + GRACE
        self._local_eof = self._far_eof = self._far_closed = self._down_done = False
        self._writer = LocalWriter(sock)
        self._asked = b""
        self._most = LITTLE

    # --- from the owner -----------------------------------------------------------------------------------------------

    def begin(self, stream: ByteStream) -> None:
        """A stream was asked for."""
        self.stream = stream
        self.state = RelayState.OPENING
        self.loop.watch(self, READ)

    def answer(self) -> None:
        """While it waits: answer in the host's place, if the origin has an answer to what was asked so far."""
        self.answer_at = time.monotonic() + GRACE
        respond = self.origin.respond
        self.read_ahead()
        if self.state is not RelayState.WAITING or not self._asked:
            return
        answer = respond(self._asked, time.monotonic() - self.since) if respond is not None else None
        if answer is not None:
            self._finish(answer)

    def detach(self) -> None:
        """Let go of a lost link: wait for the next one, answer in the host's place, or end.

        JupyterLab takes a request without an answer for a broken network, and covers the page with an error.
        """
        if self.state not in {RelayState.OPENING, RelayState.OPEN}:
            return
        if self._far_closed and self._writer.pending:
            return  # all that the far end sent is here
        self._close_stream()
        if self.state is RelayState.OPENING:  # the far end has received nothing of it
            self._wait()
            return
        respond = self.origin.respond
        ended = self._local_eof or self._down_done
        whole = self._asked and len(self._asked) < HEAD and not self._writer.pending and not ended
        answer = respond(self._asked, None) if respond is not None and whole else b""
        if answer is None:
            # As if it had just come in: the next link gets all that was asked.
            self.since = time.monotonic()
            self._wait()
            self.loop.watch(self, READ)
        else:
            self._finish(answer)

    def withdraw(self) -> None:
        """The host is silent: ask for a stream later, unless it is open by now."""
        if self.state is RelayState.OPENING:
            self._close_stream()
            self._wait()

    def read_ahead(self) -> None:
        """Read the beginning of what the local program sends before anything can be sent on."""
        missing = HEAD - len(self._asked)
        if missing <= 0:
            self.loop.watch(self, 0)
            return
        try:
            data = self.sock.recv(missing)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # reset by the local program
            self.owner.end(self)
            return
        self._asked += data
        if not data:
            self._local_eof = True
        if not data or len(data) == missing:
            self.loop.watch(self, 0)
        if self._local_eof and not self._asked and self.stream is None:  # it has given up
            self.owner.end(self)

    def release(self) -> None:
        """Close everything."""
        self.state = RelayState.ENDED
        self.loop.watch(self, 0)
        self._close_stream()
        self._writer.close()

    def _wait(self) -> None:
        self.state = RelayState.WAITING
        self.deadline, self.answer_at = self.since + HOLD, max(time.monotonic(), self.since + GRACE)
        self.owner.schedule_close(self)

    def _close_stream(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close()

    def _finish(self, text: bytes) -> None:
        """Write the last bytes to the local program, and give it a moment to read them."""
        if not text:
            self.owner.end(self)
            return
        try:
            self.sock.send(text)  # a page: it fits into the empty buffer of a socket
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.owner.end(self)
            return
        self._drain()

    def _drain(self) -> None:
        self._close_stream()
        self.state = RelayState.DRAINING
        self.deadline = time.monotonic() + DRAIN
        self.owner.schedule_close(self)
        self.loop.watch(self, READ)

    # --- from the loop ------------------------------------------------------------------------------------------------

    @_guarded
    def ready(self, mask: int) -> None:
        """The local socket can be written or read."""
        if mask & WRITE:
            self._flush()
        if mask & READ and self.state is not RelayState.ENDED:
            self._read()

    def _flush(self) -> None:
        """Write what the socket did not take before."""
        taken = self._writer.flush()
        if taken and self.stream is not None:
            self.stream.delivered(taken)
            self.origin.count(taken, 0)
        if self._writer.peer_reset:
            self.owner.end(self)
            return
        if not self._writer.pending:
            self.loop.watch(self, self.mask & ~WRITE)
            self._end_down()

    def _read(self) -> None:
        """Read from the local program: towards the stream, ahead of it, or to drop it."""
        stream = self.stream
        if self.state is RelayState.DRAINING or self._far_closed:
            self._drop()
            return
        if self.state is not RelayState.OPEN or stream is None:
            self.read_ahead()
            return
        if self.owner.held and not self._asked and self._answered():
            return
        limit = min(stream.credit(), self._most)
        if limit == 0:
            self.loop.watch(self, self.mask & ~READ)
            return
        try:
            views = stream.send_from(self.sock, limit)
        except (BlockingIOError, InterruptedError):
            self.loop.watch(self, self.mask | READ)
            return
        except OSError:  # reset by the local program
            self.owner.end(self)
            return
        if not views:
            self._local_eof = True
            self.loop.watch(self, self.mask & ~READ)
            stream.send_eof()
            self._settle()
            return
        size = 0
        for view in views:
            size += len(view)
            if len(self._asked) < HEAD:
                self._asked += view[: HEAD - len(self._asked)]
        self.origin.count(0, size)
        full = size == limit  # else there is nothing more to read
        self._most = LOT if full else LITTLE
        self.loop.watch(self, self.mask & ~READ if full and stream.credit() == 0 else self.mask | READ)

    def _answered(self) -> bool:
        """Answer a request for a page on a connection whose host is silent; the host receives nothing of it."""
        respond = self.origin.respond
        try:
            head = self.sock.recv(HEAD, socket.MSG_PEEK)
        except OSError:
            return False
        answer = respond(head, time.monotonic() - self.since) if respond is not None and head else None
        if not answer:
            return False
        self._close_stream()
        self._finish(answer)
        return True

    def _drop(self) -> None:
        try:
            data = self.sock.recv(LOT)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._local_eof = True
            self.loop.watch(self, self.mask & ~READ)
            self._settle()

    # --- from the stream ----------------------------------------------------------------------------------------------

    @_guarded
    def opened(self) -> None:
        """Send at once what was read ahead."""
        stream, size = self.stream, len(self._asked)
        if stream is None:
            return
        if size:
            if not stream.send(self._asked):  # a window that no host has
                self.owner.end(self)
                return
            self.origin.count(0, size)
        self.state = RelayState.OPEN
        self.owner.opened(self)
        if self._local_eof:
            stream.send_eof()
        elif size >= HEAD:  # there may be more, and the socket is not watched
            self._read()

    @_guarded
    def refused(self, reason: str) -> None:
        """The owner ends it."""
        self.owner.refused(self, reason)

    @_guarded
    def received(self, views: list[memoryview], size: int) -> None:
        """Write what came; keep what the local program does not take now, bounded by the stream's credit."""
        taken = self._writer.write(views, size)
        self._asked = b""
        if taken and self.stream is not None:
            self.stream.delivered(taken)
            self.origin.count(taken, 0)
        if taken < size:
            self.loop.watch(self, self.mask | WRITE)
        elif self._writer.peer_reset:
            self.owner.end(self)

    @_guarded
    def writable(self) -> None:
        """Go on reading from the local program."""
        if self.state is RelayState.OPEN and not self._local_eof:
            self._read()

    @_guarded
    def eof(self) -> None:
        """Pass the end on, behind all that came before it."""
        self._far_eof = True
        self._end_down()

    @_guarded
    def closed(self) -> None:
        """Pass the end on; what the local program sends from now on is dropped."""
        self._far_eof = self._far_closed = True
        if not self._local_eof:
            self.loop.watch(self, self.mask | READ)
        self._end_down()

    @_guarded
    def lost(self) -> None:
        """The link has ended."""
        self.detach()

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end_down(self) -> None:
        """End the direction towards the local program, once everything is written."""
        if self._far_eof and not self._down_done and not self._writer.pending:
            self._down_done = True
            if not self._local_eof:  # else it is closed at once
                with contextlib.suppress(OSError):
                    self.sock.shutdown(socket.SHUT_WR)
        self._settle()

    def _settle(self) -> None:
        """End when both directions have; soon, when only the local program may go on to send in vain."""
        if self.state is RelayState.DRAINING:
            if self._local_eof:
                self.owner.end(self)
        elif self.state is RelayState.OPEN and self._down_done:
            if self._local_eof:
                self.owner.end(self)
            elif self._far_closed:
                # Closing with bytes unread would send a reset, which overtakes what was delivered: read and drop first.
                self._drain()
