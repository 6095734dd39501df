"""`jupyman kernel check`: starts kernels, names problems with a command, and runs that with `--fix`."""

from __future__ import annotations

import shlex
import shutil
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.bed import Bed, Cli, Ran, User, fetched, wait_until
from tests.bed.aftermath import programs, says, stuck
from tests.bed.kernels import SITE, SPECS, able, put_spec, wheel
from tests.bed.terminal import Terminal, interrupted

# A kernel of another language, as jupyter_client's documentation shows one ("Making simple Python wrapper kernels").
ECHO = """\
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel


class Echo(Kernel):
    implementation = language = "echo"
    implementation_version = language_version = banner = "1"
    language_info = {"name": "echo", "mimetype": "text/plain", "file_extension": ".txt"}

    def do_execute(self, code, silent, *args, **more):
        return {"status": "error", "execution_count": 1, "ename": "E", "evalue": "no Python here", "traceback": []}


IPKernelApp.launch_instance(kernel_class=Echo)
"""
EXTENSION = "labextensions/@jupyter-widgets/jupyterlab-manager/package.json"


def put_front(user: User, packages: tuple[str, ...] = fetched.WIDGETS) -> None:
    """Put JupyterLab's half of the widgets where all servers of the account find it."""
    [found] = fetched.fetch(packages).glob("jupyterlab_widgets-*.whl")
    with zipfile.ZipFile(found) as archive:
        [name] = [one for one in archive.namelist() if one.endswith(f".data/data/share/jupyter/{EXTENSION}")]
        user.put(f".local/share/jupyter/{EXTENSION}", archive.read(name).decode())


def checked(ran: Ran, rc: int = 0) -> dict[str, Any]:
    assert ran.rc == rc, ran
    found: dict[str, Any] = ran.json
    return found


def codes(answer: dict[str, Any]) -> list[str]:
    return [problem["code"] for problem in answer["problems"]]


def pip(python: Path, *packages: str) -> list[str]:
    return [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *packages]


def test_kernels_of_the_same_name_are_distinguished(cli: Cli, user: User, fresh_bed: Bed) -> None:
    put_spec(user, "mine", fresh_bed.conda.lab / "bin/python", "Mine")
    ran = cli("kernel", "ls", "server1")
    assert ran.rc == 0, ran
    rows = [line.split()[:3] for line in ran.stdout.splitlines()]
    assert rows[0] == ["KERNEL", "ENVIRONMENT", "SERVERS"]
    assert rows[1:] == [["mine", "lab", "all"], ["python3", "lab", "lab"], ["python3", "pytorch", "none"]]
    told = {one["directory"]: one for one in cli("kernel", "ls", "server1", "--json").json["kernels"]}
    lab = told[f"{user.conda}/envs/lab/share/jupyter/kernels/python3"]
    assert (lab["environment"], lab["seen_by"], lab["ok"]) == ("lab", ["lab"], None)
    assert len(told) == 3  # each once, though ~/.local and /usr are environments, too


def test_a_kernel_without_widgets_is_mended(cli: Cli, user: User, fresh_bed: Bed) -> None:
    python = able(user, fresh_bed)
    put_front(user)
    put_spec(user, "study", python, "Study")
    answer = checked(cli("kernel", "check", "study", "server1", "--json"))
    [kernel], [problem], [repair] = answer["kernels"], answer["problems"], answer["repairs"]
    assert (kernel["ok"], kernel["ipywidgets"], kernel["environment"]) == (True, None, "env")
    assert (problem["code"], problem["severity"]) == ("widgets-kernel", "warning")
    assert "IProgress not found" in problem["text"]
    command = pip(python, "ipywidgets>=8,<9")
    assert (repair["command"], repair["state"]) == (command, "proposed")
    assert problem["fix"] == f"jupyman kernel check study --host server1 --fix runs there: {shlex.join(command)}"
    # Without a terminal the command is shown, and nothing is done.
    ran = cli("kernel", "check", "study", "server1", "--fix")
    says(ran, 2)
    assert f"say --yes to run on server1: {shlex.join(command)}" in ran.stderr
    for keys, state in (("n\n", "declined"), ("y\n", "done")):
        assert not (user.home / "work/env" / SITE / "ipywidgets").exists()
        with Terminal(cli, "kernel", "check", "study", "server1", "--fix", "--json") as terminal:
            terminal.expect(f"Run on server1: {shlex.join(command)} ? [Y/n]")
            terminal.type(keys)
            answer = checked(terminal.end(60))
        assert [one["state"] for one in answer["repairs"]] == [state]
    assert (answer["kernels"][0]["ipywidgets"], answer["problems"]) == ("8.1.9", [])
    ran = cli("kernel", "check", "study", "server1", "--fix", "--yes")
    assert ran.rc == 0, ran
    assert "done:" not in ran.stdout  # there was nothing left to do
    assert programs(user) == {}


