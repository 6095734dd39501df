"""`jupyman kernel`: an environment becomes a kernel that runs in it, or nothing changes."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from typing import Any

from tests.bed import Bed, Cli, Ran, User
from tests.bed.aftermath import says
from tests.bed.interpreter import VERSION
from tests.bed.kernels import SITE, SPECS, own, wheel
from tests.bed.packages import closure, install
from tests.bed.terminal import Terminal


def spec(user: User, name: str) -> dict[str, Any]:
    """Read a kernel.json as the user's Jupyter does."""
    found: dict[str, Any] = json.loads((user.home / SPECS / name / "kernel.json").read_text())
    return found


def added(ran: Ran) -> dict[str, Any]:
    assert ran.rc == 0, ran
    found: dict[str, Any] = ran.json
    return found


def cell(bed: Bed, kernel: str, code: str) -> list[str]:
    """Run a cell by the lab environment's jupyter_client on the host, as JupyterLab would; return the printed lines."""
    program = (
        "from jupyter_client.manager import run_kernel\n"
        f"with run_kernel(kernel_name={kernel!r}) as kernel:\n"
        f"    kernel.execute_interactive({code!r})\n"
    )
    ran = bed.ssh("bash", "~/miniconda3/envs/lab/bin/python -", input=program)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_the_kernel_runs_in_its_activated_environment(cli: Cli, user: User, fresh_bed: Bed) -> None:
    ran = cli("kernel", "add", "pytorch", "server1", "--json")
    prefix = f"{user.conda}/envs/pytorch"
    told = added(ran)
    assert told["kernel"]["name"] == "pytorch"
    assert told["kernel"]["display_name"] == "Python (pytorch)"
    assert told["kernel"]["prefix"] == prefix
    assert told["kernel"]["ok"] is True
    assert told["kernel"]["directory"] == str(user.home / SPECS / "pytorch")
    assert told["kernel"]["argv"] == spec(user, "pytorch")["argv"]
    assert (told["executable"], told["refreshed"], told["problems"]) == (f"{prefix}/bin/python", False, [])
    assert told["python"].startswith(f"{VERSION}.")
    assert spec(user, "pytorch")["env"]["CONDA_PREFIX"] == prefix
    code = "import os, shutil, sys; from os import environ as e; import torch\n"
    code += "print(sys.executable, e['CONDA_PREFIX'], e['CONDA_DEFAULT_ENV'], e['PATH'].split(':')[0], sep='\\n')\n"
    code += "print(e['JM_ACTIVATED'], torch.__version__, shutil.which('python'), sep='\\n')"
    assert cell(fresh_bed, "pytorch", code) == [
        f"{prefix}/bin/python",
        prefix,
        "pytorch",
        f"{prefix}/bin",
        "pytorch",
        "2.5.1+cu124",
        f"{prefix}/bin/python",
    ]


def test_a_kernel_can_be_called_anything(cli: Cli, user: User) -> None:
    display = "'one' \"two\" $(id) `id` \\ %s 深度学习 (学生)"
    # By its prefix, as the user writes it, and under a name of the user's choice.
    words = ("--name", "Mine_2.x", "--display-name", display, "--host", "server1")
    ran = cli("kernel", "add", "~/miniconda3/envs/pytorch", *words)
    assert ran.rc == 0, ran
    assert ran.stdout.startswith(f"added kernel mine_2.x: {user.conda}/envs/pytorch/bin/python (Python {VERSION}.")
    assert spec(user, "mine_2.x")["display_name"] == display
    # The host is known now, and a second time is no second kernel.
    ran = cli("kernel", "add", f"{user.conda}/envs/pytorch", "server1", "--name", "mine_2.x", "--json")
    assert added(ran)["refreshed"] is True
    assert spec(user, "mine_2.x")["display_name"] == "Python (pytorch)"
    assert [entry.name for entry in (user.home / SPECS).iterdir()] == ["mine_2.x"]


def test_a_name_belongs_to_one_environment_until_it_is_replaced(cli: Cli, user: User, fresh_bed: Bed) -> None:
    own(user, fresh_bed)
    added(cli("kernel", "add", "pytorch", "server1", "--json"))
    before = spec(user, "pytorch")
    ran = cli("kernel", "add", "~/work/env", "server1", "--name", "pytorch")
    says(ran, 2)
    assert f"kernel pytorch already runs another environment ({fresh_bed.conda.pytorch})" in ran.stderr
    assert "--name" in ran.stderr.splitlines()[-1]
    assert "--replace" in ran.stderr.splitlines()[-1]
    assert spec(user, "pytorch") == before
    told = added(cli("kernel", "add", "~/work/env", "server1", "--name", "pytorch", "--replace", "--json"))
    assert told["kernel"]["prefix"] == f"{user.home}/work/env"
    assert cell(fresh_bed, "pytorch", "import sys; print(sys.prefix)") == [f"{user.home}/work/env"]


def test_without_ipykernel_nothing_is_added(cli: Cli, user: User) -> None:
    for words in ((), ("--no-install",)):
        ran = cli("kernel", "add", "tf", "server1", *words)
        says(ran, 25)
        assert "error: environment tf has no ipykernel" in ran.stderr
        assert "--install" in ran.stderr.splitlines()[-1]
    # Asked on a terminal, a no is a no.
    with Terminal(cli, "kernel", "add", "tf", "server1") as terminal:
        terminal.expect("environment tf has no ipykernel. Install it there? [Y/n]")
        terminal.type("n\n")
        assert terminal.end().rc == 25
    assert not (user.home / SPECS).exists()
    ran = cli("kernel", "add", "tff", "server1")
    says(ran, 21)
    assert "did you mean tf" in ran.stderr


