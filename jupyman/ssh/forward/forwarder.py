"""The forwarder: listeners on this computer that lead to endpoints on a host.

It knows no SSH: it asks a `StreamOpener`, the link of the moment. Listeners outlive links: while none is attached, new
connections wait up to `HOLD` seconds for one.

Threads: one loop serves all hosts. Public methods may be called from any thread; they post to the loop, and those that
promise an effect wait for it. Everything below "in the loop's thread" runs there and has no lock.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterable

from jupyman.model.endpoint import LOOPBACK, Target
from jupyman.ssh.forward.bind import bind
from jupyman.ssh.forward.listener import Listener
from jupyman.ssh.io import loop as loops
from jupyman.ssh.io.loop import READ, guard
from jupyman.ssh.streams.byte_stream import StreamOpener
from jupyman.ssh.streams.relay import HOLD, Relay, RelayState

log = logging.getLogger(__name__)

OPEN_TIMEOUT = 15.0  # seconds for the host to open a stream
GATE_LOOK = 0.25  # seconds between looks at a closed gate while connections wait for it
BREAK = 0.2  # seconds without accepting when no file descriptor is left
ACCEPTS = 64  # connections of one listener that are accepted before the others have their turn


class Forwarder:
    """All listeners of one host.

    Args:
        name: the host, for the log.

    Attributes:
        held: the host is silent; only the loop's thread changes it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop = loops.shared()
        # All that follows belongs to the loop's thread.
        self._opener: StreamOpener | None = None
        self._listeners: set[Listener] = set()
        self._paused: dict[Listener, float] = {}  # no file descriptor is left: not accepting until
        self._relays: set[Relay] = set()
        self._timed: set[Relay] = set()  # wait for a link, a gate, a stream, or for the end of a drain
        self._gated = False
        self._closing = False
        self.held = False

    # --- from other threads -------------------------------------------------------------------------------------------

    def listen(
        self,
        local_port: int,
        target: Target,
        *,
        strict: bool = False,
        address: str = LOOPBACK,
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
            The listener; its `holder_text` names who holds the preferred port if another was taken.

        Raises:
            PortInUse: no port can be bound.
        """
        sock, text = bind(local_port, strict=strict, address=address)
        listener = Listener(self, sock, target, text)
        listener.gate = gate
        self._loop.post(lambda: self._add(listener))
        return listener

    def attach(self, opener: StreamOpener) -> None:
        """Carry connections over this link from now on; those that wait are carried too."""
        self._loop.post(lambda: self._attach(opener))

    def detach(self) -> None:
        """The link is gone: detach its connections; listeners stay and new connections wait."""
        self._loop.post(self._detach)

    def hold(self) -> None:
        """The host is silent: nothing new is asked of it, and new connections wait; those that it carries stay."""
        self._loop.post(self._hold)

    def resume(self) -> None:
        """The host has answered: carry on."""
        self._loop.post(self._resume)

    def wake(self) -> None:
        """Look again at the connections that wait."""
        self._loop.post(self._retry)

    def detach_listener(self, listener: Listener) -> None:
        """Detach a listener's connections from the link; returns when none leads to the host any more."""
        self._loop.call(lambda: self._detach_all(one for one in list(self._relays) if one.origin is listener))

    def remove(self, listener: Listener) -> None:
        """Close a listener; returns when its port is free."""
        self._loop.call(lambda: self._remove(listener))

    def close(self) -> None:
        """Close everything; returns when that is done."""
        self._loop.call(self._close)

    # --- in the loop's thread -----------------------------------------------------------------------------------------

    def _close(self) -> None:
        self._closing = True
        self._opener = None
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
        self._paused.pop(listener, None)
        self._loop.watch(listener, 0)
        listener.sock.close()
        self._end_all([one for one in self._relays if one.origin is listener])

    def _attach(self, opener: StreamOpener) -> None:
        if not self._closing:
            self._opener = opener
            self._retry()

    def _hold(self) -> None:
        self.held = self._opener is not None
        for relay in list(self._timed):
            guard(relay.withdraw)

    def _resume(self) -> None:
        self.held = False
        self._retry()

    def _detach(self) -> None:
        self._opener = None
        if self.held:  # those that wait have waited for the host until now, and from now on for a link
            self.held = False
            self._prolong()
        self._detach_all(list(self._relays))

    def _detach_all(self, relays: Iterable[Relay]) -> None:
        for relay in relays:
            guard(relay.detach)

    def _waiting(self) -> list[Relay]:
        return [one for one in self._timed if one.state is RelayState.WAITING]

    def _retry(self) -> None:
        self._gated = False
        for relay in self._waiting():
            self._start(relay)

    def _prolong(self) -> None:
        """Let those that wait do so for another `HOLD` seconds."""
        deadline = time.monotonic() + HOLD
        for relay in self._waiting():
            relay.deadline = deadline

    def due(self) -> None:
        """Somebody's time may be over."""
        instant = time.monotonic()
        if self.held:
            self._prolong()
        self._end_all([one for one in self._timed if one.deadline <= instant])
        for relay in [one for one in self._waiting() if one.answer_at <= instant]:
            guard(relay.answer)
        for listener in [one for one, moment in self._paused.items() if moment <= instant]:
            del self._paused[listener]
            self._loop.watch(listener, READ)
        if self._gated:
            self._retry()
        moments = [_moment(one) for one in self._timed]
        moments += self._paused.values()
        if self._gated:
            moments.append(instant + GATE_LOOK)
        if moments:
            self._loop.remind(self, min(moments))

    def accept(self, listener: Listener) -> None:
        """Take the connections that wait at a listener."""
        # As a rule a connection comes alone; when another one came in the last turn, there are more.
        many = listener.turn == self._loop.turn - 1
        listener.turn = self._loop.turn
        for _ in range(ACCEPTS if many else 1):
            try:
                sock, far = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:  # no file descriptor left: the connection stays in the backlog
                level = logging.DEBUG if listener.out_of_fds else logging.WARNING
                log.log(level, "%s: a connection could not be accepted: %s", self.name, error)
                listener.out_of_fds = True
                self._loop.watch(listener, 0)
                self._paused[listener] = time.monotonic() + BREAK
                self._loop.remind(self, self._paused[listener])
                return
            listener.out_of_fds = False
            if listener.foreign_owned(sock, far):
                sock.close()
                continue
            if listener.limit.full(listener.open):
                sock.close()
                listener.limit.refuse(listener.local_port)
                continue
            sock.setblocking(False)
            with contextlib.suppress(OSError):  # macOS, if it was reset already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            relay = Relay(self._loop, self, listener, sock)
            listener.open += 1
            self._relays.add(relay)
            self.schedule_close(relay)
            self._start(relay)

    def _start(self, relay: Relay) -> None:
        """Ask for a stream, if a link is there and the gate is open."""
        opener, listener = self._opener, _listener(relay)
        if opener is None or self.held:
            return
        if not listener.passes():
            self._gated = True
            self._loop.remind(self, time.monotonic() + GATE_LOOK)
            return
        try:
            relay.begin(opener.open_stream(listener.target, relay))
            relay.deadline = time.monotonic() + OPEN_TIMEOUT
            relay.read_ahead()  # as a rule it has sent something by now, which saves a turn
        except ConnectionError:  # the link is ending; the next one may come in time
            return
        except Exception:
            log.exception("%s: a connection is ended", self.name)
            self.end(relay)

    # --- for the relays -----------------------------------------------------------------------------------------------

    def opened(self, relay: Relay) -> None:
        """A relay's stream is open."""
        self._timed.discard(relay)

    def refused(self, relay: Relay, reason: str) -> None:
        """The host has refused a relay's stream."""
        listener = _listener(relay)
        log.info("%s: %s refused: %s", self.name, listener.target, reason)
        if listener.on_refused is not None:
            listener.on_refused()
        self.end(relay)

    def schedule_close(self, relay: Relay) -> None:
        """End a relay when its deadline comes."""
        self._timed.add(relay)
        self._loop.remind(self, _moment(relay))

    def end(self, relay: Relay) -> None:
        """End a relay now."""
        self._end_all([relay])

    def _end_all(self, relays: Iterable[Relay]) -> None:
        for relay in relays:
            if relay.state is not RelayState.ENDED:
                _listener(relay).open -= 1
                self._relays.discard(relay)
                self._timed.discard(relay)
                relay.release()


def _listener(relay: Relay) -> Listener:
    assert isinstance(relay.origin, Listener)  # noqa: S101 - they were all made here
    return relay.origin


def _moment(relay: Relay) -> float:
    """Return when a relay has to be looked at."""
    return min(relay.deadline, relay.answer_at) if relay.state is RelayState.WAITING else relay.deadline
