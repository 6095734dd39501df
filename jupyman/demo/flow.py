"""`jupyman demo`: check, up, kernel and a cell against a temporary SSH host on this computer."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from jupyman.demo.cell import execute
from jupyman.demo.host import ALIAS, DemoHost

CELL = "import os, sys; print(f'Python {sys.version.split()[0]}, pid {os.getpid()}, in {os.getcwd()}')"
KERNEL = "demo-kernel"
INTERRUPT_TIMEOUT = 2.0  # seconds for a command to end after Ctrl-C
# Ctrl-C, `kill`, and the end of the terminal all clean up.
ENDS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
STEPS = (
    ("check", ALIAS),
    ("up", ALIAS, "--no-browser"),
    ("kernel", "add", sys.prefix, ALIAS, "--name", KERNEL, "--display-name", "Python of the demo"),
    ("ps",),
)


def run(*, once: bool, browser: bool, say: Callable[[str], None]) -> int:
    """Run the demo.

    Args:
        once: do not wait for Ctrl-C at the end; clean up and return.
        browser: open the local browser at the session.
        say: prints a line.

    Returns:
        The exit status.

    Raises:
        UsageFault: the extra `demo` is not installed.
    """
    with contextlib.ExitStack() as undo:
        for number in ENDS:
            if (before := signal.getsignal(number)) is not signal.SIG_IGN:  # as under nohup
                undo.callback(signal.signal, number, before)
                signal.signal(number, _end)
        # A short path, because those of the kernels' UNIX sockets below it are limited to 107 bytes.
        directory = Path(tempfile.mkdtemp(prefix="jmdemo-"))
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        host = undo.enter_context(DemoHost(directory / "host"))
        environ = {**os.environ, "JUPYMAN_HOME": str(directory / "jupyman"), "JUPYMAN_SSH_CONFIG": str(host.ssh_config)}
        undo.callback(_clean_up, environ, say)
        say(f"a temporary SSH host listens on 127.0.0.1:{host.port}, its home is {host.home}")
        return _flow(environ, once=once, browser=browser, say=say)


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def _clean_up(environ: dict[str, str], say: Callable[[str], None]) -> None:
    for number in ENDS:  # also for the commands below: a second Ctrl-C must not interrupt the cleaning
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # the terminal may be gone
        say("")
        say("cleaning up")
    _jupyman(environ, "kill", "-y", "--force", ALIAS, quiet=True)
    _jupyman(environ, "daemon", "stop", quiet=True)


def _flow(environ: dict[str, str], *, once: bool, browser: bool, say: Callable[[str], None]) -> int:
    for words in STEPS:
        say("")
        say(f"$ jupyman {shlex.join(words)}")
        status = _jupyman(environ, *words)
        if status != 0:
            return status
    answer = subprocess.run(_command("url", ALIAS), env=environ, stdout=subprocess.PIPE, text=True, check=False)
    if answer.returncode != 0:
        return answer.returncode
    url = answer.stdout.strip()
    say("")
    say("a cell through the tunnel:")
    say(f"  {execute(url, CELL, kernel=KERNEL).strip()}")
    if once:
        say("")
        say("the demo succeeded")
        return 0
    say("")
    say(f"open {url}")
    say("Ctrl-C ends the demo and removes everything that it made")
    with contextlib.suppress(KeyboardInterrupt):
        if browser:
            _jupyman(environ, "open", ALIAS, quiet=True)
        threading.Event().wait()
    return 0


def _command(*words: str) -> list[str]:
    # -P: do not import a jupyman.py of the current directory, which may be /tmp.
    return [sys.executable, "-P", "-m", "jupyman", *words]


def _jupyman(environ: dict[str, str], *words: str, quiet: bool = False) -> int:
    sink = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(_command(*words), env=environ, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # On a terminal the command receives Ctrl-C too, and reports it itself.
            with contextlib.suppress(subprocess.TimeoutExpired):
                if (status := process.wait(INTERRUPT_TIMEOUT)) > 0:
                    return status
            process.terminate()
            raise
