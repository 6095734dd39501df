"""One forwarded connection: bytes from the local program to the host's channel and back, without ever waiting.

What comes from the host goes to the local socket in the transport's thread, as long as the socket takes it; the rest
stays here for the loop. Everything else is done in the loop's thread.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

from jupyman.ssh.channels.channel import Channel
from jupyman.ssh.channels.origin import Origin, Owner
from jupyman.ssh.io.local_writer import LocalWriter
from jupyman.ssh.io.loop import READ, WRITE, Loop
from jupyman.ssh.wire.batch import DATA, SIZE

HOLD = 20.0  # seconds that a connection waits for a link or for its server's proof
GRACE = 1.0  # seconds before a waiting connection may be answered in the host's stead; a blip needs no answer
HEAD = 16384  # bytes of what a waiting connection says that are looked at
DRAIN = 2.0  # seconds that the rest of a finished connection is read and dropped, so that no reset overtakes our data


class Relay:
    """One local connection and its channel.

    Args:
        loop: that it lives in.
        owner: of it.
        origin: where it came in.
        sock: accepted, not blocking.
    """

    first = False

    def __init__(self, loop: Loop, owner: Owner, origin: Origin, sock: socket.socket) -> None:
        self.loop = loop
        self.owner = owner
        self.origin = origin
        self.sock = sock
        self.mask = 0
        self.channel: Channel | None = None
        self.since = time.monotonic()
        self.deadline = self.since + HOLD  # while it waits or opens; afterwards while it drains
        self.answer_at = self.since + GRACE
        self.opening = False
        self.dead = False
        self._waiting = False  # for room on the connection to the host
        self._local_eof = False
        self._up_broken = False  # the host takes nothing more
        self._down_done = False  # all that the host sent is delivered, and its end
        self._lingering = False
        self._delivery = LocalWriter(sock)
        self._lock = self._delivery.lock  # of the following, and of `channel`
        self._asked = b""  # the beginning of what the local program said since the host last answered
        self._carried = False  # the channel is open, and has got that
        self._rung = False
        self._most = DATA  # bytes that are read in one turn; room for many costs something, also where few come

    # --- before and after its channel ---------------------------------------------------------------------------------

    def begin(self, channel: Channel) -> None:
        """A channel is being opened for it."""
        with self._lock:
            self.channel = channel
            self._carried = False
        self._waiting = False
        self.opening = True
        self.loop.watch(self, READ)

    def carry(self) -> None:
        """The channel is open."""
        self.opening = False
        if not self._carried:  # a window that no host has
            self.owner.end(self)
            return
        if self._local_eof and self.channel is not None:
            self.channel.end()
        self._turn()

    @property
    def waits(self) -> bool:
        """For a link, or for its server's proof."""
        return self.channel is None and not self._lingering

    def answer(self) -> None:
        """Answer in the host's stead, where the listener has something to say to what was said so far."""
        self.answer_at = time.monotonic() + GRACE
        respond = self.origin.respond
        self.listen()
        if self.dead or not self._asked:
            return
        said = respond(self._asked, time.monotonic() - self.since) if respond is not None else None
        if said is not None:
            self._say(said)

    def part(self) -> None:
        """Let go of a link that was lost: answer what was asked and not answered, or ask it again later, or end.

        To JupyterLab a request without an answer is a broken network, which it covers the page with.
        """
        if self.channel is not None and self.channel.complete and self._delivery.behind:
            return  # all of it is here
        channel = self._leave()
        if channel is not None:
            channel.close()
        opening, self.opening = self.opening, False
        if opening and not self._carried:  # nobody has heard it yet
            self._wait()
            return
        respond = self.origin.respond
        ended = self._local_eof or self._down_done
        whole = self._asked and len(self._asked) < HEAD and not self._delivery.behind and not ended
        said = respond(self._asked, None) if respond is not None and whole else b""
        if said is None:
            # As if it had just come in: the next link gets all that was said.
            self.since = time.monotonic()
            self.deadline, self.answer_at = self.since + HOLD, self.since + GRACE
            self.loop.watch(self, READ)
            self.owner.linger(self)
        else:
            self._say(said)

    def withdraw(self) -> None:
        """The host is silent: ask it for a channel later, unless it has opened one by now."""
        with self._lock:
            channel = self.channel
            if self._carried or channel is None:
                return
            self.channel = None
        channel.close()
        self.opening = False
        self._wait()

    def _wait(self) -> None:
        """Wait for a link, or for the host; it has heard nothing of this connection."""
        self.deadline, self.answer_at = self.since + HOLD, max(time.monotonic(), self.since + GRACE)
        self.owner.linger(self)

    def _leave(self) -> Channel | None:
        with self._lock:
            channel, self.channel = self.channel, None
        return channel

    def _say(self, text: bytes) -> None:
        """Say the last words to the local program, and wait a moment for it to hear them."""
        if not text:
            self.owner.end(self)
            return
        try:
            self.sock.send(text)  # a page: it fits into the empty buffer of a socket
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.owner.end(self)
            return
        self._linger()

    def _linger(self) -> None:
        self._lingering = self._up_broken = True
        self.deadline = time.monotonic() + DRAIN
        self.owner.linger(self)
        self.loop.watch(self, READ)

    def release(self) -> None:
        """Close everything."""
        self.dead = True
        self.loop.watch(self, 0)
        channel = self._leave()
        self._delivery.close()
        if channel is not None:
            channel.close()

    def ready(self, mask: int) -> None:
        """The local socket can be written or read."""
        if mask & WRITE:
            self._guard(self._drain)
        if mask & READ and not self.dead:
            self._guard(self._uplink)

    def _guard(self, action: Callable[[], None]) -> None:
        """Do something in the loop's thread; a bug in it ends this connection, and no other."""
        try:
            action()
        except Exception:
            self.owner.end(self)
            raise

    def _post(self, action: Callable[[], None], *, wake: bool = True) -> None:
        self.loop.post(lambda: self._guard(action), wake=wake)

    # --- towards the host ---------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Read the beginning of what the local program says before anybody can hear it."""
        try:
            with self._lock:
                if self._carried and self.channel is not None:
                    return
                missing = HEAD - len(self._asked)
                data = self.sock.recv(missing) if missing else b"-"
                if missing:
                    self._asked += data
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # reset by the local program
            self.owner.end(self)
            return
        if missing <= len(data) or not data:
            self.loop.watch(self, 0)
        if not data:
            self._local_eof = True
            if not self._asked and self.channel is None:  # it has given up
                self.owner.end(self)

    def _uplink(self) -> None:
        channel = self.channel
        if self._up_broken:
            self._drop()
            return
        if channel is None or not self._carried:
            self.listen()
            return
        if self.owner.held and not self._asked and self._answered():
            return
        window = self._pace(channel)
        if window == 0:
            return
        tray = self.loop.tray
        try:
            size = tray.fill(self.sock, limit := min(window, self._most), channel.packet)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # reset by the local program
            self.owner.end(self)
            return
        if size == 0:
            self._local_eof = True
            self.loop.watch(self, self.mask & ~READ)
            channel.end()
            self._settle()
            return
        if len(self._asked) < HEAD:
            with self._lock:
                for view in tray.views:
                    self._asked += view[: HEAD - len(self._asked)]
        channel.send(tray, size)
        self.origin.count(0, size)
        self._most = SIZE if size == limit else DATA
        if size == limit:  # else there is nothing more to read
            self._pace(channel)

    def _answered(self) -> bool:
        """Answer if a page is asked for, on a connection that the silent host carries; the host hears nothing of it."""
        respond = self.origin.respond
        try:
            head = self.sock.recv(HEAD, socket.MSG_PEEK)
        except OSError:
            return False
        said = respond(head, time.monotonic() - self.since) if respond is not None and head else None
        if not said:
            return False
        if (channel := self._leave()) is not None:
            channel.close()
        self._say(said)
        return True

    def _pace(self, channel: Channel) -> int:
        """Read the local program or not, as the host takes it; return the bytes that it takes now."""
        window = channel.window()  # where it is used up, its growth is news
        if window and not channel.room:
            window = 0
            if not self._waiting:
                self._waiting = True
                channel.wait(lambda: self._guard(self._resume))
        self.loop.watch(self, self.mask | READ if window else self.mask & ~READ)
        return window

    def _resume(self) -> None:
        """There is room on the connection to the host again."""
        self._waiting = False
        if not self.dead and self.channel is not None and not self._local_eof:
            self._uplink()

    def _drop(self) -> None:
        try:
            data = self.sock.recv(SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._local_eof = True
            self.loop.watch(self, self.mask & ~READ)
            self._settle()

    # --- towards the local program ----------------------------------------------------------------------------------

    def opened(self, channel: Channel) -> None:
        """The host has opened the channel: tell it at once what was said so far."""
        with self._lock:
            if channel is not self.channel:
                return
            size = len(self._asked)
            if channel.takes(size):
                if size:
                    channel.say(self._asked)
                    self.origin.count(0, size)
                self._carried = True
            # A turn of the loop for each new connection would be a third of its cost.
            wake = self._local_eof or size >= HEAD or not self._carried or self.owner.hasty
        self._post(lambda: self.owner.opened(self, channel, None), wake=wake)

    def refused(self, channel: Channel, error: Exception) -> None:
        """It has not."""
        self._post(lambda: self.owner.opened(self, channel, error))

    def data(self, channel: Channel, views: list[memoryview], size: int) -> None:
        """Deliver what came; what the local program does not take now is kept, and its window bounds how much."""
        with self._lock:
            if channel is not self.channel:
                return
            taken = self._delivery.give(views, size)
            self._asked = b""
            ring = (taken < size or self._delivery.deaf) and not self._rung
            self._rung = self._rung or ring
        if ring:
            self._post(self._turn)
        if taken:
            channel.delivered(taken)
            self.origin.count(taken, 0)

    def news(self, channel: Channel) -> None:
        """The host's window has grown, or its end has come."""
        with self._lock:
            if self._rung or channel is not self.channel:
                return
            self._rung = True
        self._post(self._turn)

    def lost(self, channel: Channel) -> None:
        """The connection has ended."""

        def part() -> None:
            if channel is self.channel and not self.dead:
                self.part()

        self._post(part)

    def _drain(self) -> None:
        """Deliver what was left behind."""
        taken = self._delivery.drain()
        if taken and self.channel is not None:
            self.channel.delivered(taken)
            self.origin.count(taken, 0)
        self._turn()

    def _turn(self) -> None:
        """Look at everything again."""
        with self._lock:
            self._rung = False
            channel = self.channel
            # In this order: nothing comes after the end, but data and the end may have come since a look at the data.
            eof = channel is not None and channel.eof
            behind = self._delivery.behind
        if self.dead or channel is None or self.opening:
            return
        if self._delivery.deaf:  # reset by the local program
            self.owner.end(self)
            return
        self.loop.watch(self, self.mask | WRITE if behind else self.mask & ~WRITE)
        self._up_broken = self._up_broken or channel.closed
        if not self._local_eof and not self._waiting and not self.mask & READ:
            if self._up_broken:
                self.loop.watch(self, self.mask | READ)
            self._uplink()
        if eof and not behind and not self._down_done:
            self._down_done = True
            if not self._local_eof:  # else it is closed at once
                with contextlib.suppress(OSError):
                    self.sock.shutdown(socket.SHUT_WR)
        self._settle()

    # --- the end ------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """End where both directions have; where only the local program may go on to send in vain, soon."""
        channel = self.channel
        if self._lingering:
            if self._local_eof:
                self.owner.end(self)
            return
        if self.dead or not self._down_done or channel is None:
            return
        if self._local_eof:
            self.owner.end(self)
        elif channel.closed:
            # Closing with bytes unread would send a reset, which overtakes what was delivered: read and drop first.
            self._linger()
