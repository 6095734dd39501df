"""What the user wants, on disk: sessions and forwards. No secret is in it: tokens stay on their hosts."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from jupyman import errors
from jupyman.model import SessionSpec, TunnelSpec

VERSION = 1


class State(msgspec.Struct, kw_only=True):
    """The file's content."""

    version: int = VERSION
    sessions: dict[str, SessionSpec] = {}
    tunnels: list[TunnelSpec] = []
    environments: dict[str, list[str]] = {}  # names per host, for shell completion


class _Header(msgspec.Struct):
    version: int


@dataclass
class Store:
    """The state file; the manager is its only writer.

    Args:
        path: where it is kept (0600, its folder 0700).
    """

    path: Path
    state: State = field(default_factory=State)
    recovered: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self) -> None:
        """Read the file; a broken one is set aside and the last good copy taken.

        Raises:
            VersionMismatch: the file is of a newer jupyman; it is left untouched.
        """
        for path in (self.path, self._backup):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            try:
                header = msgspec.json.decode(content, type=_Header)
                if header.version > VERSION:
                    raise errors.VersionMismatch(
                        f"{path} was written by a newer jupyman (format {header.version})",
                        "use that version, or move the file away; your servers keep running",
                    )
                self.state = msgspec.json.decode(content, type=State)
            except ValueError as error:  # no JSON, another shape, or no text at all
                aside = path.with_name(f"{path.name}.broken-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
                path.replace(aside)
                self.recovered = f"{path} could not be read ({error}); kept as {aside.name}"
                continue
            return

    def save(self) -> None:
        """Write the file so that a power loss leaves the old or the new one, never a half.

        Raises:
            OSError: disk full or no permission; the old file stays.
        """
        content = msgspec.json.format(msgspec.json.encode(self.state), indent=1)
        with self._lock:
            fresh = self.path.with_name(f"{self.path.name}.new")
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                fresh.unlink(missing_ok=True)
                raise
            if self.path.exists():
                self._backup.unlink(missing_ok=True)
                # A file system without hard links: the atomic replace below still holds.
                with contextlib.suppress(OSError):
                    os.link(self.path, self._backup)
            fresh.replace(self.path)

    @property
    def _backup(self) -> Path:
        return self.path.with_name(f"{self.path.name}.bak")
