"""An installation goes on without the link and without the daemon, and can be resumed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.bed import Cli, User, wait_until
from tests.bed.aftermath import no_traceback, programs, says
from tests.bed.interpreter import VERSION
from tests.bed.terminal import Terminal
from tests.integration.envs.installations import jobs, state

CREATE = ("env", "create", "long", "server1", "--python", VERSION)
Go = Callable[[], None]


def under_way(user: User) -> Path:
    """Wait until the installer is in the middle of its work; returns the installation's directory."""

    def solving() -> bool:
        return any("Solving environment" in (job / "log").read_text() for job in jobs(user) if (job / "log").exists())

    wait_until(solving, what="the middle of the installation")
    return jobs(user)[0]


def cut(user: User) -> None:
    """End the user's SSH sessions, as a link that dies does."""
    for process in user.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("sshd"):
                process.kill()


def test_the_link_is_lost_in_the_middle(mine: Cli, user: User, conda: Path, busy: Go) -> None:
    with mine.start(*CREATE) as process:
        under_way(user)
        cut(user)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 13, err
    assert "the installation of long keeps running" in err
    assert "jupyman env logs long --host server1 -f" in err.splitlines()[-1]
    assert state(mine, "long") == "installing"
    # A second one of that name joins it instead of starting another.
    with (
        mine.start(*CREATE, "--json") as joined,
        mine.start("env", "logs", "long", "server1", "-f", "-n", "1") as shown,
    ):
        assert shown.stdout is not None
        assert "Solving environment" in shown.stdout.readline()
        busy()
        out, _ = joined.communicate(timeout=60)
        rest, err = shown.communicate(timeout=60)
    assert joined.returncode == 0
    assert json.loads(out)["environment"]["state"] == "ready"
    assert shown.returncode == 0, err
    assert "starting a kernel to see that it works" in rest
    assert len(list((conda / "envs").iterdir())) == 1
    assert state(mine, "long") == "ready"
    no_traceback(mine)


def test_without_waiting_and_without_the_daemon(mine: Cli, user: User, busy: Go) -> None:
    ran = mine(*CREATE, "--detach", "--json")
    assert ran.rc == 0, ran
    assert (ran.json["state"], ran.json["environment"]) == ("installing", None)
    assert "jupyman env logs long --host server1 -f" in ran.stderr
    under_way(user)
    assert mine("daemon", "stop").rc == 0
    cut(user)
    ran = mine("up", "server1", "--env", "long", "--no-browser")
    says(ran, 21)
    assert "is incomplete" in ran.stderr
    busy()
    ran = mine("env", "logs", "long", "server1", "-f", "-n", "0")
    assert ran.rc == 0, ran
    assert state(mine, "long") == "ready"


def test_ctrl_c_takes_back_what_was_begun(mine: Cli, user: User, conda: Path, busy: Go) -> None:
    with Terminal(mine, *CREATE) as terminal:
        terminal.expect("Solving environment")
        (job,) = jobs(user)
        terminal.interrupt()
        ran = terminal.end()
    assert (ran.rc, ran.stdout) == (130, "")
    assert "what this command started is removed" in ran.stderr.splitlines()[-1]
    wait_until(lambda: not job.exists() and not list((conda / "envs").iterdir()), what="the end of what was begun")
    wait_until(lambda: programs(user) == {}, what="the end of all that ran")
    # Watching alone stops nothing.
    assert mine(*CREATE, "-d").rc == 0
    with Terminal(mine, "env", "logs", "long", "server1", "-f", whole=True) as terminal:
        terminal.expect("Solving environment")
        terminal.interrupt()
        assert terminal.end().rc == 130
    with Terminal(mine, *CREATE) as terminal:
        terminal.expect("Solving environment")
        terminal.interrupt()
        ran = terminal.end()
    assert ran.rc == 130
    assert "an installation that was already running goes on" in ran.stderr
    assert state(mine, "long") == "installing"
    busy()
    assert mine("env", "logs", "long", "server1", "-f").rc == 0


def test_a_killed_one_goes_on_when_it_is_named_again(mine: Cli, user: User, conda: Path, busy: Go) -> None:
    with mine.start(*CREATE, "--packages", "gizmo") as process:
        job = under_way(user)
        pid = int(
            next(line.split()[1] for line in (job / "status").read_text().splitlines() if line.startswith("pid "))
        )
        for child in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            os.kill(child.pid, signal.SIGKILL)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 27
    assert "was stopped from outside" in err
    assert state(mine, "long") == "incomplete"
    assert (conda / "envs" / "long" / ".jupyman-incomplete").exists()
    busy()
    ran = mine("env", "create", "long", "server1", "--json")
    assert ran.rc == 0, ran
    assert (conda / "envs" / "long" / "lib" / "gizmo.txt").exists()
    assert state(mine, "long") == "ready"


def test_of_two_at_once_one_is_made(mine: Cli, user: User, conda: Path, busy: Go) -> None:
    results: list[int] = []

    def create() -> None:
        results.append(mine(*CREATE).rc)

    threads = [threading.Thread(target=create) for _ in range(2)]
    for thread in threads:
        thread.start()
    under_way(user)
    busy()
    for thread in threads:
        thread.join()
    assert results == [0, 0]
    assert [path.name for path in (conda / "envs").iterdir()] == ["long"]


def test_a_chatty_installer(mine: Cli, user: User, conda: Path) -> None:
    (conda / "mode").write_text("chatty")
    ran = mine(*CREATE)
    assert ran.rc == 0, ran
    assert len(ran.stderr.splitlines()) < 20
    ran = mine("env", "logs", "long", "server1", "-n", "3")
    assert len(ran.stdout.splitlines()) == 3
    assert (jobs(user)[0] / "log").stat().st_size > 10_000_000


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "CondaHTTPError: HTTP 000 CONNECTION FAILED for url <https://x/repodata.json>\nElapsed: -",
            "jupyman env mirror ls",
        ),
        ("\x1b[31m[Errno 28] No space left on device: '/x'\x1b[0m", "make room"),
        ("ChecksumMismatchError: Conda detected a mismatch", "another mirror"),
    ],
    ids=["unreachable", "full", "checksum"],
)
def test_an_installer_that_fails(mine: Cli, conda: Path, said: str, words: str) -> None:
    (conda / "mode").write_text(f"fail\n{said}")
    ran = mine(*CREATE)
    says(ran, 27)
    assert words in ran.stderr.splitlines()[-1]
    assert "\x1b" not in ran.stderr
