"""From the memory of a GPU to the notebook: real kernels of real servers; a fake nvidia-smi reports their pids."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.bed import Bed, Cli, User, private_home, wait_until
from tests.bed.by_hand import by_hand
from tests.bed.http import get
from tests.bed.notebooks import Kernel, local_port, now, token, up
from tests.bed.ports import free_ports

# Of tests/data/nvidia-smi/two-a100: GPU 0, of which 20 GiB are free, and GPU 1, which is empty and the session's.
REST, OURS = "GPU-5b1c7d2e-0a4f-4c1b-9d37-2f6a8e4b1c01", "GPU-c2d94e7f-71b3-4f0e-8a55-90b7d3e6aa02"
CHILD = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
MIB = 1024 * 1024
PATH = "work/deep learning/train.ipynb"
NOBODY = 4_194_300  # above what Linux gives to processes by default, as a pid of another container may be


class Notebook(Kernel):
    """A notebook with its kernel, as JupyterLab opens it."""

    def __init__(self, port: int, secret: str, path: str, base: str = "") -> None:
        body = {"path": path, "name": path.rpartition("/")[2], "type": "notebook", "kernel": {"name": "python3"}}
        status, made = get(port, f"{base}/api/sessions", secret, "POST", body)
        assert status == 201, made
        self.id = made["kernel"]["id"]

    def pid(self, user: User) -> int:
        """The kernel's process."""

        def running() -> list[int]:
            found = []
            for process in user.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if any(word.endswith(f"kernel-{self.id}.json") for word in process.cmdline()):
                        found.append(process.pid)
            return found

        return wait_until(running, what="the kernel's process")[0]


@pytest.fixture(scope="module")
def host(bed: Bed) -> Iterator[tuple[Cli, User, dict[str, Any]]]:
    """A session on GPU 1; nothing of it is left afterwards."""
    user = bed.user()
    user.set_gpu("two-a100", apps=[])
    with private_home() as home:
        cli = Cli(home, bed.ssh_config)
        try:
            yield cli, user, up(cli, "server1", "--gpu", "1", "--env", "lab")
        finally:
            bed.reset()


def on_gpu(cli: Cli, index: int) -> dict[int, dict[str, Any]]:
    """What `check` says of a GPU's processes, by pid."""
    ran = cli("check", "server1", "--json")
    assert ran.rc == 0, ran
    return {one["pid"]: one for one in ran.json["gpus"][index]["processes"]}


def test_memory_leads_to_the_notebook_and_the_session(host: tuple[Cli, User, dict[str, Any]], bed: Bed) -> None:
    cli, user, session = host
    assert session["server"]["gpus"] == [1]
    notebook = Notebook(local_port(session), token(session), PATH)
    kernel = notebook.pid(user)
    # As a data loader's worker or a training script: what a cell started.
    child = int(notebook.run(session, CHILD))
    with bed.user("other").hold_port() as alien, user.hold_port() as mine:
        apps = [
            (OURS, kernel, f"{user.conda}/envs/lab/bin/python", "11724"),
            (OURS, child, "sleep", "[N/A]"),
            (OURS, alien.pid, "train, with a comma", "3000"),
            (OURS, NOBODY, "[Insufficient Permissions]", "[N/A]"),
            (REST, kernel, f"{user.conda}/envs/lab/bin/python", "512"),
            (REST, mine.pid, "python", "1"),
        ]
        user.set_gpu("two-a100", apps=apps)
        found = on_gpu(cli, 1)
        place = {"kernel": notebook.id, "notebook": PATH, "server": session["server"]["pid"], "session": "server1"}
        nowhere = dict.fromkeys(place)
        assert {pid: {key: one[key] for key in place} for pid, one in found.items()} == {
            kernel: place,
            child: place,
            alien.pid: nowhere,
            NOBODY: nowhere,
        }
        assert {pid: (one["user"], one["ours"], one["memory"]) for pid, one in found.items()} == {
            kernel: (user.name, True, 11724 * MIB),
            child: (user.name, True, None),
            alien.pid: (bed.user("other").name, False, 3000 * MIB),
            NOBODY: (None, False, None),
        }
        rest = on_gpu(cli, 0)
        assert (rest[kernel]["notebook"], rest[mine.pid]["session"], rest[mine.pid]["ours"]) == (PATH, None, True)
        text = cli("check", "server1").stdout
        assert f"{PATH} (session server1, kernel {notebook.id[:8]})" in text
        assert f"PID {NOBODY} (another container or a user that cannot be seen)" in text
        assert "?:" not in text
        watched(cli, user, session, kernel, child, alien.pid)


