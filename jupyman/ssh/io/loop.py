"""The loop: one thread that waits for all listeners, local connections and full SSH sockets of this process at once."""

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

from jupyman.ssh.wire.batch import PacketBatch

log = logging.getLogger(__name__)

BREATH = 0.2  # seconds after something broke that should not
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_shared: Loop | None = None
_sharing = threading.Lock()


class Watched(Protocol):
    """What the loop waits for.

    Attributes:
        sock: not blocking.
        mask: the events that it is waited for; the loop's to change.
        first: comes before the others in a turn.
    """

    sock: socket.socket
    mask: int
    first: bool

    def ready(self, mask: int) -> None:
        """Some of them have come; in the loop's thread, must not wait."""


class Timed(Protocol):
    """Who asked to be reminded."""

    def due(self) -> None:
        """The moment has come; in the loop's thread, must not wait."""


class Loop:
    """A selector and its thread, which lives as long as the process: it costs nothing while nothing happens.

    Attributes:
        tray: for whoever sends, in the loop's thread.
        turn: how often something has happened.
    """

    def __init__(self) -> None:
        self.tray = PacketBatch()
        self.turn = 0
        self._selector = selectors.DefaultSelector()
        self._hear, self._call = socket.socketpair()
        self._hear.setblocking(False)
        self._call.setblocking(False)
        self._selector.register(self._hear, READ, None)
        self._inbox: deque[Callable[[], None]] = deque()
        self._rung = False
        self._lock = threading.Lock()
        self._alarms: dict[Timed, float] = {}
        self._thread = threading.Thread(target=self._run, name="forwards", daemon=True)
        self._thread.start()

    # --- from any thread ----------------------------------------------------------------------------------------------

    def post(self, action: Callable[[], None], *, wake: bool = True) -> None:
        """Do something in the loop's thread.

        Args:
            action: it.
            wake: soon; else before the next thing that happens there.
        """
        self._inbox.append(action)
        with self._lock:
            if self._rung or not wake:
                return
            self._rung = True
        with contextlib.suppress(OSError):  # full: it is awake anyway
            self._call.send(b"x")

    def call(self, action: Callable[[], None]) -> None:
        """Do something in the loop's thread and return when it is done."""
        if threading.current_thread() is self._thread:
            action()
            return
        done = threading.Event()

        def act() -> None:
            try:
                action()
            finally:
                done.set()

        self.post(act)
        done.wait()

    # --- in the loop's thread -----------------------------------------------------------------------------------------

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
        """Call its `due` at a moment of the monotonic clock, or before."""
        self._alarms[one] = min(moment, self._alarms.get(one, moment))

    def forget(self, one: Timed) -> None:
        """Do not remind it any more."""
        self._alarms.pop(one, None)

    def _run(self) -> None:
        while True:
            try:
                self._turn()
            except Exception:  # without this thread nothing is forwarded any more
                log.exception("forwarding")
                time.sleep(BREATH)

    def _turn(self) -> None:
        ready = self._selector.select(self._patience())
        self.turn += 1
        for key, _ in ready:
            if key.data is None:
                self._hear.recv(4096)
        with self._lock:
            self._rung = False
        # Before the sockets: a connection that was made after a link came or went meets it as it is now.
        for _ in range(len(self._inbox)):
            guard(self._inbox.popleft())
        for early in (True, False):
            for key, mask in ready:
                one = key.data
                if one is not None and one.first is early and one.mask & mask:
                    try:
                        one.ready(mask)
                    except Exception:
                        log.exception("forwarding")
        if self._alarms:
            instant = time.monotonic()
            for owner in [one for one, moment in self._alarms.items() if moment <= instant]:
                del self._alarms[owner]
                guard(owner.due)

    def _patience(self) -> float | None:
        if self._inbox:
            return 0.0
        return max(0.0, min(self._alarms.values()) - time.monotonic()) if self._alarms else None


def guard(action: Callable[[], None]) -> None:
    """Do something; a bug in it does not end the loop."""
    try:
        action()
    except Exception:
        log.exception("forwarding")


def shared() -> Loop:
    """Return the loop of this process."""
    global _shared
    with _sharing:
        if _shared is None:
            _shared = Loop()
        return _shared
