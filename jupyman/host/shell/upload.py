"""Upload files to a host through its link; they are checked by SHA-256, and an interrupted upload is continued."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jupyman import errors
from jupyman.host.shell import script
from jupyman.host.shell.script import ANSWER_LIMIT, CommandResult

PIECE = 256 * 1024  # bytes
STALL = 600.0  # seconds without progress (a dead link is noticed sooner), and to check the sum at the end
REPORT_EVERY = 0.2  # seconds between two reports of progress


class FeedingShell(Protocol):
    """A shell that can send bytes to a running script; `jupyman.ssh.link.Link` is one."""

    def run(
        self,
        script: str,
        *,
        timeout: float,
        limit: int = ANSWER_LIMIT,
        on_line: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
        feed: Callable[[str], Iterator[bytes] | None] | None = None,
    ) -> CommandResult:
        """Run a script: see `Shell.run`.

        `feed` is called with each line that the script prints, until it returns the bytes for the script's stdin.
        """


@dataclass(frozen=True)
class _Fed:
    """A shell that feeds a file to its script."""

    link: FeedingShell
    feed: Callable[[str], Iterator[bytes] | None]

    def run(
        self,
        script: str,
        *,
        timeout: float,
        limit: int = ANSWER_LIMIT,
        on_line: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> CommandResult:
        """Run a script: see `Shell.run`."""
        return self.link.run(script, timeout=timeout, limit=limit, on_line=on_line, cancelled=cancelled, feed=self.feed)


def digest(path: Path, cancelled: threading.Event) -> tuple[str, int]:
    """Return the checksum and size of a file.

    Returns:
        Its SHA-256 and its size in bytes.

    Raises:
        UsageFault: it cannot be read.
        Interrupted: `cancelled` was set.
    """
    found, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(4 * PIECE):
                if cancelled.is_set():
                    raise errors.Interrupted("interrupted")
                found.update(block)
                size += len(block)
    except OSError as error:
        raise errors.UsageFault(f"{path} cannot be read: {error.strerror or error}", "name another file") from error
    return found.hexdigest(), size


def upload(
    link: FeedingShell,
    path: Path,
    *,
    progress: Callable[[int, int, float], None],
    cancelled: threading.Event,
) -> str:
    """Upload a file.

    Args:
        link: to the host.
        path: of the file, which keeps its name on the host.
        progress: called with the bytes that have arrived, the size, and the bytes per second.
        cancelled: ends it; what has arrived is kept for the next attempt.

    Returns:
        Its path on the host.

    Raises:
        UsageFault: the file cannot be read, or changed meanwhile.
        RemoteFailed: no room, or the checksum differs.
        LinkLost, Interrupted: as `script.run`.
    """
    sha, size = digest(path, cancelled)

    def pieces(start: int) -> Iterator[bytes]:
        began, reported, have = time.monotonic(), 0.0, start
        try:
            with path.open("rb") as file:
                file.seek(start)
                while have < size and (block := file.read(min(PIECE, size - have))):
                    yield block
                    have += len(block)
                    instant = time.monotonic()
                    if instant - reported >= REPORT_EVERY or have == size:
                        reported = instant
                        progress(have, size, (have - start) / max(instant - began, 0.001))
        except OSError as error:
            raise errors.UsageFault(f"{path} cannot be read: {error.strerror or error}", "look at its disk") from error

    def feed(line: str) -> Iterator[bytes] | None:
        word, _, start = line.strip().partition(" ")
        if word != "feed" or not start.isascii() or not start.isdigit() or int(start) > size:
            return None
        return pieces(int(start))

    arguments = {"SHA": sha, "SIZE": str(size), "FILE": path.name}
    facts = script.run(_Fed(link, feed), "envs/put", arguments, timeout=STALL, cancelled=cancelled)
    there = facts.one("path")
    if there is None:
        raise errors.RemoteFailed(f"the host did not report the path of {path.name}", "run it again")
    return there
