"""One command on a session channel: a script goes in, its output comes back, within a deadline and a size limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import paramiko
from paramiko.common import cMSG_CHANNEL_REQUEST
from paramiko.message import Message

from jupyman import errors

_CHUNK = 65536
# A script that has exited may leave a process behind that keeps its streams open for ever. Seconds of silence after
# which nothing more is expected; as long as data comes, it is read to its end.
SILENCE = 2.0
LINE = 16384  # bytes of a line that are handed out; a host may print one without an end
LOOK = 0.25  # seconds between looks at the deadline and at `cancelled`; data wakes us at once


@dataclass(frozen=True)
class CompletedCommand:
    """A finished command; `status` None: it was killed or the link ended."""

    stdout: bytes
    stderr: bytes
    status: int | None


class Bell(threading.Event):
    """An event for paramiko's buffers that they cannot clear: it calls back, and several buffers can share it."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    def set(self) -> None:
        """Call back."""
        self._ring()

    def clear(self) -> None:
        """Ignore: the callback looks at the buffers themselves."""


class _CommandOutput:
    """Keeps the first `limit` bytes of stdout and of stderr, and hands out the lines of stdout as they come."""

    def __init__(self, limit: int, on_line: Callable[[str], None] | None) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self._limit = limit
        self._on_line = on_line
        self._tail = bytearray()

    def read(self, channel: paramiko.Channel) -> bool:
        """Read what has come; return whether there was something."""
        some = False
        # A chunk of each, not all: with a host that never stops the deadline would never be looked at.
        if channel.recv_ready():
            some = True
            self._stdout(channel.recv(_CHUNK))
        if channel.recv_stderr_ready():
            some = True
            chunk = channel.recv_stderr(_CHUNK)
            self.err += chunk[: max(0, self._limit - len(self.err))]
        return some

    def _stdout(self, chunk: bytes) -> None:
        self.out += chunk[: max(0, self._limit - len(self.out))]
        if self._on_line is None:
            return
        self._tail += chunk
        *lines, rest = bytes(self._tail).split(b"\n")
        self._tail[:] = rest[:LINE]
        for line in lines:
            self._on_line(line[:LINE].decode("utf-8", "replace"))


Feed = Callable[[str], Iterator[bytes] | None]
"""Called with each line that a script prints, until it returns the pieces for the script's stdin."""


class _Feeder:
    """Sends a script its input, piece by piece, as fast as the channel takes it: one piece at a time is in memory."""

    def __init__(self, channel: paramiko.Channel, feed: Feed | None, on_line: Callable[[str], None] | None) -> None:
        self._channel = channel
        self._feed = feed
        self._on_line = on_line
        self._pieces: Iterator[bytes] | None = None
        self._piece = b""

    def on_line(self, line: str) -> None:
        """Take a line of the script's output."""
        if self._feed is not None and self._pieces is None:
            self._pieces = self._feed(line)
            if self._pieces is not None:
                self._channel.settimeout(LOOK)
        if self._on_line is not None:
            self._on_line(line)

    def give(self) -> bool:
        """Send what the channel takes without waiting long; return whether it took some."""
        if self._pieces is None or self._channel.closed:
            return False
        self._piece = self._piece or next(self._pieces, b"")
        if not self._piece:
            self._pieces, self._feed = None, None
            self._channel.shutdown_write()
            return True
        try:
            sent = self._channel.send(self._piece)
        except TimeoutError:
            return False
        except OSError:
            # The script has ended before it read everything: its output counts.
            self._pieces, self._feed = None, None
            return False
        self._piece = self._piece[sent:]
        return sent > 0


def start(channel: Any) -> None:
    """Start the shell as paramiko's `exec_command` does (RFC 4254, section 6.5), without waiting for the answer.

    The answer sets `channel.event_ready`; after a refusal the channel is closed. (The script has to wait nevertheless:
    sshd takes no data for a session before its program runs.)

    Raises:
        OSError, EOFError, SSHException: as paramiko.
    """
    message = Message()
    message.add_byte(cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("exec")
    message.add_boolean(True)
    message.add_string("/bin/sh -s")
    channel._event_pending()  # noqa: SLF001 - see above
    channel.transport._send_user_message(message)  # noqa: SLF001 - see above


def talk(
    channel: paramiko.Channel,
    script: str,
    *,
    started: bool = False,
    deadline: float,
    limit: int,
    on_line: Callable[[str], None] | None,
    cancelled: threading.Event | None,
    feed: Feed | None = None,
) -> CompletedCommand:
    """Run a script by ``/bin/sh -s`` on a fresh session channel.

    Args:
        channel: not used before; the caller closes it.
        script: its text.
        started: `start` was called.
        deadline: on the monotonic clock.
        limit: bytes kept of stdout and of stderr.
        on_line: called with each line of stdout, cut at LINE bytes.
        cancelled: ends the wait.
        feed: input for the script once it asks; each piece that is taken extends the deadline.

    Raises:
        RemoteFailed: the deadline passed.
        Interrupted: cancelled.
        OSError, EOFError, SSHException: as paramiko.
    """
    news = threading.Event()
    bell = Bell(news.set)
    # If the host does not read its stdin, sending must not wait for ever either.
    channel.settimeout(max(0.1, deadline - time.monotonic()))
    channel.in_buffer.set_event(bell)
    channel.in_stderr_buffer.set_event(bell)
    if not started:
        start(channel)
    try:
        channel.sendall(script.encode("utf-8", "surrogateescape"))
        if feed is None:
            channel.shutdown_write()
    except (TimeoutError, OSError):
        # A shell that ended before it read everything (a login shell: "account expired"): its output counts.
        if not channel.closed and not channel.exit_status_ready():
            raise
    patience = deadline - time.monotonic()
    feeder = _Feeder(channel, feed, on_line)
    output = _CommandOutput(limit, feeder.on_line if feed is not None else on_line)
    quiet_since: float | None = None
    while True:
        news.clear()
        some = output.read(channel)
        if feeder.give():
            deadline = time.monotonic() + patience
            news.set()
        if cancelled is not None and cancelled.is_set():
            raise errors.Interrupted("interrupted")
        instant = time.monotonic()
        if channel.closed:
            if not channel.recv_ready() and not channel.recv_stderr_ready():
                break
            continue
        if channel.exit_status_ready():
            if channel.eof_received and not channel.recv_ready() and not channel.recv_stderr_ready():
                break
            quiet_since = instant if some or quiet_since is None else quiet_since
            if instant - quiet_since >= SILENCE:
                break
        if instant >= deadline:
            raise errors.RemoteFailed(
                "the host did not finish our command in time",
                "the host may hang: a dead network file system, or overload",
            )
        if not some:
            news.wait(min(LOOK, max(0.01, deadline - instant)))
    if channel.closed and not channel.event_ready:
        raise paramiko.SSHException("refused")
    status = channel.recv_exit_status() if channel.exit_status_ready() else None
    return CompletedCommand(stdout=bytes(output.out), stderr=bytes(output.err), status=None if status == -1 else status)
