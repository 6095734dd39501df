"""The forwarder: listeners on this computer that lead to addresses on a host, through whatever link is there.

The loop (loop.py) is one for all hosts; nothing polls. Listeners outlive links: while none is attached, new connections
wait up to HOLD seconds for one.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import paramiko

from jupyman.local.peer_guard import PeerGuard
from jupyman.ssh.channels.channel import Address, Channel, Receiver
from jupyman.ssh.channels.origin import Respond
from jupyman.ssh.channels.relay import HOLD, Relay
from jupyman.ssh.channels.transport import BROKEN, CHANNEL_TIMEOUT
from jupyman.ssh.forward.bind import bind
from jupyman.ssh.forward.connection_limit import ConnectionLimit
from jupyman.ssh.io import loop as loops
from jupyman.ssh.io.loop import READ, Loop, guard

log = logging.getLogger(__name__)

GATE_LOOK = 0.25  # seconds between looks at a gate that is shut while connections wait before it
BREATH = 0.2  # seconds without accepting where no file descriptor is left
ACCEPTS = 64  # connections of one listener that are accepted before the others have their turn


class Carrier(Protocol):
    """What gives byte streams to addresses on a host: a link."""

    def channel(self, loop: Loop, receiver: Receiver) -> Channel:
        """Return a new channel, to be opened."""


class Listener:
    """A local port that leads to an address on the host. Made by `Forwarder.listen`.

    Attributes:
        local_port: where it listens.
        target: where it leads: host and port, or the path of a UNIX socket there.
        holder_text: " (held by …)" where the preferred port was taken, else "".
        gate: asked, in the loop's thread, before a connection is carried; while it says False connections wait, as
            without a link. Call `Forwarder.wake` when it opens, or they notice within a quarter of a second.
        respond: asked, in the loop's thread, what to say to a connection that has waited for a second or lost its link.
        on_refused: told, in the loop's thread, that the host did not take a connection; must not wait.
        refused: how many it did not take.
        crowd: how many were refused here because too many are open.
        share: take connections of other users of this computer too; else they are closed unread.
        strangers: which of them were.
    """

    # What a new connection asks of the host takes a round trip, in which the others have their turn.
    first = True

    def __init__(self, forwarder: Forwarder, sock: socket.socket, target: Address, holder_text: str) -> None:
        self.sock = sock
        self.mask = 0
        self.local_port: int = sock.getsockname()[1]
        self.target = target
        self.holder_text = holder_text
        self.gate: Callable[[], bool] | None = None
        self.respond: Respond | None = None
        self.on_refused: Callable[[], None] | None = None
        self.share = False
        self.strangers = PeerGuard(f"{forwarder.name}: local port {self.local_port}")
        self.closed = False
        self.breathless = False  # no file descriptor was left for the last one, which the log says once
        self.turn = -1  # of the loop, in which somebody connected last
        self.open = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.refused = 0
        self.crowd = ConnectionLimit()
        self._forwarder = forwarder
        self._lock = threading.Lock()

    def retarget(self, target: Address) -> None:
        """Lead new connections elsewhere."""
        self.target = target

    def stats(self) -> tuple[int, int, int]:
        """Return open connections, bytes that came from the host, bytes that went to it."""
        return self.open, self.bytes_in, self.bytes_out

    def count(self, inward: int, outward: int) -> None:
        """So many bytes came from the host, so many went to it; from any thread."""
        with self._lock:
            self.bytes_in += inward
            self.bytes_out += outward

    def passes(self) -> bool:
        """Whether the gate is open."""
        try:
            return self.gate is None or self.gate()
        except Exception:
            log.exception("the gate of local port %d", self.local_port)
            return False

    def ready(self, mask: int) -> None:  # noqa: ARG002 - there is but one
        """Somebody connects."""
        self._forwarder.accept(self)

    def part(self) -> None:
        """Let its connections go of the host, as when the link is lost; it goes on listening. Shut its gate first."""
        self._forwarder.part(self)

    def close(self) -> None:
        """Stop listening and end its connections; returns when the port is free."""
        self._forwarder.remove(self)


class Forwarder:
    """All listeners of one host.

    Args:
        name: the host, for the log.

    Attributes:
        held: the host is silent; the loop's to change.
    """

    hasty = False

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop = loops.shared()
        # All that follows is the loop's.
        self._link: Carrier | None = None
        self._listeners: set[Listener] = set()
        self._breathless: dict[Listener, float] = {}  # not accepting until
        self._streams: set[Relay] = set()
        self._timed: set[Relay] = set()  # wait for a link, a gate, a channel, or for the end of a drain
        self._gated = False
        self._closing = False
        self.held = False

    # --- from other threads -----------------------------------------------------------------------------------------

    def listen(
        self,
        local_port: int,
        target: Address,
        *,
        strict: bool = False,
        address: str = "127.0.0.1",
        gate: Callable[[], bool] | None = None,
    ) -> Listener:
        """Bind a local port.

        Args:
            local_port: the preferred one.
            target: address and port on the host, or the path of a UNIX socket there.
            strict: this port or none; else the next free one.
            address: local address.
            gate: as the listener's; it holds from the first connection on.

        Returns:
            The listener; its `holder_text` says who holds the preferred port where another was taken.

        Raises:
            PortInUse: no port can be bound.
        """
        sock, text = bind(local_port, strict=strict, address=address)
        listener = Listener(self, sock, target, text)
        listener.gate = gate
        self._loop.post(lambda: self._add(listener))
        return listener

    def attach(self, link: Carrier) -> None:
        """Carry connections over this link from now on; those that wait are carried too."""
        self._loop.post(lambda: self._attached(link))

    def detach(self) -> None:
        """The link is gone: part its connections from it; listeners stay and new connections wait."""
        self._loop.post(self._detached)

    def hold(self) -> None:
        """The host is silent: nothing new is asked of it, and new connections wait; those that it carries stay."""
        self._loop.post(self._hold)

    def resume(self) -> None:
        """The host has answered: carry on."""
        self._loop.post(self._resume)

    def wake(self) -> None:
        """Look again at the connections that wait."""
        self._loop.post(self._retry)

    def part(self, listener: Listener) -> None:
        """Part a listener's connections from the link; returns when none leads to the host any more."""
        self._loop.call(lambda: self._part(one for one in list(self._streams) if one.origin is listener))

    def remove(self, listener: Listener) -> None:
        """Close a listener; returns when its port is free."""
        self._loop.call(lambda: self._remove(listener))

    def close(self) -> None:
        """Close everything; returns when that is done."""
        self._loop.call(self._close)

    # --- in the loop's thread ---------------------------------------------------------------------------------------

    def _close(self) -> None:
        self._closing = True
        self._link = None
        for listener in list(self._listeners):
            self._remove(listener)
        self._loop.forget(self)

    def _add(self, listener: Listener) -> None:
        if self._closing:
            listener.closed = True
            listener.sock.close()
        elif not listener.closed:
            self._listeners.add(listener)
            self._loop.watch(listener, READ)

    def _remove(self, listener: Listener) -> None:
        if listener.closed:
            return
        listener.closed = True
        self._listeners.discard(listener)
        self._breathless.pop(listener, None)
        self._loop.watch(listener, 0)
        listener.sock.close()
        self._end_all([one for one in self._streams if one.origin is listener])

    def _attached(self, link: Carrier) -> None:
        if not self._closing:
            self._link = link
            self._retry()

    def _hold(self) -> None:
        self.held = self._link is not None
        for stream in [one for one in self._timed if one.opening]:
            guard(stream.withdraw)

    def _resume(self) -> None:
        self.held = False
        self._retry()

    def _detached(self) -> None:
        self._link = None
        if self.held:  # those that wait have waited for the host until now, and from now on for a link
            self.held = False
            self._prolong()
        self._part(list(self._streams))

    def _part(self, streams: Iterable[Relay]) -> None:
        for stream in streams:
            if stream.channel is not None:
                guard(stream.part)

    def _retry(self) -> None:
        self._gated = False
        for stream in [one for one in self._timed if one.waits]:
            self._start(stream)

    def _prolong(self) -> None:
        """Let those that wait do so for another `HOLD` seconds."""
        deadline = time.monotonic() + HOLD
        for stream in self._timed:
            if stream.waits:
                stream.deadline = deadline

    def due(self) -> None:
        """Somebody's time may be over."""
        instant = time.monotonic()
        if self.held:
            self._prolong()
        self._end_all([one for one in self._timed if one.deadline <= instant])
        for stream in [one for one in self._timed if one.waits and one.answer_at <= instant]:
            guard(stream.answer)
        for listener in [one for one, moment in self._breathless.items() if moment <= instant]:
            del self._breathless[listener]
            self._loop.watch(listener, READ)
        if self._gated:
            self._retry()
        moments = [min(one.deadline, one.answer_at) if one.waits else one.deadline for one in self._timed]
        moments += self._breathless.values()
        if self._gated:
            moments.append(instant + GATE_LOOK)
        if moments:
            self._loop.remind(self, min(moments))

    def accept(self, listener: Listener) -> None:
        """Take the connections that wait at a listener."""
        # One, as a rule, is there alone; where the next one is there at once, there are more.
        crowd = listener.turn == self._loop.turn - 1
        listener.turn = self._loop.turn
        for _ in range(ACCEPTS if crowd else 1):
            try:
                sock, far = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:  # no file descriptor left: the connection stays in the backlog
                log.log(
                    logging.DEBUG if listener.breathless else logging.WARNING,
                    "%s: a connection could not be accepted: %s",
                    self.name,
                    error,
                )
                listener.breathless = True
                self._loop.watch(listener, 0)
                self._breathless[listener] = time.monotonic() + BREATH
                self._loop.remind(self, self._breathless[listener])
                return
            listener.breathless = False
            if not listener.share and self._strange(listener, sock, far):
                sock.close()
                continue
            if listener.crowd.full(listener.open):
                sock.close()
                listener.crowd.refuse(listener.local_port)
                continue
            sock.setblocking(False)
            with contextlib.suppress(OSError):  # macOS, where it was reset already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = Relay(self._loop, self, listener, sock)
            listener.open += 1
            self._streams.add(stream)
            self.linger(stream)
            self._start(stream)

    def _strange(self, listener: Listener, sock: socket.socket, far: tuple[str, int]) -> bool:
        try:
            near = sock.getsockname()
        except OSError:  # macOS, where it was reset already
            return False
        return listener.strangers.refuse(far[:2], near[:2])

    def _start(self, stream: Relay) -> None:
        """Ask for a channel, where a link is there and the gate is open."""
        link = self._link
        listener = stream.origin
        assert isinstance(listener, Listener)  # noqa: S101 - they were all made above
        if link is None or self.held:
            return
        if not listener.passes():
            self._gated = True
            self._loop.remind(self, time.monotonic() + GATE_LOOK)
            return
        channel = link.channel(self._loop, stream)
        stream.begin(channel)
        stream.deadline = time.monotonic() + CHANNEL_TIMEOUT
        try:
            channel.open(listener.target)
        except BROKEN:  # the link is ending; the next one may come in time
            stream.part()
        else:
            stream.listen()  # as a rule it has said something by now, and saves a turn

    # --- for the streams --------------------------------------------------------------------------------------------

    def opened(self, stream: Relay, channel: Channel, error: Exception | None) -> None:
        """The host has opened a stream's channel, or refused it."""
        if stream.dead or stream.channel is not channel or not stream.opening:
            return
        if error is not None and not isinstance(error, paramiko.ChannelException):
            stream.part()  # not the host's word: the connection has ended, and the next one may come in time
            return
        if error is not None:
            listener = stream.origin
            assert isinstance(listener, Listener)  # noqa: S101 - see above
            listener.refused += 1
            log.info("%s: %s refused: %s", self.name, listener.target, error)
            if listener.on_refused is not None:
                listener.on_refused()
            self.end(stream)
            return
        self._timed.discard(stream)
        stream.carry()

    def linger(self, stream: Relay) -> None:
        """End a stream when its deadline comes."""
        self._timed.add(stream)
        self._loop.remind(self, min(stream.deadline, stream.answer_at) if stream.waits else stream.deadline)

    def end(self, stream: Relay) -> None:
        """End a stream now."""
        self._end_all([stream])

    def _end_all(self, streams: Iterable[Relay]) -> None:
        for stream in streams:
            if stream.dead:
                continue
            listener = stream.origin
            assert isinstance(listener, Listener)  # noqa: S101 - see above
            listener.open -= 1
            self._streams.discard(stream)
            self._timed.discard(stream)
            stream.release()
