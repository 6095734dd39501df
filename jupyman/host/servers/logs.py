"""The log of a server, as it is on the host."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jupyman import errors
from jupyman.host.shell import script
from jupyman.host.shell.script import Shell
from jupyman.tools.jupyter import server

_LOOK_TIMEOUT = 30.0  # seconds
_FOLLOW_FOR = 30 * 24 * 3600.0


def logs(
    shell: Shell,
    name: str,
    directory: str | None,
    *,
    lines: int,
    follow: bool,
    on_line: Callable[[str], None],
    cancelled: threading.Event | None = None,
) -> None:
    """Read a server's log, tokens blotted out.

    Args:
        shell: the host.
        name: the session.
        directory: its directory on the host; found by its name where None or "".
        lines: how many of the last.
        follow: go on until `cancelled`.
        on_line: called with each line.
        cancelled: ends it.

    Raises:
        UsageFault: there is no log.
        Interrupted: `cancelled` was set.
    """
    if not server.valid_name(name):
        raise errors.UsageFault(f"{name!r} is no session name", "see jupyman ps")

    def told(key: str, value: str) -> None:
        if key == "line":
            on_line(value)

    script.run(
        shell,
        "servers/logs",
        {
            "NAME": name,
            "DIRECTORY": directory or "",
            "LINES": str(max(0, lines)),
            "FOLLOW": "1" if follow else "0",
        },
        timeout=_FOLLOW_FOR if follow else _LOOK_TIMEOUT,
        on_fact=told,
        cancelled=cancelled,
    )
