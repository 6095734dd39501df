"""The log of a server."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jupyman import errors
from jupyman.host.shell import script
from jupyman.host.shell.script import Shell
from jupyman.tools.jupyter import server

_FOLLOW_TIMEOUT = 30 * 24 * 3600.0  # seconds


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
    """Read a server's log with its tokens redacted: see `Launcher.logs`."""
    if not server.valid_name(name):
        raise errors.UsageFault(f"{name!r} is not a session name", "see jupyman ps")

    def on_fact(key: str, value: str) -> None:
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
        timeout=_FOLLOW_TIMEOUT if follow else script.LOOK_TIMEOUT,
        on_fact=on_fact,
        cancelled=cancelled,
    )
