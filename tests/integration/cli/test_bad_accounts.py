"""Accounts in which Jupyter cannot start, and accounts with an unusual shell, by the real command line."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bed import Cli, User
from tests.bed.aftermath import leftovers, nothing_left, refused, says, servers
from tests.bed.ports import free_port

BROKEN = """\
import sys
print("the first word", flush=True)
print("reading the settings, token=abc123", file=sys.stderr)
print("the last word", file=sys.stderr)
sys.exit(3)
"""
HANGING = """\
import subprocess, sys, time
print("still looking for the file system", flush=True)
child = subprocess.Popen(["sleep", "1000"])
time.sleep(1000)
"""


def state(user: User) -> list[str]:
    """What the host keeps of sessions: files below the node's folder."""
    node = next((user.home / ".local/state/jupyman").glob("*"))
    return sorted(str(path.relative_to(node)) for path in node.rglob("*"))


# --- environments -------------------------------------------------------------------------------------------------


def test_no_jupyter_anywhere(cli: Cli, user: User) -> None:
    user.conda.unlink()
    (user.home / ".conda/environments.txt").unlink()
    ran = refused(cli, "up", "server1", status=20, code="jupyter-missing")
    assert "pip install" in ran.stderr
    assert not (user.home / ".local").exists()
    nothing_left(cli, user)


def test_no_jupyter_of_that_kind(cli: Cli, user: User) -> None:
    refused(cli, "up", "server1", "--app", "notebook", status=20, code="jupyter-missing")
    nothing_left(cli, user)


def test_an_environment_that_does_not_exist(cli: Cli, user: User) -> None:
    for words in (["up", "server1", "--env", "pytorhc"], ["check", "server1", "--env", "pytorhc"]):
        assert "did you mean pytorch?" in refused(cli, *words, status=21, code="env-missing").stderr
    said = cli("kernel", "add", "pytorhc", "server1")
    says(said, 21)
    assert "did you mean pytorch?" in said.stderr
    assert cli("up", "server1", "--env", "pytorhc", "--json").json["error"]["details"]["near"] == ["pytorch"]
    refused(cli, "up", "server1", "--env", "~/nowhere", status=21, code="env-missing")
    assert not (user.home / ".local").exists()
    nothing_left(cli, user)


# --- a Jupyter that does not come up ------------------------------------------------------------------------------


def test_a_jupyter_that_exits_at_once(cli: Cli, user: User) -> None:
    user.put("work/env/bin/jupyter-lab", BROKEN, 0o755)
    ran = refused(cli, "up", "server1", "--env", "~/work/env", status=23, code="server-exited")
    assert "status 3" in ran.stderr
    assert "  the first word\n" in ran.stderr
    assert "  the last word\nerror: " in ran.stderr
    assert "abc123" not in ran.stderr
    told = cli("up", "server1", "--env", "~/work/env", "--json").json["error"]["details"]["log"]
    assert told[-1] == "the last word"
    assert state(user) == ["server1", "server1/log", "server1/log.old"]  # worth reading; nothing else is left
    nothing_left(cli, user)


def test_settings_of_the_user_that_end_jupyter(cli: Cli, user: User) -> None:
    user.put(".jupyter/jupyter_server_config.py", "print('my own mistake')\nraise SystemExit(7)\n")
    ran = cli("up", "server1", "--port", str(free_port()))
    says(ran, 23)
    assert "  my own mistake\n" in ran.stderr
    nothing_left(cli, user)


def test_a_jupyter_that_never_answers(cli: Cli, user: User) -> None:
    user.put("work/env/bin/jupyter-lab", HANGING, 0o755)
    ran = cli("up", "server1", "--env", "~/work/env", "--timeout", "1.5")
    says(ran, 24)
    assert "  still looking for the file system\nerror: " in ran.stderr
    assert "within 2 s" in ran.stderr
    assert leftovers([user]) == []  # stopped before the command ends, with what it had started
    assert state(user) == ["server1", "server1/log"]
    nothing_left(cli, user)


# --- no room, no permission ---------------------------------------------------------------------------------------


def test_a_home_that_cannot_be_written(cli: Cli, user: User) -> None:
    user.home.chmod(0o555)
    try:
        ran = refused(cli, "up", "server1", status=27, code="remote-failed")
        assert "home-read-only" in [one["code"] for one in cli("check", "server1", "--json").json["problems"]]
        refused(cli, "kernel", "add", "pytorch", "server1", status=27, code="remote-failed")
    finally:
        user.home.chmod(0o755)
    assert "Permission denied" in ran.stderr
    assert not (user.home / ".local").exists()
    nothing_left(cli, user)


@contextlib.contextmanager
def full_disk(user: User, room: int) -> Iterator[Path]:
    """Mount a file system over the user's folder of states, with so many kilobytes free; yields the folder."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = user.put(".local/state/x", "").parent
    (folder / "x").unlink()
    size = f"size={room}k,uid={user.uid},gid={user.gid},mode=700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", folder], check=False, capture_output=True)
    if done.returncode != 0:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


FILL = """\
import sys
with open(sys.argv[1], "wb", 0) as file:
    while True:
        file.write(bytes(1024))
"""


def test_a_full_disk(cli: Cli, user: User) -> None:
    with full_disk(user, 64) as folder:
        assert "No space" in user.run(str(user.conda / "bin/python"), "-c", FILL, f"{folder}/fill").stderr
        ran = refused(cli, "up", "server1", status=27, code="remote-failed")
        assert "No space left on device" in ran.stderr
        assert "make room" in ran.stderr
        nothing_left(cli, user)
        assert [path.name for path in folder.rglob("*") if path.is_file()] == ["fill"]
        (folder / "fill").unlink()
        up = cli("up", "server1", "--json", "--app", "server", "--port", str(free_port()))
        assert up.rc == 0, up
        assert cli("kill", "server1").rc == 0


def test_a_disk_that_fills_up_while_jupyter_starts(cli: Cli, user: User) -> None:
    with full_disk(user, 64) as folder:
        settings = (
            f"import sys\nsys.argv = ['', '{folder}/fill']\ntry:\n    exec({FILL!r})\nexcept OSError:\n    pass\n"
        )
        user.put(".jupyter/jupyter_server_config.py", settings)
        ran = cli("up", "server1", "--port", str(free_port()))
        says(ran, 27)
        assert "No space left on device" in ran.stderr
        assert servers(user) == []  # it must not run on without a record
        nothing_left(cli, user)
        assert {path.name for path in folder.rglob("*") if path.is_file()} <= {"fill", "log"}


# --- login shells -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dash", "tcsh", "fish", "zsh", "banner"])
def test_every_login_shell(cli: Cli, users: Callable[[str], User], kind: str) -> None:
    user, host = users(kind), f"server-{kind}"
    up = cli("up", host, "--json", "--app", "server", "--port", str(free_port()))
    assert up.rc == 0, up
    assert up.json["state"] == "running"
    assert "NOTICE" not in up.stdout + up.stderr
    check = cli("check", host, "--json")
    assert check.rc == 0, check
    assert check.json["shell"] == str(user.shell)
    assert {env["name"] for env in check.json["environments"]} >= {"base", "lab", "pytorch", "tf", "env"}
    assert [server["session"] for server in check.json["jupyter"]] == [host]
    added = cli("kernel", "add", "pytorch", host, "--json")
    assert added.rc == 0, added
    assert added.json["kernel"]["name"] == "pytorch"
    assert cli("kill", host, "--json").json["killed"][0]["pid"] == up.json["server"]["pid"]
    assert servers(user) == []
    nothing_left(cli, user)
