"""The forwarder: listeners on this computer that lead to addresses on a host, through whatever link is there.

One selector loop per host owns listeners, streams and channels; nothing polls. Listeners outlive links: while none
is attached, new connections wait up to HOLD seconds for one.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

import paramiko

from jupyman.ssh.localport import bind
from jupyman.ssh.stream import Respond, Stream
from jupyman.ssh.transport import CHANNEL_TIMEOUT, Address, Done

log = logging.getLogger(__name__)

GATE_LOOK = 0.25  # seconds between looks at a gate that is shut while connections wait before it
BREATH = 0.2  # seconds without accepting where no file descriptor is left
_BROKEN = (OSError, EOFError, paramiko.SSHException)


class Carrier(Protocol):
    """What gives byte streams to addresses on a host: a link."""

    def begin_channel(self, target: Address, done: Done) -> None:
        """Ask for a stream; `done` is called once, from any thread."""


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
    """

    def __init__(self, forwarder: Forwarder, sock: socket.socket, target: Address, holder_text: str) -> None:
        self.sock = sock
        self.local_port: int = sock.getsockname()[1]
        self.target = target
        self.holder_text = holder_text
        self.gate: Callable[[], bool] | None = None
        self.respond: Respond | None = None
        self.on_refused: Callable[[], None] | None = None
        self.closed = False
        self.open = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.refused = 0
        self._forwarder = forwarder

    def retarget(self, target: Address) -> None:
        """Lead new connections elsewhere."""
        self.target = target

    def stats(self) -> tuple[int, int, int]:
        """Return open connections, bytes that came from the host, bytes that went to it."""
        return self.open, self.bytes_in, self.bytes_out

    def passes(self) -> bool:
        """Whether the gate is open."""
        try:
            return self.gate is None or self.gate()
        except Exception:
            log.exception("the gate of local port %d", self.local_port)
            return False

    def close(self) -> None:
        """Stop listening and end its connections; returns when the port is free."""
        self._forwarder.remove(self)