def test_what_an_installation_shows_is_mended_as_well(cli: Cli, user: User, fresh_bed: Bed) -> None:
    python = able(user, fresh_bed, "ipykernel", "ipykernel_launcher.py")
    put_front(user)
    more = user.put("wheels/README", "what pip finds\n").parent
    wheel(metadata.distribution("ipykernel"), more)
    fetched.offer(user, fetched.fetch(fetched.WIDGETS), more)
    put_spec(user, "study", python, "Study")
    ran = cli("kernel", "check", "study", "server1")
    assert ran.rc == 25, ran
    assert "error: kernel study: environment env has no ipykernel" in ran.stdout
    ran = cli("kernel", "check", "study", "server1", "--fix", "--yes")
    assert ran.rc == 0, ran
    done = [line for line in ran.stdout.splitlines() if line.startswith("done: ")]
    assert done == [f"done: {shlex.join(pip(python, need))}" for need in ("ipykernel", "ipywidgets>=8,<9")]
    assert "problems:" not in ran.stdout


def test_the_kernel_follows_the_generation_of_the_server(cli: Cli, user: User, fresh_bed: Bed) -> None:
    python = able(user, fresh_bed)
    older = fetched.fetch(fetched.OLDER)
    fetched.offer(user, older, fetched.fetch(fetched.WIDGETS))
    put_spec(user, "study", python, "Study")
    put_front(user, fetched.OLDER)
    answer = checked(cli("kernel", "check", "study", "server1", "--json"))
    assert codes(answer) == ["widgets-kernel"]
    assert [one["command"] for one in answer["repairs"]] == [pip(python, "ipywidgets>=7,<8")]
    # By hand, and without the notebook 6 that it wants; then the server is renewed.
    done = user.run(*pip(python, "--no-deps", "ipywidgets<8", "ipython_genutils"))
    assert done.returncode == 0, done
    put_front(user)
    answer = checked(cli("kernel", "check", "study", "server1", "--fix", "--yes", "--json"))
    assert [one["command"] for one in answer["repairs"]] == [pip(python, "ipywidgets>=8,<9")]
    assert (answer["kernels"][0]["ipywidgets"], answer["problems"]) == ("8.1.9", [])


def test_a_server_that_draws_no_widgets(cli: Cli, user: User, fresh_bed: Bed) -> None:
    python = able(user, fresh_bed)
    put_spec(user, "study", python, "Study")
    answer = checked(cli("kernel", "check", "study", "server1", "--json"))
    assert codes(answer) == ["widgets-server", "widgets-kernel"]
    server = answer["problems"][0]
    assert server["text"].startswith("environment lab, where Jupyter runs, has no jupyterlab_widgets")
    # It is the administrator's, and a conda environment with folders of its own.
    assert server["fix"].startswith(f"you cannot change {user.conda}/envs/lab, which belongs to")
    assert [one["prefix"] for one in answer["repairs"]] == [f"{user.home}/work/env"]


def test_an_environment_of_conda_is_mended_by_conda(cli: Cli, user: User, fresh_bed: Bed) -> None:
    python = able(user, fresh_bed)
    put_front(user)
    put_spec(user, "study", python, "Study")
    # A stand-in, as the bed's conda is: it notes what it was asked for, and lets pip do it.
    asked = user.home / "asked"
    lines = ["#!/bin/sh", f'printf "%s\\n" "$@" >{asked}', "shift 4", f'exec {shlex.join(pip(python))} "$@"']
    user.program("micromamba", "\n".join([*lines, ""]))
    answer = checked(cli("kernel", "check", "study", "server1", "--fix", "--yes", "--json"))
    words = ["install", "-y", "-p", f"{user.home}/work/env", "ipywidgets>=8,<9"]
    assert asked.read_text().splitlines() == words
    assert [one["command"] for one in answer["repairs"]] == [["micromamba", *words]]
    assert (answer["kernels"][0]["ipywidgets"], answer["problems"]) == ("8.1.9", [])


def test_a_failed_installation_is_reported_with_the_reason(cli: Cli, user: User, fresh_bed: Bed) -> None:
    python = able(user, fresh_bed)
    put_front(user)
    fetched.offer(user, user.home / "nothing")
    put_spec(user, "study", python, "Study")
    ran = cli("kernel", "check", "study", "server1", "--fix", "--yes")
    says(ran, 27)
    assert "error: ipywidgets>=8,<9 could not be installed in env (status 1)" in ran.stderr
    assert "No matching distribution found for ipywidgets" in ran.stderr
    assert checked(cli("kernel", "check", "study", "server1", "--json"))["kernels"][0]["ok"] is True


