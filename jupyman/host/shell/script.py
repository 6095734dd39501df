"""Run one of our scripts on a host and read its answer.

The protocol (docs/protocol.md): the script travels on the stdin of ``/bin/sh -s``, so no login shell parses it; its
answer stands between two lines that carry a random marker, so no banner spoils it. Each line of the answer is
``NAME VALUE``. A line ``error CODE TEXT`` ends the script with an error of ours.
"""

from __future__ import annotations

import re
import secrets
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from jupyman import errors, remote

# Enough for thousands of environments and ports; a host that prints more is broken or hostile.
ANSWER_LIMIT = 4 * 1024 * 1024
LOOK_TIMEOUT = 30.0  # seconds for a look at /proc and small files, on a slow network home
_NAME = re.compile(r"^[a-z][a-z0-9_.-]*$")
_WORDS = re.compile(r"[A-Za-z]")  # unlike the line with the ^ that marks a syntax error
_ARGUMENT = re.compile(r"^[A-Z][A-Z0-9_]*$")


class CommandResult(Protocol):
    """What a finished command left; `jupyman.ssh.exec.command.CompletedCommand` is one."""

    @property
    def stdout(self) -> bytes:
        """What it printed, as raw bytes."""

    @property
    def stderr(self) -> bytes:
        """What it printed there, as raw bytes."""

    @property
    def status(self) -> int | None:
        """Its exit status; None: the link ended or the command was killed."""


