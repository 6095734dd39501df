"""state.json: what the user wants, on disk. It contains no secret: tokens stay on their hosts.

The file has a format version, `VERSION`. A new optional field needs no new version: an older file lacks it, and an
older jupyman ignores it. Every other change needs a new version, a step in `_STEPS`, and a file of the old version in
tests/data/state.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from jupyman import errors
from jupyman.model import SessionSpec, TunnelSpec

VERSION = 2


class State(msgspec.Struct, kw_only=True):
    """Content of the file."""

    version: int = VERSION
    sessions: dict[str, SessionSpec] = {}
    tunnels: list[TunnelSpec] = []
    environments: dict[str, list[str]] = {}  # names per host, for shell completion


class _Header(msgspec.Struct):
    version: Annotated[int, msgspec.Meta(ge=1)]


@dataclass
class Store:
    """The state file; the manager is its only writer.

    Args:
        path: of the file (mode 0600, its folder 0700).
    """

    path: Path
    state: State = field(default_factory=State)
    recovered: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self) -> None:
        """Read the file. A broken file is renamed, and the last good copy is read; an older format is migrated.

        Before that, an older file is copied to ``state.json.vN``, N being its format: whoever returns to an older
        jupyman needs it.

        Raises:
            VersionMismatch: the file was written by a newer jupyman; it is not touched.
        """
        for path in (self.path, self._beside("bak")):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            try:
                version = msgspec.json.decode(content, type=_Header).version
                if version > VERSION:
                    raise errors.VersionMismatch(
                        f"{path} was written by a newer jupyman (format {version}, this one reads {VERSION})",
                        f"use that version, or move {self.path}* away; your servers keep running",
                    )
                self.state = _migrated(msgspec.json.decode(content, type=State), version)
            except ValueError as error:  # not JSON, JSON of another shape, or not text
                aside = path.with_name(f"{path.name}.broken-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
                path.replace(aside)
                self.recovered = f"{path} could not be read ({error}); kept as {aside.name}"
                continue
            if version < VERSION:
                # A full disk must not keep the daemon from starting.
                with contextlib.suppress(OSError):
                    _write(self._beside(f"v{version}"), content)
            return

    def save(self) -> None:
        """Write the file so that a power failure leaves the old or the new content, never a part.

        Raises:
            OSError: disk full or no permission; the old file stays.
        """
        content = msgspec.json.format(msgspec.json.encode(self.state), indent=1)
        backup = self._beside("bak")

        def keep() -> None:
            if self.path.exists():
                backup.unlink(missing_ok=True)
                # On a file system without hard links there is no backup; the replacement is atomic all the same.
                with contextlib.suppress(OSError):
                    os.link(self.path, backup)

        with self._lock:
            _write(self.path, content, keep)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{suffix}")


def _write(path: Path, content: bytes, before: Callable[[], None] = lambda: None) -> None:
    """Write a file completely or not at all; `before` is called when only the replacement is left to do."""
    fresh = path.with_name(f"{path.name}.new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    before()
    fresh.replace(path)


# --- migration ----------------------------------------------------------------------------------------------------


def _migrated(state: State, version: int) -> State:
    """Bring a state of an older format to the present one, one version at a time.

    Args:
        state: as read; fields that are gone need a struct of their own in the step that reads them.
        version: its format.
    """
    for old in range(version, VERSION):
        state = _STEPS[old](state)
    return msgspec.structs.replace(state, version=VERSION)


def _said(state: State) -> State:
    """Migrate format 1 (jupyman 0.1.0), whose first files lack `said`: then all values count as said."""
    sessions = {}
    for name, spec in state.sessions.items():
        restart = ["restart"] if spec.restart == "always" else []
        said = spec.said if spec.said is not None else sorted(["app", "dir", "env", "gpu", "port", *restart])
        sessions[name] = msgspec.structs.replace(spec, said=said)
    return msgspec.structs.replace(state, sessions=sessions)


_STEPS: dict[int, Callable[[State], State]] = {1: _said}
