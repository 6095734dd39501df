"""A host that exists only in a test: it answers scripts from a table."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jupyman import errors, remote
from jupyman.host.shell.script import ANSWER_LIMIT
from jupyman.ssh.exec.command import CompletedCommand

FOLDER = Path(remote.__file__).parent
SCRIPTS = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.sh"))
SCRIPTS = [name for name in SCRIPTS if not name.startswith("lib/")]
Answer = str | errors.JupymanError | Callable[[str], str]


@dataclass
class FakeShell:
    """A `Shell`.

    Attributes:
        answers: by script: the lines ``NAME VALUE`` that it prints, an error of the link, or a function that makes the
            lines from the script's text. A script without an answer fails as on a host that starts no shell. One text
            alone answers every script.
        ran: the scripts that ran, in order.
    """

    answers: Mapping[str, Answer] | str = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)

    def run(
        self,
        script: str,
        *,
        timeout: float,
        limit: int = ANSWER_LIMIT,
        on_line: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> CompletedCommand:
        """Answer a script: see `Shell.run`."""
        del timeout, limit
        if cancelled is not None and cancelled.is_set():
            raise errors.Interrupted("interrupted")
        name = next((one for one in SCRIPTS if remote.script(one) in script), "")
        self.ran.append(name)
        answer = self.answers if isinstance(self.answers, str) else self.answers.get(name)
        if answer is None:
            raise errors.RemoteFailed("the host starts no shell")
        if isinstance(answer, errors.JupymanError):
            raise answer
        text = answer if isinstance(answer, str) else answer(script)
        [marker] = re.findall(r"^JM_MARK=(\S+)$", script, re.MULTILINE)
        printed = f"{marker} begin\n{text}\n{marker} end 0\n"
        for line in printed.split("\n"):
            if on_line is not None:
                on_line(line)
        return CompletedCommand(printed.encode("utf-8", "surrogatepass"), b"", 0)
