"""The session channels of a link, for commands: a few at once, and some that are opened ahead.

Threads: any. `_changed` guards everything but the two semaphores; `_answered` runs in the transport's thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import paramiko

from jupyman import errors
from jupyman.ssh.channels.transport import BROKEN, Done

# sshd's MaxSessions is 10 by default; some are left for others.
MAX_COMMANDS = 6
# So many are open before a command needs them, which saves a round trip. They cost no process on the host.
AHEAD = 3
# So many of them may be held for a later command: whoever holds one needs others meanwhile.
MAX_SPARE = 2
RETRY = 0.5  # seconds until a server that had no session left is asked again
TRIES = 8  # while no command of ours runs that could make room


class SessionPool:
    """Hands out session channels.

    Args:
        name: of the host, for messages.
        create: opens one and waits for it.
        begin: opens one without waiting, as `Transport.begin_channel`.
        ended: returns why the connection has ended, None while it has not.
    """

    def __init__(
        self,
        name: str,
        create: Callable[[], paramiko.Channel],
        begin: Callable[[Done], None],
        ended: Callable[[], errors.JupymanError | None],
    ) -> None:
        self._name = name
        self._create = create
        self._begin = begin
        self._ended = ended
        self._slots = threading.Semaphore(MAX_COMMANDS)
        self._spares = threading.Semaphore(MAX_SPARE)
        self._changed = threading.Condition()
        self._running = 0
        self._since = 0.0  # when that was 0 last, on the monotonic clock
        self._ahead: deque[paramiko.Channel] = deque()
        self._opening = 0
        self._few = False  # the server has refused one, so none is opened ahead any more

    @property
    def busy(self) -> float:
        """For how many seconds at least one command has been running; 0: none is."""
        with self._changed:
            return time.monotonic() - self._since if self._running else 0.0

    @contextlib.contextmanager
    def session(self, deadline: float, cancelled: threading.Event | None) -> Iterator[paramiko.Channel]:
        """Take a session channel for a ``with`` block; it is closed afterwards.

        Args:
            deadline: until which to wait for one, on the monotonic clock.
            cancelled: ends the wait.

        Raises:
            LinkLost: the connection ended.
            RemoteFailed: the server opens none, or none became free.
            Interrupted: cancelled.
        """
        with self._slot(deadline, cancelled):
            channel = self._take(deadline, cancelled)
            try:
                yield channel
            finally:
                self._give_back(channel)

    @contextlib.contextmanager
    def spare(self) -> Iterator[paramiko.Channel | None]:
        """Take a session channel for a ``with`` block if one is there at once; else None.

        None as well if the server allows few: a caller that holds one and waits for another would wait for itself.
        """
        channel = self._spared()
        try:
            yield channel
        finally:
            if channel is not None:
                self._give_back(channel)
                self._slots.release()
                self._spares.release()

    def _spared(self) -> paramiko.Channel | None:
        """Return a channel, and take a slot for it."""
        if not self._spares.acquire(blocking=False):
            return None
        if self._slots.acquire(blocking=False):
            with self._changed:
                plenty = not self._few and len(self._ahead) == AHEAD
            channel = self._opened_ahead() if plenty else None
            if channel is not None:
                return channel
            self._slots.release()
        self._spares.release()
        return None

    def _give_back(self, channel: paramiko.Channel) -> None:
        with contextlib.suppress(*BROKEN):
            channel.close()
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def _begin_one(self) -> None:
        """Count a command that begins; `_changed` is held."""
        if self._running == 0:
            self._since = time.monotonic()
        self._running += 1

    @contextlib.contextmanager
    def _slot(self, deadline: float, cancelled: threading.Event | None) -> Iterator[None]:
        """Take one of the slots."""
        while not self._slots.acquire(timeout=0.25):
            if cancelled is not None and cancelled.is_set():
                raise errors.Interrupted("interrupted while waiting for other commands on the host")
            if (lost := self._ended()) is not None:
                raise lost
            if time.monotonic() >= deadline:
                raise errors.RemoteFailed(f"other commands on {self._name} did not finish in time")
        try:
            yield
        finally:
            self._slots.release()

    def _take(self, deadline: float, cancelled: threading.Event | None) -> paramiko.Channel:
        """Return a channel; if the server allows few (MaxSessions), wait for one to end."""
        alone = 0
        while True:
            channel = self._opened_ahead()
            if channel is not None:
                return channel
            try:
                channel = self._create()
            except paramiko.ChannelException as error:
                with self._changed:
                    # This may take a moment even if no command runs: sshd counts a session until its process is gone.
                    alone = alone + 1 if self._running == 0 else 0
                    if alone >= TRIES or time.monotonic() >= deadline:
                        raise self._none(error) from error
                    if not self._ahead:
                        self._changed.wait(min(RETRY, max(0.0, deadline - time.monotonic())))
                if cancelled is not None and cancelled.is_set():
                    raise errors.Interrupted("interrupted while waiting for a session") from error
            except BROKEN as error:
                lost = self._ended()
                if lost is None:
                    raise errors.RemoteFailed(f"{self._name} starts no session: {error}") from error
                raise lost from error
            else:
                with self._changed:
                    self._begin_one()
                self.open_ahead()
                return channel

    def _opened_ahead(self) -> paramiko.Channel | None:
        found: paramiko.Channel | None = None
        with self._changed:
            while self._ahead and found is None:
                channel = self._ahead.popleft()
                if not channel.closed:  # the server may end those that are idle (ChannelTimeout)
                    found = channel
                    self._begin_one()
        if found is not None:
            self.open_ahead()
        return found

    def open_ahead(self) -> None:
        """Ask for the channels that the next commands need, without waiting."""
        with self._changed:
            missing = 0 if self._few else AHEAD - len(self._ahead) - self._opening
            self._opening += missing
        for _ in range(missing):
            try:
                self._begin(self._answered)
            except BROKEN:
                self._answered(None, None)

    def _answered(self, channel: paramiko.Channel | None, error: Exception | None) -> None:
        """A channel was opened ahead, or refused; in the transport's thread."""
        with self._changed:
            self._opening -= 1
            self._few = self._few or isinstance(error, paramiko.ChannelException)
            if channel is not None:
                self._ahead.append(channel)
            self._changed.notify_all()

    def _none(self, error: paramiko.ChannelException) -> errors.RemoteFailed:
        return errors.RemoteFailed(
            f"{self._name} starts no session: {error.text or error.code}",
            "ask the admin whether sshd_config forbids it (MaxSessions)",
        )
