"""Installations on a host: started so that they run on without a login, followed, listed."""

from __future__ import annotations

import hashlib
import re
import secrets
import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from jupyman import errors
from jupyman.host.shell import script
from jupyman.host.shell.script import Facts, Shell
from jupyman.model import Noun
from jupyman.tools.host.text import clean
from jupyman.tools.install.plan import PlanStep

LOOK_TIMEOUT = script.LOOK_TIMEOUT
START_TIMEOUT = 60.0
# Seconds: a week; a longer installation is followed again.
FOLLOW_TIMEOUT = 7 * 24 * 3600.0
State = Literal["running", "done", "failed", "interrupted", "elsewhere"]
_STATES: dict[str, State] = {
    "running": "running",
    "done": "done",
    "failed": "failed",
    "interrupted": "interrupted",
    "elsewhere": "elsewhere",
}


class Job(Noun, frozen=True, kw_only=True):
    """An installation as recorded in its files; `new`: it makes an environment, else it changes one."""

    name: str
    state: State
    node: str | None
    prefix: str
    tool: str | None
    new: bool
    text: str | None  # the present step, or the last one


class KernelStep(Noun, frozen=True, kw_only=True):
    """The last step of an installation: the variables of the script that adds the kernel."""

    arguments: dict[str, str]
    shown: list[str]


class JobSpec(Noun, frozen=True, kw_only=True):
    """An installation to start."""

    name: str
    prefix: str
    tool: str
    new: bool
    conda: bool
    steps: list[PlanStep]
    kernel: KernelStep | None = None
    wish: str = ""  # JSON
    file: str = ""
    text: str = ""
    scope: bool = False


@dataclass(frozen=True)
class Ended:
    """How an installation ended.

    Attributes:
        state: done, failed or interrupted; running when it was not followed to its end.
        key: of the step at which it failed.
        code: that step's exit status.
        answer: of the script that adds the kernel.
        log: its last lines.
    """

    state: State
    key: str | None = None
    text: str | None = None
    code: int | None = None
    prefix: str | None = None
    answer: Facts = field(default_factory=Facts)
    log: list[str] = field(default_factory=list)


def identity(step: PlanStep) -> str:
    """Return the id of a step, made from its command: a step that an earlier run finished is not repeated."""
    digest = hashlib.sha256("\0".join(step.argv).encode()).hexdigest()[:16]
    return f"{'make' if step.key == 'make' else 'step'}-{digest}"


def start(shell: Shell, spec: JobSpec) -> Literal["begun", "resumed", "existing"]:
    """Start an installation, which runs on when the login ends.

    Args:
        shell: the host.
        spec: what to do.

    Returns:
        "existing" when one of that name runs already: nothing was started.

    Raises:
        UsageFault: the prefix exists already, or was begun with another first step.
        NotOurs, RemoteFailed: as the script reports; nothing is left.
    """
    steps = [
        shlex.join(["jm_do", identity(one), one.key, "1" if one.soft else "0", one.text, one.shown, *one.argv])
        for one in spec.steps
    ]
    added = ""
    if spec.kernel is not None:
        marker = f"jm-{secrets.token_hex(16)}"
        added = script.compose("kernels/add", spec.kernel.arguments, marker)
        text = f"kernel {spec.kernel.arguments['NAME']}"
        steps.append(shlex.join(["jm_kernel", "kernel", text, shlex.join(spec.kernel.shown)]))
    run = script.compose(
        "jobs/run",
        {
            "NAME": spec.name,
            "PREFIX": spec.prefix,
            "TOOL": spec.tool,
            "NEW": "1" if spec.new else "0",
            "COUNT": str(len(steps)),
            "STEPS": "\n".join(steps),
        },
        f"jm-{secrets.token_hex(16)}",
    )
    make = next((identity(one) for one in spec.steps if one.key == "make"), "")
    facts = script.run(
        shell,
        "jobs/start",
        {
            "NAME": spec.name,
            "PREFIX": spec.prefix,
            "NEW": "1" if spec.new else "0",
            "CONDA": "1" if spec.conda else "0",
            "MAKE": make,
            "RUN": run,
            "KERNEL": added,
            "WISH": spec.wish,
            "FILE": spec.file,
            "TEXT": spec.text,
            "SCOPE": "1" if spec.scope else "0",
        },
        timeout=START_TIMEOUT,
    )
    if facts.one("existing") is not None:
        return "existing"
    if facts.one("begun") is None:
        raise errors.RemoteFailed("the host did not report that the installation began")
    return "resumed" if facts.one("resumed") is not None else "begun"