def test_a_missing_ipykernel_is_installed(cli: Cli, user: User, fresh_bed: Bed) -> None:
    site = own(user, fresh_bed, "ipykernel", "ipykernel_launcher.py")
    install(closure("pip"), user.home / "work" / "env")
    wheels = user.put("wheels/README", "what pip finds\n").parent
    wheel(metadata.distribution("ipykernel"), wheels)
    user.put(".config/pip/pip.conf", f"[global]\nno-index = true\nfind-links = {wheels}\n")
    ran = cli("kernel", "add", "~/work/env", "server1", "--install", "--json")
    assert added(ran)["executable"] == f"{user.home}/work/env/bin/python"
    assert (site / "ipykernel_launcher.py").exists()
    assert cell(fresh_bed, "env", "import ipykernel; print(ipykernel.__file__)") == [f"{site}/ipykernel/__init__.py"]


def test_a_kernel_that_does_not_start_is_taken_back(cli: Cli, user: User, fresh_bed: Bed) -> None:
    site = own(user, fresh_bed, "ipykernel_launcher.py")
    launcher = site / "ipykernel_launcher.py"
    good = (fresh_bed.conda.pytorch / SITE / "ipykernel_launcher.py").read_text()
    launcher.write_text("raise ImportError('libzmq.so.5 is missing')\n")
    ran = cli("kernel", "add", "~/work/env", "server1")
    says(ran, 25)
    assert "error: the kernel of env does not start: RuntimeError: ImportError: libzmq.so.5 is missing" in ran.stderr
    assert list((user.home / SPECS).iterdir()) == []
    launcher.write_text(good)
    added(cli("kernel", "add", "~/work/env", "server1", "--json"))
    before = (user.home / SPECS / "env" / "kernel.json").read_bytes()
    launcher.write_text("raise ImportError('libzmq.so.5 is missing')\n")
    ran = cli("kernel", "add", "~/work/env", "server1", "--display-name", "other", "--json")
    assert ran.rc == 25, ran
    assert ran.json["error"]["code"] == "kernel"
    assert (user.home / SPECS / "env" / "kernel.json").read_bytes() == before
    assert [entry.name for entry in (user.home / SPECS).parent.iterdir()] == ["kernels"]


def test_kernels_are_listed_checked_and_removed(cli: Cli, user: User, fresh_bed: Bed) -> None:
    own(user, fresh_bed)
    for env in ("pytorch", "~/work/env"):
        added(cli("kernel", "add", env, "server1", "--json"))
    listed = cli("kernel", "ls", "--json", "server1").json["kernels"]
    assert {"name", "display_name", "prefix", "argv", "ok", "problem"} <= set(listed[0])
    assert [(one["name"], one["prefix"], one["ok"]) for one in listed[:2]] == [
        ("env", f"{user.home}/work/env", None),
        ("pytorch", f"{user.conda}/envs/pytorch", None),
    ]
    # Below them those of the environments, which are not the user's to remove.
    assert {one["name"] for one in listed[2:]} == {"python3"}
    shutil.rmtree(user.home / "work" / "env")
    checked = cli("kernel", "check", "--host", "server1")
    assert checked.rc == 0, checked
    table, problems = checked.stdout.split("\n\n")
    rows = {line.split()[0]: line for line in table.splitlines()}
    assert f"its program is gone: {user.home}/work/env/bin/python" in rows["env"]
    assert " broken " in rows["env"]
    assert " ok " in rows["pytorch"]
    assert "fix: jupyman kernel add env --name env --replace" not in problems  # there is no such environment any more
    assert "fix: jupyman kernel rm env" in problems
    for name, status in (("env", 25), ("pytorch", 0)):
        ran = cli("kernel", "check", name, "server1", "--json")
        assert ran.rc == status, ran
        assert [(one["name"], one["ok"]) for one in ran.json["kernels"]] == [(name, status == 0)]


def test_only_a_kernel_of_the_users_own_is_removed_after_a_yes(cli: Cli, user: User) -> None:
    folder = user.put(SPECS / "mine" / "kernel.json", '{"argv": ["/bin/true"], "display_name": "Mine"}').parent
    ran = cli("kernel", "rm", "mine", "server1")
    says(ran, 2)
    for keys, status in (("n\n", 130), ("y\n", 0)):
        assert folder.exists()
        with Terminal(cli, "kernel", "rm", "mine", "server1") as terminal:
            terminal.expect("Remove kernel mine from server1? [y/N]")
            terminal.type(keys)
            assert terminal.end().rc == status
    assert not folder.exists()
    folder = user.put(SPECS / "mine" / "kernel.json", '{"argv": ["/bin/true"], "display_name": "Mine"}').parent
    assert cli("kernel", "rm", "mine", "--host", "server1", "-y").stdout == "removed kernel mine\n"
    assert not folder.exists()
    # One of an environment.
    ran = cli("kernel", "rm", "python3", "server1", "-y")
    says(ran, 2)
    assert "error: you have no kernel python3 on this host" in ran.stderr
    assert (user.conda / "envs/lab/share/jupyter/kernels/python3/kernel.json").exists()