class Forwarder:
    """All listeners of one host.

    Args:
        name: the host, for the thread's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._selector = selectors.DefaultSelector()
        self._hear, self._call = socket.socketpair()
        self._hear.setblocking(False)
        self._call.setblocking(False)
        self._selector.register(self._hear, selectors.EVENT_READ, None)
        self._inbox: deque[Callable[[], None]] = deque()
        self._rung = False
        self._lock = threading.Lock()
        self._link: Carrier | None = None
        self._listeners: set[Listener] = set()
        self._breathless: dict[Listener, float] = {}  # not accepting until
        self._streams: set[Stream] = set()
        self._timed: set[Stream] = set()  # wait for a link, a gate, a channel, or for the end of a drain
        self._dropped: list[paramiko.Channel] = []
        self._gated = False
        self._closing = False
        self._thread: threading.Thread | None = None

    # --- from other threads -----------------------------------------------------------------------------------------

    def listen(self, local_port: int, target: Address, *, strict: bool = False, address: str = "127.0.0.1") -> Listener:
        """Bind a local port.

        Args:
            local_port: the preferred one.
            target: address and port on the host, or the path of a UNIX socket there.
            strict: this port or none; else the next free one.
            address: local address.

        Returns:
            The listener; its `holder_text` says who holds the preferred port where another was taken.

        Raises:
            PortInUse: no port can be bound.
        """
        sock, text = bind(local_port, strict=strict, address=address)
        listener = Listener(self, sock, target, text)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"forwards {self.name}", daemon=True)
                self._thread.start()
        self._post(lambda: self._add(listener))
        return listener

    def attach(self, link: Carrier) -> None:
        """Carry connections over this link from now on; those that wait are carried too."""
        self._post(lambda: self._attached(link))

    def detach(self) -> None:
        """The link is gone: part its connections from it; listeners stay and new connections wait."""
        self._post(self._detached)

    def wake(self) -> None:
        """Look again at the connections that wait."""
        self._post(self._retry)

    def remove(self, listener: Listener) -> None:
        """Close a listener; returns when its port is free."""
        self._wait(lambda: self._remove(listener))

    def close(self) -> None:
        """Close everything and end the loop."""
        self._closing = True
        self._post(lambda: None)
        with self._lock:
            thread = self._thread
        if thread is None:
            self._dispose()
        elif thread is not threading.current_thread():
            thread.join(5)

    def _wait(self, action: Callable[[], None]) -> None:
        thread = self._thread
        if thread is None or thread is threading.current_thread() or not thread.is_alive():
            action()
            return
        done = threading.Event()

        def act() -> None:
            try:
                action()
            finally:
                done.set()

        self._post(act)
        while not done.wait(0.2) and thread.is_alive():
            pass

    def _post(self, action: Callable[[], None]) -> None:
        self._inbox.append(action)
        with self._lock:
            if self._rung:
                return
            self._rung = True
        with contextlib.suppress(OSError):  # full: it is awake anyway; closed: nobody is there to wake
            self._call.send(b"x")

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            ready = self._selector.select(self._patience())
            if any(key.data is None for key, _ in ready):
                self._hear.recv(4096)
            with self._lock:
                self._rung = False
            # Before the sockets: a connection that was made after `attach` or `detach` meets the link as it is now.
            for _ in range(len(self._inbox)):
                self._guard(None, self._inbox.popleft())
            for key, mask in ready:
                owner = key.data
                if isinstance(owner, Listener):
                    self._guard(None, lambda one=owner: self._accept(one))  # type: ignore[misc]
                elif owner is not None and not owner.dead:
                    self._guard(owner, lambda one=owner, events=mask: one.socket_ready(events))  # type: ignore[misc]
            self._expire()
        for listener in list(self._listeners):
            self._remove(listener)
        while self._inbox:  # somebody may wait for the last of them
            self._guard(None, self._inbox.popleft())
        self._dispose()

    def _guard(self, stream: Stream | None, action: Callable[[], None]) -> None:
        """Do something; a bug ends its stream, not the loop."""
        try:
            action()
        except Exception:
            log.exception("forwarding for %s", self.name)
            if stream is not None:
                self.end(stream)

    def _dispose(self) -> None:
        self._selector.close()
        self._hear.close()
        self._call.close()

    def _patience(self) -> float | None:
        if self._inbox:
            return 0.0
        moments = [min(one.deadline, one.answer_at) if one.waits else one.deadline for one in self._timed]
        moments += self._breathless.values()
        if self._gated:
            moments.append(time.monotonic() + GATE_LOOK)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _expire(self) -> None:
        instant = time.monotonic()
        for stream in [one for one in self._timed if one.deadline <= instant]:
            self.end(stream)
        for stream in [one for one in self._timed if one.waits and one.answer_at <= instant]:
            self._guard(stream, stream.answer)
        for listener in [one for one, moment in self._breathless.items() if moment <= instant]:
            del self._breathless[listener]
            if not listener.closed:
                self._selector.register(listener.sock, selectors.EVENT_READ, listener)
        if self._gated:
            self._retry()

    def _add(self, listener: Listener) -> None:
        if not listener.closed:
            self._listeners.add(listener)
            self._selector.register(listener.sock, selectors.EVENT_READ, listener)

    def _remove(self, listener: Listener) -> None:
        if listener.closed:
            return
        listener.closed = True
        if listener in self._listeners:
            self._listeners.discard(listener)
            if self._breathless.pop(listener, None) is None:
                self._selector.unregister(listener.sock)
        listener.sock.close()
        self._end_all([one for one in self._streams if one.listener is listener])

    def _attached(self, link: Carrier) -> None:
        self._link = link
        self._retry()

    def _detached(self) -> None:
        self._link = None
        for stream in [one for one in self._streams if one.channel is not None or one.opening]:
            self._guard(stream, stream.part)
        # Afterwards: over a network that is gone, telling the host may take until the link is closed.
        for channel in self._dropped:
            _close(channel)
        self._dropped.clear()

    def _retry(self) -> None:
        self._gated = False
        for stream in [one for one in self._timed if one.waits]:
            self._start(stream)

    def _accept(self, listener: Listener) -> None:
        if listener.closed or listener in self._breathless:
            return
        for _ in range(64):  # then the streams that are there have their turn
            try:
                sock, _ = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:  # no file descriptor left: the connection stays in the backlog
                log.warning("%s: a connection could not be accepted: %s", self.name, error)
                self._selector.unregister(listener.sock)
                self._breathless[listener] = time.monotonic() + BREATH
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = Stream(self, listener, sock)
            listener.open += 1
            self._streams.add(stream)
            self._timed.add(stream)
            self._start(stream)

    def _start(self, stream: Stream) -> None:
        """Ask for a channel, where a link is there and the gate is open."""
        link = self._link
        if link is None:
            return
        if not stream.listener.passes():
            self._gated = True
            return
        stream.opening = True
        stream.attempt += 1
        attempt = stream.attempt
        held, stream.deadline = stream.deadline, time.monotonic() + CHANNEL_TIMEOUT

        def done(channel: paramiko.Channel | None, error: Exception | None) -> None:
            self._post(lambda: self._opened(stream, attempt, channel, error))

        try:
            link.begin_channel(stream.listener.target, done)
        except _BROKEN:  # the link is ending; the next one may come in time
            stream.opening = False
            stream.deadline = held

    def _opened(self, stream: Stream, attempt: int, channel: paramiko.Channel | None, error: Exception | None) -> None:
        if stream.dead or not stream.opening or attempt != stream.attempt:
            if channel is not None:
                _close(channel)
            return
        stream.opening = False
        if channel is None:
            stream.listener.refused += 1
            log.info("%s: %s refused: %s", self.name, stream.listener.target, error)
            if stream.listener.on_refused is not None:
                stream.listener.on_refused()
            self.end(stream)
            return
        self._timed.discard(stream)
        self._guard(stream, lambda: stream.carry(channel))

    # --- for the streams --------------------------------------------------------------------------------------------

    def watch(self, stream: Stream, mask: int) -> None:
        """Wait for these events of a stream's socket from now on."""
        if stream.dead or mask == stream.mask:
            return
        if stream.mask == 0:
            self._selector.register(stream.sock, mask, stream)
        elif mask == 0:
            self._selector.unregister(stream.sock)
        else:
            self._selector.modify(stream.sock, mask, stream)
        stream.mask = mask

    def ring(self, stream: Stream) -> None:
        """Let a stream have its turn soon; called by the transport's thread, too."""
        if not stream.queued:
            stream.queued = True
            self._post(lambda: self._guard(stream, stream.turn))

    def linger(self, stream: Stream) -> None:
        """End a stream when its deadline comes."""
        self._timed.add(stream)

    def drop(self, channel: paramiko.Channel) -> None:
        """Close a channel when there is time for it."""
        self._dropped.append(channel)

    def end(self, stream: Stream) -> None:
        """End a stream now."""
        self._end_all([stream])

    def _end_all(self, streams: Iterable[Stream]) -> None:
        channels = []
        for stream in streams:
            if stream.dead:
                continue
            self.watch(stream, 0)
            stream.dead = True
            stream.listener.open -= 1
            self._streams.discard(stream)
            self._timed.discard(stream)
            channels.append(stream.release())
        # Afterwards: over a network that is gone, telling the host may take until the link is closed.
        for channel in channels:
            if channel is not None:
                _close(channel)


def _close(channel: paramiko.Channel) -> None:
    with contextlib.suppress(*_BROKEN):
        channel.close()