def follow(
    shell: Shell,
    name: str,
    *,
    lines: int = 0,
    wait: bool = True,
    on_begin: Callable[[str, str], None] | None = None,
    on_end: Callable[[str, str, float], None] | None = None,
    on_last: Callable[[str], None] | None = None,
    on_line: Callable[[str], None] | None = None,
    cancelled: threading.Event | None = None,
) -> Ended:
    """Follow an installation.

    Args:
        shell: the host.
        name: of the installation.
        lines: of its log to begin with.
        wait: until it ends; else only its present state is read.
        on_begin: called with each step's key and text.
        on_end: called with each step's key, its state (done, skip, warn, failed) and its seconds.
        on_last: called with the newest line of the log now and then; without it each line goes to `on_line`.
        on_line: called with each line of the log.
        cancelled: ends the following, not the installation.

    Returns:
        How it ended; details only with `on_last`.

    Raises:
        UsageFault: no installation has that name.
        LinkLost, Interrupted: as `script.run`; the installation runs on.
    """

    def on_fact(key: str, value: str) -> None:
        if key == "event":
            word, _, rest = value.partition(" ")
            if word == "begin" and on_begin is not None:
                begun, _, text = rest.partition(" ")
                on_begin(begun, clean(text, 400))
            found = re.fullmatch(r"(.+) (done|skip|warn|failed) ([0-9]{1,9})", rest)
            if word == "end" and found is not None and on_end is not None:
                on_end(found[1], found[2], float(found[3]))
        elif key == "last" and on_last is not None:
            on_last(clean(value))
        elif key == "line" and on_line is not None:
            on_line(value.rsplit("\r", 1)[-1])

    facts = script.run(
        shell,
        "jobs/follow",
        {
            "NAME": name,
            "LINES": str(lines),
            "FOLLOW": "1" if wait else "0",
            "BRIEF": "1" if on_last is not None else "0",
        },
        timeout=FOLLOW_TIMEOUT if wait else LOOK_TIMEOUT,
        on_fact=on_fact,
        cancelled=cancelled,
    )
    return Ended(
        state=_STATES.get(facts.one("state") or "", "interrupted"),
        key=facts.one("key"),
        text=clean(facts.one("text") or "") or None,
        code=facts.number("code"),
        prefix=facts.one("prefix"),
        answer=_answer(facts.all("answer")),
        log=[clean(line.rsplit("\r", 1)[-1], 400) for line in facts.all("log")],
    )


def find(shell: Shell) -> list[Job]:
    """List the installations of the account, including those of other machines with the same home."""
    facts = script.run(shell, "jobs/list", {}, timeout=LOOK_TIMEOUT)
    found = []
    for record in facts.records("job", "name"):
        state, prefix = _STATES.get(record.one("state") or ""), record.one("prefix")
        if state is None or prefix is None:
            continue
        found.append(
            Job(
                name=clean(record.one("name") or "", 80),
                state=state,
                node=record.one("node"),
                prefix=prefix,
                tool=record.one("tool"),
                new=record.one("new") == "1",
                text=clean(record.one("text") or "") or None,
            )
        )
    return found


def _answer(lines: Sequence[str]) -> Facts:
    """Read the answer of the script that adds the kernel; the log does not record its marker, so it is found here."""
    marker = next((line.removesuffix(" begin") for line in lines if re.fullmatch(r"jm-[0-9a-f]{32} begin", line)), None)
    if marker is None:
        return Facts()
    return script.parse("\n".join(lines).encode("utf-8", "surrogateescape"), marker)[0]


def decode_wish(text: str | None, shape: type[msgspec.Struct]) -> msgspec.Struct | None:
    """Decode the request of an earlier run, which is kept on the host; None when it cannot be read."""
    try:
        return msgspec.json.decode(text or "", type=shape)
    except (msgspec.DecodeError, UnicodeError):
        return None
