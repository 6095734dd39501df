"""`jupyman kill --orphans`: kernels that outlived their server, and no kernel in use."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from tests.bed import Bed, Cli, User, private_home, wait_until
from tests.bed.by_hand import by_hand
from tests.bed.http import get
from tests.bed.notebooks import Kernel, local_port, token, up
from tests.bed.terminal import Terminal

GPU = "GPU-5b1c7d2e-0a4f-4c1b-9d37-2f6a8e4b1c01"
# Holds the GIL in a call into C, as a hanging CUDA call may: the thread that watches for the parent's end never runs.
HANG = "import ctypes; open('hangs', 'w').close(); ctypes.PyDLL(None).sleep(600)"
DEAF = "import signal; x = signal.signal(signal.SIGTERM, signal.SIG_IGN); "
CHILD = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"


class Started(Kernel):
    """A kernel of a spec."""

    def __init__(self, session: dict[str, Any], name: str = "python3") -> None:
        status, made = get(local_port(session), "/api/kernels", token(session), "POST", {"name": name})
        assert status == 201, made
        self.id = made["id"]

    def begin(self, session: dict[str, Any], code: str) -> None:
        """Start a cell that never ends: that it runs must be seen otherwise."""
        import websocket

        address = f"ws://127.0.0.1:{local_port(session)}/api/kernels/{self.id}/channels"
        channels = websocket.create_connection(address, header=[f"Authorization: token {token(session)}"], timeout=60)
        message = {
            "header": {"msg_id": "1", "msg_type": "execute_request", "username": "", "session": "s", "version": "5.3"},
            "parent_header": {},
            "metadata": {},
            "content": {"code": code, "silent": False},
            "channel": "shell",
        }
        channels.send(json.dumps(message))
        channels.close()


def kernels(user: User, identity: str) -> list[psutil.Process]:
    """Return the processes with a kernel's connection file on their command line, the oldest first."""
    found = []
    for process in user.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(word.endswith(f"kernel-{identity}.json") for word in process.cmdline()):
                found.append(process)
    return sorted(found, key=lambda process: process.create_time())


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def wrapped_spec(user: User) -> None:
    """Write a kernel spec with a shell around the kernel, as `conda run` is: it does not see its server die."""
    python = str(user.conda / "envs" / "lab" / "bin" / "python")
    argv = ["/bin/sh", "-c", '"$0" -m ipykernel_launcher -f "$1"; exit 0', python, "{connection_file}"]
    spec = {"argv": argv, "display_name": "wrapped", "language": "python"}
    user.put(".local/share/jupyter/kernels/wrapped/kernel.json", json.dumps(spec))


@pytest.fixture
def cli(bed: Bed) -> Iterator[Cli]:
    with private_home() as home:
        try:
            yield Cli(home, bed.ssh_config)
        finally:
            bed.reset()


def crash(session: dict[str, Any]) -> None:
    """End a session's server as the OOM killer does."""
    server = psutil.Process(session["server"]["pid"])
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not alive(server.pid), what="the server's end")


def orphaned(cli: Cli) -> list[dict[str, Any]]:
    """What `check` says of them."""
    ran = cli("check", "server1", "--json")
    assert ran.rc == 0, ran
    return [problem for problem in ran.json["problems"] if problem["code"] == "orphan-kernels"]


