"""A command on a pseudo-terminal: questions, answers, and Ctrl-C as a key."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import tempfile
import termios
import time
from types import TracebackType
from typing import Self

from tests.bed import Cli, Ran

CTRL_C = "\x03"
PROMPTLY = 5.0  # seconds on a busy machine
_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\r")


class Terminal:
    """Runs a command with a pseudo-terminal as its stdin and stderr; stdout is kept apart.

    Attributes:
        seen: what the terminal showed so far, without control sequences.
        raw: the same with them.

    Args:
        cli: the command line.
        words: its arguments.
        whole: stdout goes to the terminal too, as without a redirection.
    """

    def __init__(self, cli: Cli, *words: str, whole: bool = False) -> None:
        self.seen = self.raw = ""
        self._from = 0
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        self._master, slave = os.openpty()
        try:
            # As the controlling terminal, which turns Ctrl-C into a signal and is /dev/tty.
            self.process = cli.start(
                *words,
                stdin=slave,
                stderr=slave,
                stdout=slave if whole else self._out,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        finally:
            os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._master)
        self._out.close()

    def expect(self, text: str, timeout: float = 30.0) -> None:
        """Wait until the terminal shows a text, after the last one that was expected."""
        end = time.monotonic() + timeout
        while (found := self.seen.find(text, self._from)) < 0:
            left = end - time.monotonic()
            assert left > 0, f"{text!r} was not shown in {timeout:g} s: {self.seen}"
            assert self._read(left), f"the command ended without {text!r}: {self.seen}"
        self._from = found + len(text)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.type(CTRL_C)

    def echoes(self) -> bool:
        """Return whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    def end(self, timeout: float = 30.0) -> Ran:
        """Wait for the command's end; its stderr is what the terminal showed."""
        end = time.monotonic() + timeout
        while self._read(max(0.0, end - time.monotonic())):
            assert time.monotonic() < end, f"the command did not end in {timeout:g} s: {self.seen}"
        status = self.process.wait(max(0.1, end - time.monotonic()))
        self._out.seek(0)
        return Ran(status, self._out.read(), self.seen)

    def _read(self, timeout: float) -> bool:
        """Read what comes next; False when the command has closed the terminal."""
        ready, _, _ = select.select([self._master], [], [], timeout)
        if not ready:
            return True
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # EIO: no process has it open any more
            return False
        text = chunk.decode("utf-8", "replace")
        self.raw += text
        self.seen += _CONTROL.sub("", text)
        return bool(chunk)


def interrupted(terminal: Terminal) -> Ran:
    """Press Ctrl-C, and assert that the command ends soon and as it should."""
    pressed = time.monotonic()
    terminal.interrupt()
    ran = terminal.end()
    assert time.monotonic() - pressed < PROMPTLY
    assert ran.rc == 130, ran
    assert ran.stderr.splitlines()[-2:] == ["error: interrupted", "hint: nothing was left half done"], ran
    assert "Traceback" not in ran.stderr, ran
    assert ran.stdout == "", ran
    return ran
