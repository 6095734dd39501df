"""Start the daemon, detached from the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from jupyman.paths import Paths


def spawn(paths: Paths) -> subprocess.Popen[bytes]:
    """Start ``jupyman daemon run`` in the background.

    Args:
        paths: their folders are created first.

    Returns:
        The process. Of two that start at once only one gets the lock; the other exits.
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
            cwd=str(paths.state),  # not the terminal's folder, which could not be unmounted while the daemon runs
            env={**os.environ, "JUPYMAN_DAEMON": "1"},
            **flags,
        )
