"""How a daemon describes itself to a client, and how the client decides to use it, to replace it, or to refuse it."""

from __future__ import annotations

import os

import msgspec

from jupyman import API_VERSION, __version__, errors
from jupyman.local import build


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``/v1/prove`` and ``/v1/hello``; the defaults are for 0.1.0, which sends fewer fields."""

    version: str
    pid: int
    busy: int = 0  # operations that clients wait for; those that only follow a log do not count
    api: int = 1
    build: str = ""

    def outdated(self, stamp: str) -> bool:
        """Return whether a daemon of this code should replace that one: its version is older, or its build differs.

        Args:
            stamp: of the daemon's code, as in daemon.json.
        """
        if self.version != __version__:
            return _newer(__version__, self.version)
        if self.api != API_VERSION:
            return True
        return stamp != build.stamp() and self.build != build.identity()

    def check(self) -> None:
        """Check that a client of this code can use the daemon.

        Raises:
            VersionMismatch: it cannot.
        """
        if (self.version, self.api) == (__version__, API_VERSION):
            return
        text = f"the daemon is jupyman {self.version}, this is {__version__}"
        if self.version == __version__:
            text = f"the daemon is another build of jupyman {__version__}: its API is {self.api}, not {API_VERSION}"
        if self.busy and self.outdated(""):
            hint = f"try again when they have ended, or {errors.VersionMismatch.default_hint}"
            raise errors.VersionMismatch(f"{text}, and commands wait for it", hint)
        raise errors.VersionMismatch(text)


def ours(busy: int) -> Hello:
    """Describe the daemon that this process is.

    Args:
        busy: operations that clients wait for.
    """
    return Hello(version=__version__, pid=os.getpid(), busy=busy, api=API_VERSION, build=build.identity())


def _newer(one: str, other: str) -> bool:
    """Return whether `one` is the later version; False if one of them is no plain version."""

    def numbers(version: str) -> tuple[int, ...] | None:
        parts = version.split(".")
        return tuple(map(int, parts)) if all(part.isascii() and part.isdigit() for part in parts) else None

    first, second = numbers(one), numbers(other)
    return first is not None and second is not None and first > second
