"""The command line and the daemon as real processes, with a home of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bed.wait import wait_until
from tests.schemas import check_words

REPOSITORY = Path(__file__).parent.parent.parent
KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "COVERAGE_PROCESS_START")
BROWSER = """\
#!/bin/sh
printf '%s\\n' "$1" >>"${0%/*}/browsed"
"""


@dataclass(frozen=True)
class Ran:
    """The end of a command.

    Attributes:
        rc: the exit status; negative: the signal.
        stdout: all of it.
        stderr: all of it.
        words: the arguments, if its JSON is to be compared with docs/schema.
    """

    rc: int
    stdout: str
    stderr: str
    words: tuple[str, ...] = ()

    @property
    def json(self) -> Any:
        """Standard output, parsed as JSON and compared with its schema."""
        output = json.loads(self.stdout)
        check_words(self.words, output)
        return output

    def __str__(self) -> str:
        """Return all of it, for a failed assertion."""
        return f"status {self.rc}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


class Cli:
    """Runs ``python -m jupyman``.

    Args:
        home: becomes JUPYMAN_HOME.
        ssh_config: becomes JUPYMAN_SSH_CONFIG; None: none is set.
        environ: further variables for every call.
    """

    def __init__(self, home: Path, ssh_config: Path | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.ssh_config = ssh_config
        self.more = dict(environ or {})
        # Not below JUPYMAN_HOME, which belongs to the program.
        self.user_home = home.parent / "user"
        self.user_home.mkdir(exist_ok=True)
        browser = self.user_home / "browser"
        browser.write_text(BROWSER)
        browser.chmod(0o755)

    @property
    def browsed(self) -> list[str]:
        """The addresses that the browser was started with, oldest first."""
        seen = self.user_home / "browsed"
        return seen.read_text().splitlines() if seen.exists() else []

    @property
    def environ(self) -> dict[str, str]:
        """The variables of a command: without an agent and a display, and with a home of its own."""
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        named = {"JUPYMAN_SSH_CONFIG": str(self.ssh_config)} if self.ssh_config is not None else {}
        return {
            **kept,
            "HOME": str(self.user_home),
            "PYTHONPATH": str(REPOSITORY),
            "JUPYMAN_HOME": str(self.home),
            "BROWSER": str(self.user_home / "browser"),
            **named,
            **self.more,
        }

    def start(self, *words: str, env: Mapping[str, str] | None = None, **how: Any) -> subprocess.Popen[str]:
        """Start a command in a process group of its own.

        Args:
            words: its arguments.
            env: further variables.
            how: for ``subprocess.Popen``; all streams are pipes otherwise.
        """
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        environ = {**self.environ, **(env or {})}
        argv = [sys.executable, "-m", "jupyman", *words]
        return subprocess.Popen(argv, text=True, env=environ, cwd=self.user_home, start_new_session=True, **streams)

    def __call__(
        self,
        *words: str,
        input: str | None = None,
        timeout: float = 90.0,
        env: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run a command to its end.

        Args:
            words: its arguments.
            input: its standard input, which is never a terminal; None: empty.
            timeout: seconds.
            env: further variables.

        Returns:
            What it left.

        Raises:
            AssertionError: it did not end in time; the message has its output.
        """
        # Into files: a daemon that holds a pipe open is a bug that has a test of its own.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            with self.start(*words, env=env, stdout=out, stderr=err) as process:
                late = False
                try:
                    process.communicate(input or "", timeout)
                except subprocess.TimeoutExpired:
                    late = True
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            out.seek(0)
            err.seek(0)
            ran = Ran(process.returncode, out.read(), err.read(), words)
        assert not late, f"jupyman {' '.join(words)} did not end in {timeout:g} s: {ran}"
        return ran

    def processes(self) -> list[psutil.Process]:
        """Return the processes with this JUPYMAN_HOME, the daemon above all."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                ours = process.environ().get("JUPYMAN_HOME") == str(self.home)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@contextlib.contextmanager
def private_home() -> Iterator[Path]:
    """Yield a fresh JUPYMAN_HOME; its daemon and all other processes with it are ended afterwards.

    Yields:
        An absolute path, short, not yet created.
    """
    folder = Path(tempfile.mkdtemp(prefix="jmt-", dir="/tmp"))
    home = folder / "jm"
    try:
        yield home
    finally:
        _end(Cli(home))
        shutil.rmtree(folder, ignore_errors=True)


def _end(cli: Cli) -> None:
    """Kill what runs in the home. A `daemon stop` takes longer, and has tests of its own."""

    def none_left() -> bool:
        left = cli.processes()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return not left

    wait_until(none_left, what="the end of the processes of this JUPYMAN_HOME")