class Shell(Protocol):
    """What scripts need of a host; `jupyman.ssh.link.Link` has it."""

    def run(
        self,
        script: str,
        *,
        timeout: float,
        limit: int = ANSWER_LIMIT,
        on_line: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> CommandResult:
        """Run `script` by ``/bin/sh -s`` on the host.

        Args:
            script: its text, sent on stdin.
            timeout: seconds after which the channel is closed; the script may still run on the host.
            limit: bytes of stdout and of stderr that are kept; the rest is read and dropped.
            on_line: called with each complete line of stdout as it comes (decoded, errors replaced, cut at 16 KiB).
            cancelled: when set, the channel is closed and `Interrupted` is raised.

        Raises:
            LinkLost: the connection ended.
            RemoteFailed: `timeout` passed.
            Interrupted: `cancelled` was set.
        """


@dataclass(frozen=True)
class CancellableShell:
    """A shell for read-only work: whatever it runs ends as soon as `cancelled` is set."""

    shell: Shell
    cancelled: threading.Event

    def run(
        self,
        script: str,
        *,
        timeout: float,
        limit: int = ANSWER_LIMIT,
        on_line: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> CommandResult:
        """Run a script: see `Shell.run`."""
        end = cancelled or self.cancelled
        return self.shell.run(script, timeout=timeout, limit=limit, on_line=on_line, cancelled=end)


@dataclass(frozen=True)
class Facts:
    """The answer of a script: names and values in their order; a name may come many times."""

    lines: list[tuple[str, str]] = field(default_factory=list)

    def one(self, name: str) -> str | None:
        """Return the first value of `name`, None when absent or empty."""
        return next((value or None for key, value in self.lines if key == name), None)

    def all(self, name: str) -> list[str]:
        """Return every value of `name` in order."""
        return [value for key, value in self.lines if key == name]

    def number(self, name: str) -> int | None:
        """Return the first value of `name` as an integer, None when it is not one."""
        value = self.one(name)
        return int(value) if value is not None and re.fullmatch(r"-?[0-9]{1,18}", value) else None

    def records(self, group: str, first: str) -> Iterator[Facts]:
        """Split the lines ``GROUP.KEY VALUE`` into records; a line with key `first` starts a new one.

        Args:
            group: the part before the dot.
            first: the key that every record starts with.

        Yields:
            Facts whose names are the parts after the dot.
        """
        current: list[tuple[str, str]] = []
        prefix = f"{group}."
        for name, value in self.lines:
            if not name.startswith(prefix):
                continue
            key = name[len(prefix) :]
            if key == first and current:
                yield Facts(current)
                current = []
            if key == first or current:
                current.append((key, value))
        if current:
            yield Facts(current)


class ScriptError(Exception):
    """The cause of an error that a script reported itself.

    Attributes:
        facts: all of the script's answer.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__("reported by the script")
        self.facts = facts


def answer_of(error: errors.JupymanError) -> Facts | None:
    """Return the script's answer when the script itself reported this error; None: it may not have ended in order."""
    return error.__cause__.facts if isinstance(error.__cause__, ScriptError) else None


def compose(name: str, arguments: Mapping[str, str], marker: str) -> str:
    """Build the text that goes to ``/bin/sh -s``.

    Args:
        name: the script in jupyman/remote, without ``.sh``.
        arguments: become the variables ``JM_<NAME>``; any text without NUL.
        marker: random; its lines begin and end the answer.

    Returns:
        The libraries that the script uses, the script, and the call of its `main`: one compound command, so that a
        truncated transfer runs nothing. Before it stands a line for zsh, which a login script may have started in the
        place of /bin/sh (``exec zsh`` in a .bashrc).

    Raises:
        UsageFault: a value holds a NUL byte.
    """
    lines = ['[ -z "${ZSH_VERSION-}" ] || emulate -R sh', "{"]
    for key, value in {**arguments, "MARK": marker}.items():
        if not _ARGUMENT.match(key):
            raise ValueError(key)
        if "\0" in value:
            raise errors.UsageFault(f"a NUL character in {key.lower()}", "leave it out")
        lines.append(f"JM_{key}={shlex.quote(value)}")
    lines += [
        *map(remote.script, ["lib/common", *remote.libraries(name), name]),
        "jm_begin",
        "main </dev/null",
        "jm_end $?",
        "exit 0",
        "}",
        "",
    ]
    return "\n".join(lines)


def parse(answer: bytes, marker: str) -> tuple[Facts, int | None]:
    """Read the answer between the markers.

    Args:
        answer: all of stdout; may hold banners, invalid UTF-8, control characters.
        marker: the one given to `compose`.

    Returns:
        The facts and the script's status; status None when the end marker is missing.
    """
    lines: list[tuple[str, str]] = []
    inside = False
    status: int | None = None
    begin, end = f"{marker} begin", f"{marker} end "
    for raw in answer.decode("utf-8", "replace").split("\n"):
        line = raw.rstrip("\r")
        # A banner without a final newline precedes the begin marker on the same line.
        if not inside:
            inside = line.endswith(begin)
            continue
        if line.startswith(end):
            tail = line[len(end) :]
            status = int(tail) if tail.isascii() and tail.isdigit() else None
            break
        key, _, value = line.partition(" ")
        if _NAME.match(key):
            lines.append((key, value))
    return Facts(lines), status


def failure(facts: Facts) -> errors.JupymanError | None:
    """Return the error of a script's ``error`` line; None when there is none."""
    line = facts.one("error")
    if line is None:
        return None
    code, _, text = line.partition(" ")
    cls = errors.by_code(code) or errors.RemoteFailed
    return cls(text or code, facts.one("hint") or "")


def run(
    shell: Shell,
    name: str,
    arguments: Mapping[str, str],
    *,
    timeout: float,
    on_fact: Callable[[str, str], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Facts:
    """Run a script on the host and return its facts.

    Args:
        shell: the link.
        name: the script.
        arguments: its variables, without the ``JM_``.
        timeout: seconds.
        on_fact: called with each fact as it comes.
        cancelled: ends the wait.

    Returns:
        Its answer.

    Raises:
        JupymanError: of the class whose code the script's ``error`` line has; see `answer_of`.
        RemoteFailed: the script failed or its answer was cut.
        LinkLost, Interrupted: as `Shell.run`.
    """
    marker = f"jm-{secrets.token_hex(16)}"
    seen = threading.Event()

    def on_line(line: str) -> None:
        if line.endswith(f"{marker} begin"):
            seen.set()
        elif seen.is_set() and on_fact is not None and not line.startswith(marker):
            key, _, value = line.rstrip("\r").partition(" ")
            if _NAME.match(key):
                on_fact(key, value)

    script = compose(name, arguments, marker)
    completed = shell.run(
        script,
        timeout=timeout,
        on_line=on_line if on_fact is not None else None,
        cancelled=cancelled,
    )
    facts, status = parse(completed.stdout, marker)
    failed = failure(facts)
    if failed is not None:
        raise failed from (ScriptError(facts) if status is not None else None)
    if status is None:
        printed = completed.stderr.decode("utf-8", "replace").splitlines()
        # Another shell quotes the line of ours that it cannot read: that is no explanation.
        complaint = [line for line in printed if _WORDS.search(line) and line.strip() not in script]
        last = f": {complaint[-1][:200]}" if complaint else ""
        hint = "try `ssh HOST /bin/sh -c 'echo ok'`; the account must be able to run commands"
        if not seen.is_set() and f"{marker} begin".encode() not in completed.stdout:
            hint += ", and its login scripts may start another shell on a terminal only"
        raise errors.RemoteFailed(f"the host did not finish the script {name}{last}", hint)
    if status != 0:
        complaint = completed.stderr.decode("utf-8", "replace").strip().splitlines()
        last = complaint[-1][:200] if complaint else f"status {status}"
        raise errors.RemoteFailed(f"the script {name} failed on the host: {last}")
    return facts
