"""`jupyman env create`: real environments by uv, by venv and pip, and by a conda whose engine is py-rattler."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Bed, Cli, User
from tests.bed.aftermath import refused, says
from tests.bed.interpreter import VERSION
from tests.integration.envs.installations import jobs, state

V = VERSION
SPECS = Path(".local/share/jupyter/kernels")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_uv_with_the_torch_of_this_driver(mine: Cli, user: User, with_uv: Path, fresh_bed: Bed) -> None:
    user.set_gpu("two-a100")  # driver 550.54.15
    words = ("--tool", "uv", "--torch", "--packages", "gadget", "--mirror", "lab")
    planned = mine("env", "create", "work", "server1", *words, "--dry-run", "--json").json
    assert planned["state"] == "planned"
    assert jobs(user) == []
    assert not (user.home / ".virtualenvs").exists()
    ran = mine("env", "create", "work", "server1", *words, "--json")
    assert ran.rc == 0, ran
    made = ran.json
    prefix = user.home / ".virtualenvs" / "work"
    python = f"{prefix}/bin/python"
    commands = [step["command"] for step in made["steps"]]
    assert commands == [step["command"] for step in planned["steps"]]
    # Each command is shown before it runs.
    shown = [line for line in ran.stderr.splitlines() if line.startswith("- $ ")]
    assert len(shown) == len(commands)
    assert commands[2][1:] == ["pip", "install", "--python", python, "torch==2.6.*", "--index-url", commands[2][-1]]
    assert commands[2][-1].endswith("/whl/cu124")
    assert [(step["key"], step["state"]) for step in made["steps"]] == [
        ("make", "done"),
        ("kernel-packages", "done"),
        ("torch", "done"),
        ("packages", "done"),
        ("proof", "done"),
        ("gpu", "warn"),  # there is none
        ("kernel", "done"),
    ]
    assert [problem["code"] for problem in made["problems"]] == ["env-step"]
    assert made["environment"]["torch"] == {"version": "2.6.0+cu124", "cuda": "12.4"}
    assert (made["environment"]["state"], made["environment"]["kind"]) == ("ready", "uv")
    assert made["kernel"]["executable"] == python
    assert json.loads((user.home / SPECS / "work" / "kernel.json").read_text())["env"]["VIRTUAL_ENV"] == str(prefix)
    # What it leaves: private files of ours, an environment with the account's own umask and without our mark.
    (job,) = jobs(user)
    assert mode(job) == 0o700
    assert all(mode(path) == 0o600 for path in job.iterdir())
    assert not (prefix / ".jupyman-incomplete").exists()
    assert mode(prefix / "pyvenv.cfg") == 0o644
    told = fresh_bed.ssh("bash", f"{python} -c 'import gadget, widgetry; print(gadget.x + widgetry.y)'")
    assert told.stdout == "3\n", told
    # Its name is taken now, and its log is there.
    ran = mine("env", "create", "work", "server1", "--tool", "uv")
    says(ran, 2)
    assert "already has an environment work" in ran.stderr
    log = mine("env", "logs", "work", "server1", "-n", "10000").stdout
    assert "==> [3/7] torch 2.6+cu124, for driver 550.54.15" in log
    assert f"$ {with_uv} pip install" in log


def test_venv_and_pip_from_requirements(mine: Cli, user: User, tmp_path: Path) -> None:
    # A user's pip that is told to install elsewhere, or not at all, is not meant for a new environment.
    user.put(".config/pip/pip.conf", "[global]\nrequire-virtualenv = true\n[install]\nuser = true\nno-compile = true\n")
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("gadget==1.0  # $(touch oops)\n")
    ran = mine("env", "create", "req", "server1", "--tool", "venv", "--mirror", "lab", "--from", str(wanted), "--json")
    if ran.rc == 21:
        pytest.skip("no Python of this machine has venv and pip for every account")
    assert ran.rc == 0, ran
    site = next((user.home / ".virtualenvs/req/lib").glob("python3*")) / "site-packages"
    assert (site / "gadget.py").exists()
    assert (site / "widgetry.py").exists()
    assert [step["key"] for step in ran.json["steps"]] == ["make", "kernel-packages", "requirements", "kernel"]


def test_conda_from_an_environment_file(mine: Cli, user: User, conda: Path, tmp_path: Path) -> None:
    wanted = tmp_path / "environment.yml"
    wanted.write_text(f"name: other\ndependencies:\n  - python={V}\n  - gizmo\n")
    ran = mine("env", "create", "course", "server1", "--from", str(wanted), "--json")
    assert ran.rc == 0, ran
    prefix = conda / "envs" / "course"
    assert (prefix / "lib" / "gizmo.txt").read_text() == "a gizmo\n"
    assert ran.json["environment"]["prefix"] == str(prefix)
    assert ran.json["environment"]["kind"] == "conda"
    assert ran.json["kernel"]["kernel"]["prefix"] == str(prefix)
    assert "env update -p" in ran.stderr
    assert user.home / SPECS / "course" in (user.home / SPECS).iterdir()


def test_an_unsolvable_request_leaves_an_environment_that_is_not_used(mine: Cli, user: User, conda: Path) -> None:
    words = ("env", "create", "paper", "server1", "--python", V)
    ran = mine(*words, "--packages", "nosuch>=9", "--json")
    assert ran.rc == 27, ran
    told = ran.json["error"]
    assert "Cannot solve the request because of: No candidates were found for nosuch >=9" in told["message"]
    assert (told["details"]["kind"], told["details"]["step"]) == ("unsolvable", "make")
    assert state(mine, "paper") == "incomplete"
    for other in (("up", "server1", "--env", "paper", "--no-browser"), ("kernel", "add", "paper", "server1")):
        ran = mine(*other)
        says(ran, 21)
        assert "paper is incomplete" in ran.stderr
        assert "jupyman env create paper" in ran.stderr
    # The name alone means the wish as it was; another wish begins anew, because nothing was finished.
    says(mine("env", "create", "paper", "server1"), 27)
    channel = (conda / "channel").read_text().strip()
    ran = mine(*words, "--channel", channel, "--mirror", "lab", "--packages", "pip:nosuch")
    says(ran, 27)
    assert "No matching distribution found for nosuch" in ran.stderr
    assert state(mine, "paper") == "incomplete"
    # What was finished is not made otherwise under the same name; the rest may be another.
    ran = mine(*words, "--packages", "gizmo")
    says(ran, 2)
    assert "paper was begun with other options" in ran.stderr
    ran = mine(*words, "--channel", channel, "--mirror", "lab", "--packages", "pip:gadget", "--json")
    assert ran.rc == 0, ran
    assert [step["state"] for step in ran.json["steps"]] == ["skip", "done", "done"]
    assert state(mine, "paper") == "ready"


def test_what_is_refused_before_anything_is_touched(mine: Cli, user: User, with_uv: Path) -> None:
    (user.home / ".virtualenvs").mkdir()
    (user.home / ".virtualenvs" / "linked").symlink_to("/tmp")
    # A kernel of that name would be in the way at the end.
    assert mine("kernel", "add", "pytorch", "server1", "--name", "taken").rc == 0
    for name, words, status, said in (
        ("$(id)", (), 2, "cannot be the name"),
        ("base", (), 2, "cannot be the name"),
        ("x", ("--tool", "mamba"), 21, "the host has no mamba"),
        ("x", ("--channel", "https://me:secret@h/x"), 2, "contains a password"),
        ("x", ("--mirror", "nosuch"), 2, "no mirror is called"),
        ("x", ("--tool", "uv", "--dir", "/usr/lib"), 27, "no permission to write in /usr/lib"),
        ("x", ("--tool", "uv", "--dir", "/nonexistent/at/all"), 27, "no permission to write in /"),
        ("linked", ("--tool", "uv"), 2, "already exists"),
        ("taken", ("--tool", "uv"), 2, "kernel taken already runs another environment"),
        ("lab", ("--tool", "uv"), 2, "already has an environment lab"),
    ):
        ran = mine("env", "create", name, "server1", *words)
        says(ran, status)
        assert said in ran.stderr
        assert "secret" not in ran.stderr
    assert jobs(user) == []
    assert [path.name for path in (user.home / ".virtualenvs").iterdir()] == ["linked"]


@pytest.fixture
def small(user: User) -> Iterator[Path]:
    """A folder of the user's on a file system of 20 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    folder = user.home / "small"
    folder.mkdir()
    options = f"size=20m,uid={user.uid},gid={user.gid},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_without_room_nothing_is_begun(mine: Cli, user: User, with_uv: Path, small: Path) -> None:
    ran = refused(
        mine, "env", "create", "x", "server1", "--tool", "uv", "--dir", "small", status=27, code="remote-failed"
    )
    assert f"are left in {small}, and about 200 MiB are needed" in ran.stderr
    assert "--dir" in ran.stderr.splitlines()[-1]
    assert list(small.iterdir()) == []
    # A quota is less than the disk has.
    user.program(
        "quota",
        "#!/bin/sh\necho 'Filesystem blocks quota limit grace files quota limit grace'\n"
        "echo '/dev/sda1 990000 1000000 1000000 0 1 0 0'\n",
    )
    ran = refused(mine, "env", "create", "x", "server1", "--tool", "uv", status=27, code="remote-failed")
    assert "are left of your quota" in ran.stderr
    assert jobs(user) == []