def watched(cli: Cli, user: User, session: dict[str, Any], kernel: int, child: int, alien: int) -> None:
    """`ps` knows it too, from the daemon's own looks: what the notebooks hold, and who else came to that GPU."""
    used = wait_until(lambda: now(cli)["gpu_use"], what="a look at the GPUs")
    assert {(one["gpu"], one["pid"], one["memory"], one["notebook"]) for one in used} == {
        (1, kernel, 11724 * MIB, PATH),
        (1, child, None, PATH),
        (0, kernel, 512 * MIB, PATH),
    }
    [problem] = [one for one in now(cli)["problems"] if one["code"] == "gpu-shared"]
    assert problem["text"].startswith("GPU 1 of this session is used by others too: ")
    assert f"(pid {alien}), 2.93 GiB" in problem["text"]
    assert f"PID {NOBODY} (another container or a user that cannot be seen)" in problem["text"]
    text = cli("ps").stdout
    assert f"server1: 11.4 GiB of GPU 1 held by {PATH} (pid {kernel})" in text
    assert f"server1: {problem['text']} ({problem['fix']})" in text
    # They leave: the next look comes some ten seconds after the last.
    user.set_gpu("two-a100", apps=[(OURS, kernel, "python", "1024")])
    wait_until(lambda: [one["pid"] for one in now(cli)["gpu_use"]] == [kernel], 30, "the next look at the GPUs")
    assert [one for one in now(cli)["problems"] if one["code"] == "gpu-shared"] == []
    assert session["server"]["pid"] == now(cli)["server"]["pid"]


def test_the_notebooks_of_an_unmanaged_server_are_found_too(
    host: tuple[Cli, User, dict[str, Any]],
) -> None:
    cli, user, _ = host
    with by_hand(user, "--ServerApp.base_url=/mine/") as mine:
        notebook = Notebook(mine["port"], mine["token"], "a.ipynb", "/mine")
        kernel = notebook.pid(user)
        user.set_gpu("two-a100", apps=[(OURS, kernel, "python", "1024"), (REST, mine["pid"], "python", "1")])
        held = on_gpu(cli, 1)[kernel]
        assert (held["notebook"], held["server"], held["session"]) == ("a.ipynb", mine["pid"], None)
        assert on_gpu(cli, 0)[mine["pid"]]["server"] == mine["pid"]


def test_a_session_is_given_a_gpu_that_no_other_session_has(host: tuple[Cli, User, dict[str, Any]]) -> None:
    cli, user, _ = host
    user.set_gpu("two-a100", apps=[])
    ran = cli("up", "server1", "--name", "more", "--gpu", "auto", "--local-port", str(free_ports(1)[0]), "--json")
    try:
        assert ran.rc == 0, ran
        # GPU 1 has more free memory.
        assert ran.json["server"]["gpus"] == [0]
        assert "nobody else uses it" in ran.stderr
        kernel = Kernel(ran.json)
        printed = kernel.run(ran.json, "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")
        assert printed.strip() == REST
    finally:
        assert cli("kill", "more").rc == 0
    # Somebody else there is worse than another session of one's own here.
    user.set_gpu("two-a100", apps=[(REST, 1, "init", "40000")])
    ran = cli("up", "server1", "--name", "more", "--gpu", "auto", "--local-port", str(free_ports(1)[0]), "--json")
    try:
        assert ran.rc == 0, ran
        assert ran.json["server"]["gpus"] == [1]
        assert "another session of yours has it" in ran.stderr
    finally:
        assert cli("kill", "more").rc == 0
