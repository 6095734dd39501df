"""Servers that a user starts without jupyman."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.bed.accounts import User
from tests.bed.notebooks import answers
from tests.bed.ports import free_port
from tests.bed.wait import wait_until

RUNTIME = ".local/share/jupyter/runtime"


@contextlib.contextmanager
def by_hand(
    user: User, *options: str, runtime: str = RUNTIME, env: dict[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Run JupyterLab as from a terminal of the user.

    Args:
        user: of the server.
        options: of ``jupyter-lab``.
        runtime: the folder of its runtime file, below the home.
        env: further variables.

    Yields:
        The contents of its runtime file.
    """
    program = str(user.conda / "envs" / "lab" / "bin" / "jupyter-lab")
    port = free_port()
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = (program, "--no-browser", f"--ServerApp.port={port}", *options)
    with user.start(*words, env=env, **quiet) as process:
        try:
            file = user.home / runtime / f"jpserver-{process.pid}.json"

            def written() -> dict[str, Any]:
                with contextlib.suppress(OSError, ValueError):
                    found: dict[str, Any] = json.loads(file.read_text())
                    return found
                return {}

            said = wait_until(written, what="the server's runtime file")
            wait_until(lambda: answers(port), what="the server's port")
            yield said
        finally:
            process.kill()
