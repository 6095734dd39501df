"""Start the daemon, detached from the terminal that asked for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from jupyman.paths import Paths


def spawn(paths: Paths) -> subprocess.Popen[bytes]:
    """Start ``jupyman daemon run`` in the background.

    Args:
        paths: their folders are made first.

    Returns:
        The process; two that start at once settle it by the lock, and the loser ends.
    """
    paths.make()
    flags: dict[str, object] = {}
    if sys.platform == "win32":
        flags["creationflags"] = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
    else:
        flags["start_new_session"] = True
    with Path(os.devnull).open("r+b") as nothing:
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]  # the flags differ by platform
            [sys.executable, "-P", "-m", "jupyman", "daemon", "run"],
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            cwd=str(paths.state),  # not the folder of the terminal: it could not be unmounted for weeks
            env={**os.environ, "JUPYMAN_DAEMON": "1"},
            **flags,
        )