def test_what_is_left_of_a_dead_server_is_shown_and_ended(cli: Cli, bed: Bed) -> None:
    user = bed.user()
    wrapped_spec(user)
    session = up(cli, "server1", "--env", "lab")
    ordinary, wrapped, hanging = Started(session), Started(session, "wrapped"), Started(session)
    child = int(wrapped.run(session, CHILD))
    assert hanging.run(session, DEAF + "print('deaf')").strip() == "deaf"
    hanging.begin(session, HANG)
    wait_until((user.home / "hangs").exists, what="the cell that hangs")
    [plain] = kernels(user, ordinary.id)
    shell, inner = kernels(user, wrapped.id)
    [stuck] = kernels(user, hanging.id)
    # Kernels of a living server are not orphans, whatever stands between.
    assert orphaned(cli) == []
    ran = cli("kill", "--orphans", "server1")
    assert ran.rc == 0, ran
    assert "no orphaned kernels on server1" in ran.stderr
    crash(session)
    wait_until(lambda: not alive(plain.pid), what="the end of the kernel that saw it")
    assert [alive(one.pid) for one in (shell, inner, stuck)] == [True, True, True]
    user.set_gpu("two-a100", apps=[(GPU, child, "sleep", "11264"), (GPU, stuck.pid, "python", "1024")])
    [problem] = orphaned(cli)
    assert problem["text"].startswith("2 orphaned kernels hold ")
    assert "12 GiB of GPU 0" in problem["text"]
    assert problem["fix"] == "jupyman kill --orphans server1"
    pids = [shell.pid, inner.pid, stuck.pid, child]
    with Terminal(cli, "kill", "--orphans", "server1") as terminal:
        terminal.expect("Orphaned kernels on server1: ")
        terminal.expect("[y/N]")
        shown = " ".join(terminal.seen.split())
        assert f"kernel {hanging.id[:8]} (pid {stuck.pid}, " in shown
        assert f"kernel {wrapped.id[:8]} (pid {inner.pid}" in shown
        assert "11 GiB of GPU 0" in shown
        terminal.type("n\n")
        assert terminal.end().rc == 130
    ran = cli("kill", "--orphans", "server1", "--json")
    assert ran.rc == 2, ran
    assert f"pid {stuck.pid}" in ran.json["error"]["message"]
    assert [alive(pid) for pid in pids] == [True] * 4
    ran = cli("kill", "--orphans", "server1", "-y")
    assert ran.rc == 27, ran
    assert f"error: pid {stuck.pid} on server1 does not end" in ran.stderr
    assert "hint: jupyman kill --force --orphans server1" in ran.stderr
    # What the others started goes with them.
    assert [alive(pid) for pid in pids] == [False, False, True, False]
    ran = cli("kill", "--orphans", "server1", "-y", "--force", "--json")
    assert ran.rc == 0, ran
    [killed] = ran.json["killed"]
    assert (killed["pid"], killed["kernel"], killed["host"], killed["session"]) == (
        stuck.pid,
        hanging.id,
        "server1",
        None,
    )
    assert not alive(stuck.pid)
    assert orphaned(cli) == []


def test_a_kernel_in_use_is_no_orphan(cli: Cli, bed: Bed, tmp_path: Path) -> None:
    user, other = bed.user(), bed.user("other")
    wrapped_spec(user)
    python = str(user.conda / "envs" / "lab" / "bin" / "python")
    launch = f'"{python}" -m ipykernel_launcher -f "$0"'
    gone = {"JPY_PARENT_PID": "4194300"}
    idle = "import time; time.sleep(600)"
    session = up(cli, "server1", "--env", "lab")
    left = Started(session, "wrapped")
    assert left.run(session, "print(1)").strip() == "1"
    crash(session)
    with contextlib.ExitStack() as stack:

        def start(whose: User, *words: str, env: dict[str, str] | None = None) -> None:
            process = stack.enter_context(whose.start(*words, env=env))
            stack.callback(process.kill)

        # A server that jupyman did not start, and its kernel behind a wrapper.
        mine = stack.enter_context(by_hand(user))
        status, served = get(mine["port"], "/api/kernels", mine["token"], "POST", {"name": "wrapped"})
        assert status == 201, served
        # An editor's: its parent is an ordinary program. One from a terminal that was closed: nobody's child any more.
        start(user, "/bin/sh", "-c", f"{launch}; exit 0", str(user.home / "kernel-editor.json"))
        start(user, "/bin/sh", "-c", f"{launch} >/dev/null 2>&1 & exit 0", str(user.home / "kernel-terminal.json"))
        # A batch system's, whose server is on another machine: its parent is another account's process.
        start(user, python, "-c", idle, "kernel-batch.json", env=gone)
        # A neighbour's orphan.
        start(other, "/bin/sh", "-c", '"$0" -c "$1" kernel-neighbour.json & exit 0', python, idle, env=gone)
        identities = [served["id"], "editor", "terminal", "batch"]
        pids = [
            process.pid
            for identity in identities
            for process in wait_until(lambda one=identity: kernels(user, one), what=identity)  # type: ignore[misc]
        ]
        pids += [process.pid for process in wait_until(lambda: kernels(other, "neighbour"), what="the neighbour's")]
        # The one whose server is gone is an orphan, unless somebody talks to it: `jupyter console --existing`.
        mark = next(word for word in kernels(user, left.id)[-1].cmdline() if word.endswith(".json"))
        client = BlockingKernelClient(connection_file=mark)
        client.load_connection_file()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=30)
            assert orphaned(cli) == []
        finally:
            client.stop_channels()
        wait_until(lambda: orphaned(cli), what="the end of the connection")
        ran = cli("kill", "--orphans", "server1", "-y", "--json")
        assert ran.rc == 0, ran
        assert {one["kernel"] for one in ran.json["killed"]} == {left.id}
        assert kernels(user, left.id) == []
        assert [pid for pid in pids if not alive(pid)] == []


def test_orphans_excludes_other_targets(cli: Cli) -> None:
    ran = cli("kill", "--orphans", "server1", "8888")
    assert ran.rc == 2, ran
    assert "--orphans HOST cannot be combined" in ran.stderr
    assert cli.processes() == []
