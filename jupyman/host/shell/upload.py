"""Files of this computer to a host, on the link that is there: checked, and continued where one was broken off."""

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
STALL = 600.0  # seconds without a byte taken; a dead link is noticed sooner. Also the time to check the sum
TELL = 0.2  # seconds between two words about how far it is


class Feeding(Protocol):
    """A link that can send bytes to a script: `jupyman.ssh.link.Link`."""

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
        """Run a script; see `jupyman.host.shell.script.Shell`."""


@dataclass(frozen=True)
class _Fed:
    """A link whose next script gets a file."""

    link: Feeding
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
        """Run it: see `Shell.run`."""
        return self.link.run(script, timeout=timeout, limit=limit, on_line=on_line, cancelled=cancelled, feed=self.feed)


def digest(path: Path, cancelled: threading.Event) -> tuple[str, int]:
    """Read a file once.

    Returns:
        Its SHA-256 and its size in bytes.

    Raises:
        UsageFault: it cannot be read.
        Interrupted: cancelled.
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
    link: Feeding,
    path: Path,
    *,
    progress: Callable[[int, int, float], None],
    cancelled: threading.Event,
) -> str:
    """Upload a file.

    Args:
        link: to the host.
        path: of the file; its name becomes the file's there.
        progress: told the bytes that are there, the size, and the bytes a second.
        cancelled: ends it; what has come is kept for the next time.

    Returns:
        Its path on the host.

    Raises:
        UsageFault: the file cannot be read, or changed meanwhile.
        RemoteFailed: no room, or what came is not what was sent.
        LinkLost, Interrupted: as `script.run`.
    """
    sha, size = digest(path, cancelled)

    def pieces(start: int) -> Iterator[bytes]:
        began, told, have = time.monotonic(), 0.0, start
        try:
            with path.open("rb") as file:
                file.seek(start)
                while have < size and (block := file.read(min(PIECE, size - have))):
                    yield block
                    have += len(block)
                    instant = time.monotonic()
                    if instant - told >= TELL or have == size:
                        told = instant
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
        raise errors.RemoteFailed(f"the host did not say where {path.name} lies", "run it again")
    return there
