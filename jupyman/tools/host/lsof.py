"""Read the listeners in lsof's field output (`-F`, lsof(8) "OUTPUT FOR OTHER PROGRAMS")."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jupyman.tools.host.sockets import split_endpoint
from jupyman.tools.host.text import clean


@dataclass(frozen=True)
class Opened:
    """A listening socket and its process; `inode` is the socket's, on Linux."""

    pid: int
    uid: int | None
    user: str | None
    command: str | None
    address: str
    port: int
    inode: int | None = None


def parse(lines: Sequence[str]) -> Iterator[Opened]:
    """Read the output of ``lsof -nP -iTCP -sTCP:LISTEN -F pcuLfdn``.

    Args:
        lines: one field each: `p` starts a process, `c` `u` `L` are its command, uid and account; `f` starts a file,
            `d` is its device (for a socket on Linux the inode), `n` its name.

    Yields:
        Each listening socket; lines that cannot be read are skipped.
    """
    pid = uid = inode = None
    user: str | None = None
    command: str | None = None
    for line in lines:
        kind, value = line[:1], line[1:]
        if kind == "p":
            pid, uid, inode = _number(value), None, None
            user = command = None
        elif kind == "c":
            command = clean(value, 120) or None
        elif kind == "u":
            uid = _number(value)
        elif kind == "L":
            user = clean(value, 60) or None
        elif kind == "f":
            inode = None
        elif kind == "d":
            inode = _number(value)
        elif kind == "n" and pid is not None and "->" not in value:
            place = split_endpoint(value)
            if place is not None:
                yield Opened(pid, uid, user, command, *place, inode)


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
