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
_NAME = re.compile(r"^[a-z][a-z0-9_.-]*$")
_SAYS = re.compile(r"[A-Za-z]")  # not the ^ below a mistake
_ARGUMENT = re.compile(r"^[A-Z][A-Z0-9_]*$")


class CommandResult(Protocol):
    """What a finished command left: raw bytes, and its exit status (None: the link ended or it was killed)."""

    @property
    def stdout(self) -> bytes:
        """What it printed."""

    @property
    def stderr(self) -> bytes:
        """What it complained."""

    @property
    def status(self) -> int | None:
        """Its exit status."""


class Shell(Protocol):
    """What the core needs of a link: `jupyman.ssh.link.Link` has it, and so does a fake for tests."""

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
            timeout: seconds until it is given up (the channel is closed; the script may still run on the host).
            limit: bytes of stdout and of stderr that are kept; what comes after is read and dropped.
            on_line: called with each complete line of stdout as it comes (decoded, errors replaced, cut at 16 KiB).
            cancelled: when set, the channel is closed and `Interrupted` is raised.

        Raises:
            LinkLost: the connection ended.
            RemoteFailed: `timeout` passed.
            Interrupted: `cancelled` was set.
        """


@dataclass(frozen=True)
class CancellableShell:
    """A shell to look around with: whatever it runs is given up as soon as `cancelled` is set."""

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
        """Run it: see `Shell.run`."""
        end = cancelled or self.cancelled
        return self.shell.run(script, timeout=timeout, limit=limit, on_line=on_line, cancelled=end)


@dataclass(frozen=True)
class Facts:
    """The answer of a script: names and values in their order; a name may come many times."""

    lines: list[tuple[str, str]] = field(default_factory=list)

    def one(self, name: str) -> str | None:
        """Return the first value of `name`, None where absent or empty."""
        return next((value or None for key, value in self.lines if key == name), None)

    def all(self, name: str) -> list[str]:
        """Return every value of `name` in order."""
        return [value for key, value in self.lines if key == name]

    def number(self, name: str) -> int | None:
        """Return the first value of `name` as an integer, None where it is none."""
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


def compose(name: str, arguments: Mapping[str, str], marker: str) -> str:
    """Build the text that goes to ``/bin/sh -s``.

    Args:
        name: the script in jupyman/remote, without ``.sh``.
        arguments: become the variables ``JM_<NAME>``; any text without NUL.
        marker: random, fences the answer.

    Returns:
        One compound command, so a cut-off transfer runs nothing; before it a line for the zsh that a login script may
        have put in the place of /bin/sh (``exec zsh`` in a .bashrc).

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
        remote.script("lib/common"),
        remote.script(name),
        "jm_begin",
        "main </dev/null",
        "jm_end $?",
        "exit 0",
        "}",
        "",
    ]
    return "\n".join(lines)


def parse(answer: bytes, marker: str) -> tuple[Facts, int | None]:
    """Read what stands between the markers.

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
        # A banner without a newline at its end stands before the begin marker on the same line.
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
    """Return the error that a script named in its ``error`` line; None where there is none."""
    line = facts.one("error")
    if line is None:
        return None
    code, _, text = line.partition(" ")
    cls = errors.by_code(code) or errors.RemoteFailed
    return cls(text or code, facts.one("hint") or "", facts=[list(line) for line in facts.lines])


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
        on_fact: called with each fact as it comes (progress).
        cancelled: ends the wait.

    Returns:
        What it said.

    Raises:
        JupymanError: the class whose code the script named in its ``error`` line.
        RemoteFailed: the script broke or its answer was cut.
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
        raise failed
    if status is None:
        said = completed.stderr.decode("utf-8", "replace").splitlines()
        # Not the line of our own that another shell quotes.
        complaint = [line for line in said if _SAYS.search(line) and line.strip() not in script]
        last = f": {complaint[-1][:200]}" if complaint else ""
        hint = "try `ssh HOST /bin/sh -c 'echo ok'`; the account must be able to run commands"
        if not seen.is_set() and f"{marker} begin".encode() not in completed.stdout:
            hint += ", and its login scripts may start another shell on a terminal only"
        raise errors.RemoteFailed(f"the host did not finish our {name} script{last}", hint)
    if status != 0:
        complaint = completed.stderr.decode("utf-8", "replace").strip().splitlines()
        last = complaint[-1][:200] if complaint else f"status {status}"
        raise errors.RemoteFailed(f"our {name} script failed on the host: {last}")
    return facts
