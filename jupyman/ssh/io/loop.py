"""The loop: one thread that owns all listeners, local connections and SSH sockets of this process.

Rules: a turn first runs what was posted, then calls those whose sockets are ready, each once, then those whose time has
come, and then what was left to its end. Nothing that runs here may wait. `post`, `call` and `at_end` may be used from
any thread, everything else only here. Each call reads a bounded amount, so that no host and no connection holds up
another for long.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)

BREAK = 0.2  # seconds after an unexpected exception
_NEVER = float("inf")
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_shared: Loop | None = None
_shared_lock = threading.Lock()


class Watched(Protocol):
    """A socket and what is done when it is ready.

    Attributes:
        sock: not blocking.
        mask: the events that it is watched for; only the loop changes it.
        first: called before the others in a turn.
    """

    sock: socket.socket
    mask: int
    first: bool

    def ready(self, mask: int) -> None:
        """Some of these events have come."""


class Watcher(Protocol):
    """Waits for events of sockets: a `Loop`."""

    def watch(self, one: Watched, mask: int) -> None:
        """Wait for these events from now on."""


class Timed(Protocol):
    """Wants to be called at some moment."""

    def due(self) -> None:
        """The moment has come, or an earlier one."""


class Loop:
    """A selector and its thread, which lives as long as the process: it costs nothing while nothing happens.

    Attributes:
        turn: number of the present turn.
    """

    def __init__(self) -> None:
        self.turn = 0
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, READ, None)
        self._last: list[Callable[[], None]] = []  # run at the end of this turn
        self._posted: deque[Callable[[], None]] = deque()
        self._woken = False
        self._lock = threading.Lock()
        self._alarms: dict[Timed, float] = {}
        self._next = _NEVER  # no alarm is earlier
        self._failed = False  # the last `select` did, which is logged once
        self._thread = threading.Thread(target=self._run, name="forwards", daemon=True)
        self._thread.start()

    # --- from any thread ----------------------------------------------------------------------------------------------

    @property
    def inside(self) -> bool:
        """Whether the caller runs in the loop's thread."""
        return threading.get_ident() == self._thread.ident

    def post(self, action: Callable[[], None]) -> None:
        """Run something in the loop's thread, soon."""
        self._posted.append(action)
        with self._lock:
            if self._woken or self.inside:
                return
            self._woken = True
        with contextlib.suppress(OSError):  # full: it is awake anyway
            self._wake_writer.send(b"x")

    def call(self, action: Callable[[], None]) -> None:
        """Run something in the loop's thread and return when it is done.

        Raises:
            Exception: whatever it raised.
        """
        if self.inside:
            action()
            return
        done = threading.Event()
        raised: list[Exception] = []

        def act() -> None:
            try:
                action()
            except Exception as error:
                raised.append(error)
            finally:
                done.set()

        self.post(act)
        done.wait()
        if raised:
            raise raised[0]

    # --- in the loop's thread -----------------------------------------------------------------------------------------

    def at_end(self, action: Callable[[], None]) -> None:
        """Run something at the end of this turn; from another thread, soon."""
        if self.inside:
            self._last.append(action)
        else:
            self.post(action)

    def watch(self, one: Watched, mask: int) -> None:
        """Wait for these events from now on."""
        if mask == one.mask:
            return
        if one.mask == 0:
            self._selector.register(one.sock, mask, one)
        elif mask == 0:
            self._selector.unregister(one.sock)
        else:
            self._selector.modify(one.sock, mask, one)
        one.mask = mask

    def remind(self, one: Timed, moment: float) -> None:
        """Call its `due` at a moment of the monotonic clock, or earlier."""
        self._alarms[one] = min(moment, self._alarms.get(one, moment))
        self._next = min(moment, self._next)

    def forget(self, one: Timed) -> None:
        """Do not call its `due` any more."""
        self._alarms.pop(one, None)

    def _run(self) -> None:
        while True:
            try:
                self._turn()
            except Exception:  # without this thread nothing is forwarded any more
                log.exception("the loop")
                time.sleep(BREAK)

    def _turn(self) -> None:
        ready = self._select()
        self.turn += 1
        for key, _ in ready:
            if key.data is None:
                self._wake_reader.recv(4096)
        if self._woken:
            with self._lock:
                self._woken = False
        # Before the sockets: a connection that was made after a link came or went has to meet the new state.
        for _ in range(len(self._posted)):
            guard(self._posted.popleft())
        if len(ready) > 1:
            ready.sort(key=_later)
        for key, mask in ready:
            one = key.data
            if one is not None and one.mask & mask:
                try:
                    one.ready(mask)
                except Exception:
                    log.exception("in the loop")
        if self._next <= time.monotonic():
            self._call_due()
        if self._last:
            last, self._last = self._last, []
            for action in last:
                guard(action)

    def _select(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait until something is ready or due."""
        try:
            ready = self._selector.select(self._timeout())
        except (OSError, ValueError):  # a socket was closed while it was watched
            if not self._failed:
                log.exception("the loop's selector")
            self._failed = True
            if not self._drop_closed():
                time.sleep(BREAK)  # it would fail again at once
            return []
        self._failed = False
        return ready

    def _drop_closed(self) -> bool:
        """Watch no closed socket any more; return whether there was one."""
        watched = [key.data for key in self._selector.get_map().values() if key.data is not None]
        closed = [one for one in watched if one.sock.fileno() == -1]
        for one in closed:
            self._selector.unregister(one.sock)
            one.mask = 0
        return bool(closed)

    def _call_due(self) -> None:
        instant = time.monotonic()
        for one in [one for one, moment in self._alarms.items() if moment <= instant]:
            if self._alarms.pop(one, None) is not None:
                guard(one.due)
        self._next = min(self._alarms.values(), default=_NEVER)

    def _timeout(self) -> float | None:
        if self._posted or self._last:
            return 0.0
        return max(0.0, self._next - time.monotonic()) if self._next < _NEVER else None


def _later(ready: tuple[selectors.SelectorKey, int]) -> bool:
    """Return whether this one comes behind those that are `first`."""
    return ready[0].data is None or not ready[0].data.first


def guard(action: Callable[[], None]) -> None:
    """Run something; a bug in it does not end the loop."""
    try:
        action()
    except Exception:
        log.exception("in the loop")


def shared() -> Loop:
    """Return the loop of this process."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Loop()
        return _shared
