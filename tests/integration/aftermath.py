"""What a command must leave behind when it fails or is interrupted: two lines, an exit status, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
from collections.abc import Iterable
from pathlib import Path

import psutil

from tests.bed import Cli, Ran, User, wait_until

NOTHING: dict[str, list[object]] = {"sessions": [], "forwards": [], "servers": []}
# Of a session's directory on the host: what only a launch under way or a running server has.
HALF_MADE = ("lock", "cancel", "endpoint", "token", "cookie_secret", "jupyter_config.py", "kernel_config.py")


def free_port() -> int:
    """Return a port that is free here, and so on the bed's host.

    It lies below those that the kernel gives to outgoing connections: one of these could take it meanwhile.
    """
    while True:
        port = random.randrange(15000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def stuck(user: User, program: str, then: str = "exec sleep 30") -> Path:
    """Let a program of the host tell that it runs, and hang; returns a file that gets a line for each time."""
    busy = user.home / "busy"
    user.program(program, f"#!/bin/sh\necho $$ >>{busy}\n{then}\n")
    return busy


def refused(cli: Cli, *words: str, status: int, code: str, timeout: float = 30.0) -> Ran:
    """Run a command that must fail, for people and for programs.

    Args:
        cli: the command line.
        words: its arguments.
        status: the exit status.
        code: the error's name.
        timeout: seconds for each of the two.

    Returns:
        What it left without ``--json``.
    """
    said, told = cli(*words, timeout=timeout), cli(*words, "--json", timeout=timeout)
    says(said, status)
    tells(told, status, code)
    return said


def says(ran: Ran, status: int) -> None:
    """Assert that an error was said in two lines, the last ones."""
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
    """Assert that no trace of a session is left: here, in the daemon, or on the host.

    Args:
        cli: its sessions, forwards and listeners.
        users: of the host.
        timeout: seconds for the undoing of an interrupted command, which ends before it.
    """
    wait_until(lambda: cli("ps", "--json").json == NOTHING, timeout, "the end of the session")
    wait_until(lambda: not leftovers(users), timeout, f"the end of {leftovers(users)}")
    assert listeners(cli) == 1  # the daemon's own
    no_traceback(cli)


def leftovers(users: Iterable[User]) -> list[str]:
    """Return what is half-made on the host: processes, locks, secrets, directories of sockets."""
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
    """Return what the user runs beside its connections: command lines by pid."""
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
    """Assert that the daemon saw no bug."""
    for log in cli.home.rglob("*.log"):
        assert "Traceback" not in log.read_text(), log.read_text()