def test_kernels_that_do_not_start(cli: Cli, user: User, fresh_bed: Bed) -> None:
    python = able(user, fresh_bed)
    lab = f"{user.conda}/envs/lab/bin/python"
    put_front(user)
    put_spec(user, "gone", user.home / "no/bin/python", "Gone")
    put_spec(user, "elsewhere", f"{user.conda}/envs/pytorch/bin/python", "Python (tf)")
    put_spec(user, "python3", python, "Python 3 (ipykernel)")
    put_spec(user, "moved", lab, "Moved", metadata={"jupyman": {"prefix": f"{user.home}/work/env"}})
    put_spec(
        user, "other", lab, "Another language", argv=[lab, str(user.put("echo.py", ECHO)), "-f", "{connection_file}"]
    )
    put_spec(user, "deaf", "/bin/true", "Deaf")
    user.put(SPECS / "odd" / "kernel.json", '{"argv": [1')
    shutil.copytree(fresh_bed.conda.prefix_template, user.home / "half", symlinks=True)
    user.put("half/.jupyman-incomplete", "")
    put_spec(user, "half", user.home / "half/bin/python", "Half")
    answer = checked(cli("kernel", "check", "server1", "--json"))
    kernels = {one["name"]: one for one in answer["kernels"] if one["seen_by"] is None}
    assert {name: one["ok"] for name, one in kernels.items()} == {
        "gone": False,
        "elsewhere": True,
        "python3": True,
        "moved": True,
        "other": True,
        "deaf": False,
        "odd": False,
        "half": None,
    }
    assert kernels["other"]["problem"] is None
    texts = "\n".join(f"{one['code']}: {one['text']} -- {one['fix']}" for one in answer["problems"])
    assert f"kernel-gone: kernel gone: its program is gone: {user.home}/no/bin/python" in texts
    assert "jupyman kernel rm gone" in texts
    assert "kernel-gone: kernel odd: kernel.json cannot be read" in texts
    assert "kernel-broken: kernel deaf: it does not start: RuntimeError: Kernel died" in texts
    assert "kernel-elsewhere: kernel elsewhere is shown as 'Python (tf)' and runs in pytorch, not in tf" in texts
    assert "jupyman kernel add tf --name elsewhere --replace" in texts
    assert f"kernel-elsewhere: kernel moved belongs to {user.home}/work/env and runs in {fresh_bed.conda.lab}" in texts
    assert "kernel-unfinished: kernel half was not started: environment half is not finished" in texts
    assert "kernel-hidden: Jupyter in lab shows one of 2 kernels called python3" in texts
    assert programs(user) == {}
    # A name alone, and one that nobody has.
    assert checked(cli("kernel", "check", "DEAF", "--host", "server1", "--json"), 25)["kernels"][0]["name"] == "deaf"
    ran = cli("kernel", "check", "study", "--host", "server1")
    says(ran, 2)
    assert "error: no kernel is called 'study' on server1" in ran.stderr
    assert "hint: kernels there: deaf, elsewhere, gone, half" in ran.stderr


def test_one_word_is_a_kernel_or_a_known_host(cli: Cli, user: User, fresh_bed: Bed) -> None:
    python = fresh_bed.conda.pytorch / "bin/python"
    for name in ("study", "server1"):
        put_spec(user, name, python, name.title())
    assert len(checked(cli("kernel", "check", "server-dash", "--json"))["kernels"]) == 2
    # A kernel of that very name is meant where there is one.
    [kernel] = checked(cli("kernel", "check", "server1", "--json"))["kernels"]
    assert kernel["name"] == "server1"
    (cli.home / "config.toml").write_text('default_host = "server1"\n')
    [kernel] = checked(cli("kernel", "check", "study", "--json"))["kernels"]
    assert (kernel["name"], kernel["ok"]) == ("study", True)


def test_a_kernel_of_another_user_is_started_only_by_name(cli: Cli, user: User, users: Callable[[str], User]) -> None:
    other = users("other")
    mark = user.put("mark", "", 0o666)
    python = other.put("env/bin/python", f"#!/bin/sh\necho ran >>{mark}\n", 0o755)
    put_spec(user, "theirs", python, "Theirs")
    answer = checked(cli("kernel", "check", "server1", "--json"))
    [theirs] = [one for one in answer["kernels"] if one["name"] == "theirs"]
    assert theirs["ok"] is None
    [problem] = [one for one in answer["problems"] if one["code"] == "kernel-foreign"]
    assert f"others can change {other.home}/env" in problem["text"]
    assert mark.read_text() == ""
    assert checked(cli("kernel", "check", "theirs", "server1", "--json"), 25)["kernels"][0]["ok"] is False
    assert mark.read_text() != ""


def test_an_interrupted_check_leaves_no_kernel(cli: Cli, user: User, fresh_bed: Bed) -> None:
    able(user, fresh_bed)
    assert cli("kernel", "add", "~/work/env", "server1").rc == 0
    busy = stuck(user, "slow", "exec sleep 1000")
    hook = user.put("work/env/etc/conda/activate.d/slow.sh", f"{user.programs}/slow\n")
    with Terminal(cli, "kernel", "check", "env", "server1") as terminal:
        wait_until(busy.exists)
        interrupted(terminal)
    # At once: the proof's own limit is three times as long.
    wait_until(lambda: programs(user) == {}, what="the end of the kernel")
    hook.unlink()
    assert cli("kernel", "check", "env", "server1").rc == 0
