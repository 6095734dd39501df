"""Another account of the host, and our shell functions on the host."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from jupyman import remote
from tests.bed.local_account import Account

PLAIN = {"PATH": "/usr/bin:/bin"}  # other accounts may not be able to run the Python of these tests


class Neighbour:
    """Another account; what it starts is ended with the test."""

    def __init__(self, uid: int, stack: contextlib.ExitStack) -> None:
        self.uid = uid
        self._stack = stack

    def start(self, code: str) -> Callable[[], str]:
        """Run Python as the neighbour until it says a line; return what reads its next one."""
        words = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "python3", "-c", code]
        process = self._stack.enter_context(
            subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd="/", env=PLAIN)
        )
        self._stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process.stdout.readline

    def owns(self, *places: Path) -> None:
        for path in places:
            os.lchown(path, self.uid, self.uid)


def functions(account: Account, text: str, name: str = "lib/server") -> list[str]:
    """Run sh text behind the functions of lib/common.sh and one more script; return its lines."""
    script = f"{{\nJM_MARK=jm\n{remote.script('lib/common')}\n{remote.script(name)}\n{text}\n}}\n"
    return account.run(script, timeout=30).stdout.decode().splitlines()
