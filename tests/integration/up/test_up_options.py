"""The options of `up`: directory, app, environment, GPUs; two calls at once get one server."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from jupyman.demo import cell
from tests.bed import Cli, Ran, User
from tests.bed.aftermath import no_traceback, nothing_left, refused, servers
from tests.bed.notebooks import now, quietly, served, token, up
from tests.bed.ports import free_ports

STRANGE = "a b/'single' \"double\" $(touch executed) `touch executed` ; touch executed; & 中文 \\n * é"
GPUS = ["GPU-5b1c7d2e-0a4f-4c1b-9d37-2f6a8e4b1c01", "GPU-c2d94e7f-71b3-4f0e-8a55-90b7d3e6aa02"]
VISIBLE = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES', 'unset'))"


def problems(session: dict[str, Any]) -> set[str]:
    return {problem["code"] for problem in session["problems"]}


@pytest.mark.parametrize("asked", [f"~/{STRANGE}", STRANGE], ids=["from home", "relative"])
def test_a_directorys_name_is_carried_exactly_and_nothing_in_it_is_run(cli: Cli, user: User, asked: str) -> None:
    folder = user.put(f"{STRANGE}/seen.txt", "x").parent
    session = quietly(cli, "server1", "--dir", asked, "--app", "server")
    assert session["server"]["root_dir"] == str(folder)
    assert psutil.Process(session["server"]["pid"]).cwd() == str(folder)
    status, listing = served(session, "/api/contents")
    assert (status, [entry["name"] for entry in listing["content"]]) == (200, ["seen.txt"])
    for same in (asked, str(folder), f"{folder}/../{folder.name}/"):
        assert up(cli, "server1", "--dir", same)["server"] == session["server"]
    # From the record on the host, too.
    assert cli("daemon", "stop").rc == 0
    assert now(cli)["server"] == session["server"]
    assert list(user.home.rglob("executed")) == []
    assert list(cli.home.parent.rglob("executed")) == []


def test_what_the_host_has_not_is_an_error_and_nothing_stays(cli: Cli, user: User) -> None:
    user.set_gpu("two-a100")
    for option, asked, status, code, *words in (
        ("--dir", "~/nowhere", 27, "remote-failed", f"there is no directory {user.home}/nowhere"),
        ("--env", "nosuch", 21, "env-missing", "nosuch", "pytorch"),
        ("--gpu", "7", 2, "usage", "the host has no GPU 7", "GPU 0"),
        ("--app", "notebook", 20, "jupyter-missing", "can run Jupyter notebook", "use --app lab"),
    ):
        said = refused(cli, "up", "server1", option, asked, status=status, code=code)
        assert [word for word in words if word not in said.stderr] == [], said
    nothing_left(cli, user)


def test_the_app_is_chosen_and_its_page_is_the_address(cli: Cli, user: User) -> None:
    session = quietly(cli, "server1", "--app", "server")
    assert session["server"]["app"] == "server"
    port = session["forwards"][0]["local"].rpartition(":")[2]
    assert session["url"] == f"http://127.0.0.1:{port}/?token={token(session)}"
    [process] = servers(user)
    assert any(word.endswith("/jupyter-server") for word in process.cmdline())
    assert served(session, "/")[0] < 400


def test_a_port_is_chosen_when_a_server_starts(cli: Cli, user: User) -> None:
    session = quietly(cli, "server1", "--app", "server")
    port, [other] = session["server"]["port"], free_ports(1)
    ran = cli("up", "server1", "--port", str(other), "--json")
    assert (ran.rc, ran.json["server"]) == (0, session["server"]), ran
    assert f"on port {port}: --port counts for the next one" in ran.stderr
    assert cli("kill", "-y", "server1").rc == 0
    # Bound, and nobody listens: whoever looks at listeners calls it free.
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", other))
        ran = cli("up", "server1", "--port", str(other), "--app", "server", "--json")
        moved = ran.json["server"]["port"]
        assert moved > other, ran
        assert f"port {other} could not be used: Jupyter runs on server1, port {moved}" in ran.stderr


def test_an_environment_without_jupyter_is_worked_in_by_its_kernel(cli: Cli, user: User) -> None:
    session = quietly(cli, "server1", "--env", "pytorch", "--app", "server")
    lab, pytorch = (str(user.conda / "envs" / name) for name in ("lab", "pytorch"))
    assert (session["server"]["env"], session["server"]["kernel_env"]) == (lab, pytorch)
    assert problems(session) == set()
    status, specs = served(session, "/api/kernelspecs")
    assert (status, specs["default"]) == (200, "pytorch")
    assert {"pytorch", "python3"} <= set(specs["kernelspecs"])
    code = "import os, sys, torch; print(sys.prefix, os.environ['JM_ACTIVATED'], torch.__version__)"
    prefix, activated, version = cell.execute(session["url"], code).split()
    assert (prefix, activated, version) == (pytorch, "pytorch", "2.5.1+cu124")
    assert cell.execute(session["url"], "import sys; print(sys.prefix)", kernel="python3").strip() == lab
    assert (user.home / ".local/share/jupyter/kernels/pytorch/kernel.json").stat().st_uid == user.uid
    # Both names mean what runs; ENV is the working one in the table.
    for same in ("pytorch", pytorch):
        assert up(cli, "server1", "--env", same)["server"] == session["server"]
    head, row = cli("ps").stdout.splitlines()
    assert row[head.index("ENV") :].split()[0] == "pytorch"
    assert cli("up", "server1", "--env", "lab").rc == 2


def test_an_environment_without_ipykernel_is_a_problem_and_no_failure(cli: Cli, user: User) -> None:
    there, here = (str(port) for port in free_ports(2))
    words = ("up", "server1", "--env", "tf", "--app", "server", "--port", there, "--local-port", here)
    ran = cli(*words, "--no-browser")
    assert ran.rc == 0, ran
    assert "environment tf has no ipykernel, so it is no kernel yet" in ran.stderr
    assert "fix: jupyman kernel add tf --host server1 --install" in ran.stderr
    assert ran.stdout.startswith(f"http://127.0.0.1:{here}/")
    session = now(cli)
    assert session["state"] == "running"
    assert session["server"]["env"] == str(user.conda / "envs" / "lab")
    [problem] = session["problems"]
    assert (problem["code"], problem["severity"]) == ("kernel-missing", "warning")
    assert served(session, "/api/kernelspecs")[1]["default"] == "python3"
    assert not (user.home / ".local/share/jupyter/kernels").exists()


@pytest.mark.parametrize(
    ("asked", "gpus", "visible"),
    [("0,1", [0, 1], ",".join(GPUS)), ("auto", [1], GPUS[1]), ("none", [], "")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_gpus_that_were_asked_for_are_what_a_kernel_sees(
    cli: Cli, user: User, asked: str, gpus: list[int], visible: str
) -> None:
    user.set_gpu("two-a100")
    session = quietly(cli, "server1", "--gpu", asked, "--app", "server")
    assert session["server"]["gpus"] == gpus
    assert cell.execute(session["url"], VISIBLE) == f"{visible}\n"
    head, row = cli("ps").stdout.splitlines()
    assert row[head.index("GPU") :].split()[0] == (",".join(map(str, gpus)) or "-")
    assert cli("daemon", "stop").rc == 0
    other = cli("up", "server1", "--gpu", "any:2")
    assert other.rc == 2, other
    assert f"--gpu any:2 (it runs with {asked})" in other.stderr
    assert up(cli, "server1", "--gpu", asked)["server"] == session["server"]


def test_two_that_ask_at_once_get_one_server(cli: Cli, user: User) -> None:
    """Not even a daemon runs before."""
    words = [str(port) for port in free_ports(2)]
    command = ("up", "server1", "--app", "server", "--port", words[0], "--local-port", words[1], "--json")
    both = [cli.start(*command, stdin=subprocess.DEVNULL) for _ in range(2)]
    ran = [ended(process) for process in both]
    assert [one.rc for one in ran] == [0, 0], ran
    assert ran[0].json == ran[1].json
    assert [one.pid for one in servers(user)] == [ran[0].json["server"]["pid"]]
    assert [line for line in ran[0].stderr.splitlines() if "Jupyter runs on" in line] == [
        line for line in ran[1].stderr.splitlines() if "Jupyter runs on" in line
    ]
    no_traceback(cli)


def ended(process: subprocess.Popen[str]) -> Ran:
    """Wait for a command's end."""
    with process:
        out, err = process.communicate(timeout=90)
    return Ran(process.returncode, out, err)


def test_two_accounts_of_one_host_have_nothing_to_do_with_each_other(
    cli: Cli, users: Callable[[str], User], user: User
) -> None:
    dash = users("dash")
    mine = quietly(cli, "server1", "--app", "server")
    taken = up(cli, "server-dash", "--app", "server", "--port", str(mine["server"]["port"]))
    assert taken["name"] == "server-dash"
    assert taken["server"]["port"] != mine["server"]["port"]
    assert [len(servers(one)) for one in (user, dash)] == [1, 1]
    unclear = cli("up")
    assert unclear.rc == 2, unclear
    assert "error: which host? jupyman knows server-dash, server1" in unclear.stderr
    assert cli("kill", "server-dash").rc == 0
    assert [len(servers(one)) for one in (user, dash)] == [1, 0]
    assert served(mine, "/api/status")[0] == 200
