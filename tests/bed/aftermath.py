"""What a command that fails or is interrupted must leave: two lines, an exit status, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import psutil

from tests.bed import Cli, Ran, User, wait_until

NOTHING: dict[str, list[object]] = {"sessions": [], "forwards": [], "servers": []}
# Files in a session's directory on the host that only a launch in progress or a running server has.
HALF_MADE = ("lock", "cancel", "endpoint", "token", "cookie_secret", "jupyter_config.py", "kernel_config.py")


def stuck(user: User, program: str, then: str = "exec sleep 30") -> Path:
    """Replace a program on the host by one that hangs; returns a file that gets a line for each start."""
    busy = user.home / "busy"
    user.program(program, f"#!/bin/sh\necho $$ >>{busy}\n{then}\n")
    return busy


def refused(cli: Cli, *words: str, status: int, code: str, timeout: float = 30.0) -> Ran:
    """Run a command that must fail, with and without ``--json``.

    Args:
        cli: the command line.
        words: its arguments.
        status: the exit status.
        code: the error's name.
        timeout: seconds for each of the two.

    Returns:
        The run without ``--json``.
    """
    said, told = cli(*words, timeout=timeout), cli(*words, "--json", timeout=timeout)
    says(said, status)
    tells(told, status, code)
    return said


def says(ran: Ran, status: int) -> None:
    """Assert that the last two lines of stderr are an error and its hint."""
    assert ran.rc == status, ran
    lines = ran.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines[-2:]] == ["error", "hint"], ran
    assert len([line for line in lines if line.startswith(("error:", "hint:"))]) == 2, ran
    assert ran.stdout == "", ran
    assert "Traceback" not in ran.stderr, ran


def tells(ran: Ran, status: int, code: str) -> None:
    """Assert that an error is one JSON object on stdout."""
    assert ran.rc == status, ran
    error = json.loads(ran.stdout)["error"]
    assert error["code"] == code, ran
    assert error["message"], ran
    assert error["hint"], ran
    assert "error:" not in ran.stderr, ran
    assert "Traceback" not in ran.stderr, ran


def nothing_left(cli: Cli, *users: User, timeout: float = 20.0) -> None:
    """Assert that nothing is left of a session: here, in the daemon, or on the host.

    Args:
        cli: its sessions, forwards and listeners.
        users: of the host.
        timeout: seconds for the clean-up after an interrupted command, which goes on after the command's end.
    """
    wait_until(lambda: cli("ps", "--json").json == NOTHING, timeout, "the end of the session")
    wait_until(lambda: not leftovers(users), timeout, f"the end of {leftovers(users)}")
    assert listeners(cli) == 1  # the daemon's own
    no_traceback(cli)


def leftovers(users: Iterable[User]) -> list[str]:
    """Return what is left on the host: processes, locks, secrets, directories of sockets."""
    found: list[str] = []
    for user in users:
        found += programs(user).values()
        for directory in (user.home / ".local/state/jupyman").glob("*/*"):
            found += [str(directory / name) for name in HALF_MADE if os.path.lexists(directory / name)]
            found += [str(left) for left in directory.glob("*.new.*")]
        # An account of a person may have its own servers.
        for folder in (Path("/tmp"), Path("/var/tmp")) if user.made else ():
            for left in folder.glob("jm-*"):
                with contextlib.suppress(FileNotFoundError):
                    if left.lstat().st_uid == user.uid:
                        found.append(str(left))
    return found


def programs(user: User) -> dict[int, str]:
    """Return what the user runs, connections apart: command lines by pid."""
    found = {}
    for process in user.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if not process.name().startswith("sshd"):
                found[process.pid] = " ".join(process.cmdline()) or process.name()
    return found


def servers(user: User) -> list[psutil.Process]:
    """Return the user's Jupyter servers."""
    found = []
    for process in user.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(word.endswith("/jupyter_config.py") for word in process.cmdline()):
                found.append(process)
    return found


def listeners(cli: Cli) -> int:
    """Count the sockets that the daemon listens on."""
    return sum(
        one.status == psutil.CONN_LISTEN for process in cli.processes() for one in process.net_connections("inet")
    )


def no_traceback(cli: Cli) -> None:
    """Assert that no log of the daemon has a traceback."""
    for log in cli.home.rglob("*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()
