"""Install missing packages by each environment's own tool, and only by the command that the user was shown."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jupyman import errors
from jupyman.host.kernels import specs
from jupyman.host.kernels.check import MissingPackage
from jupyman.host.shell import script
from jupyman.host.shell.script import Facts, Shell
from jupyman.model import Environment
from jupyman.tools.envs import activation
from jupyman.tools.host.text import clean

_KEPT = 20  # lines of an installer's output that an error shows


@dataclass(frozen=True)
class Plan:
    """The installation that one environment needs.

    Attributes:
        environment: that lacks the packages.
        packages: their requirements, valid for pip, conda and uv.
        problems: the indices in `Findings.problems` of the problems that it solves.
        command: its words; empty when the account cannot do it.
        refusal: in that case, what a person has to do.
    """

    environment: Environment
    packages: tuple[str, ...]
    problems: tuple[int, ...]
    command: tuple[str, ...]
    refusal: str = ""

    @property
    def text(self) -> str:
        """The command as it would be typed."""
        return shlex.join(self.command)


def plans(shell: Shell, missing: Sequence[MissingPackage], cancelled: threading.Event | None = None) -> list[Plan]:
    """Find the command for each environment that lacks something.

    Args:
        shell: the host.
        missing: the packages; those of one environment become one command.
        cancelled: ends it.

    Raises:
        LinkLost, RemoteFailed, Interrupted: as `script.run`.
    """
    by_prefix: dict[str, list[MissingPackage]] = {}
    for package in missing:
        by_prefix.setdefault(package.environment.prefix, []).append(package)
    found = []
    for same in by_prefix.values():
        environment = same[0].environment
        packages = tuple(dict.fromkeys(one.package for one in same))
        facts = _script(shell, environment, packages, (), specs.LOOK_TIMEOUT, None, cancelled)
        refusal = ""
        if (owner := facts.one("owner")) is not None:
            where = f"{environment.prefix}, which belongs to {clean(owner, 60)}"
            refusal = f"you cannot change {where}: ask its owner to install {' '.join(packages)} there"
        elif facts.one("tool") is not None:
            refusal = f"{environment.prefix} has no pip, conda or uv: install {' '.join(packages)} there yourself"
        places = tuple(one.problem for one in same)
        found.append(Plan(environment, packages, places, tuple(facts.all("word")), refusal))
    return found


def run(shell: Shell, plan: Plan, *, on_line: Callable[[str], None], cancelled: threading.Event | None = None) -> None:
    """Run a plan's command.

    Args:
        shell: the host.
        plan: the host runs its command, or nothing when the command would differ now.
        on_line: called with each line that the command prints.
        cancelled: ends the wait; the command may run on.

    Raises:
        RemoteFailed: it failed; details["log"] has its last lines.
        Interrupted: cancelled.
        LinkLost: as `script.run`.
    """
    try:
        timeout = specs.INSTALL_TIMEOUT
        facts = _script(shell, plan.environment, plan.packages, plan.command, timeout, on_line, cancelled)
    except errors.Interrupted as error:
        raise errors.Interrupted(error.message, "the installation may be incomplete: run it again") from error
    status = facts.one("status")
    if status != "0":
        lines = [clean(line, 300) for line in facts.all("line") if line.strip()][-_KEPT:]
        where = plan.environment.name or plan.environment.prefix
        raise errors.RemoteFailed(
            f"{' '.join(plan.packages)} could not be installed in {where} (status {status or 'unknown'})",
            "read the lines above; if the host reaches no registry, jupyman env mirror and env push help",
            log=lines,
        )


def _script(
    shell: Shell,
    environment: Environment,
    packages: Sequence[str],
    command: Sequence[str],
    timeout: float,
    on_line: Callable[[str], None] | None,
    cancelled: threading.Event | None,
) -> Facts:
    def on_fact(key: str, value: str) -> None:
        if key == "line" and on_line is not None:
            on_line(clean(value, 200))

    arguments = {
        "PYTHON": activation.python(environment),
        "PREFIX": environment.prefix,
        "KIND": environment.kind,
        "ROOT": environment.root or "",
        "PACKAGES": "\n".join(packages),
        "COMMAND": "\n".join(command),
    }
    return script.run(shell, "kernels/fix", arguments, timeout=timeout, on_fact=on_fact, cancelled=cancelled)
