"""Launch, find and verify: a real JupyterLab in an account of its own."""

from __future__ import annotations

import json
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyman import errors
from jupyman.host.servers import listing
from jupyman.host.servers.nohup import NohupLauncher
from jupyman.model import Environment, Running
from tests.bed import wait_until
from tests.bed.http import get
from tests.bed.launches import execute, launch_spec, runtime_dir
from tests.bed.local_account import Account, new_account, processes
from tests.bed.ports import free_ports


@pytest.fixture(scope="module")
def lab(environment: Environment) -> Iterator[tuple[Account, Running, list[str]]]:
    with new_account() as account:
        steps: list[str] = []
        account.environ = {"JUPYTER_TOKEN": "evil", "JUPYTER_PORT": "1", "XDG_RUNTIME_DIR": "/nowhere"}
        account.environ["LC_ALL"] = "C.UTF-8"
        spec = launch_spec(environment, app="lab", cuda_visible_devices="1,2", gpus=[1, 2])
        yield account, NohupLauncher(account).launch(spec, progress=steps.append), steps


def test_it_answers_only_with_the_token(lab: tuple[Account, Running, list[str]]) -> None:
    account, running, steps = lab
    assert running.server.port is not None
    assert get(running.server.port, "/api/status")[0] == 403
    assert get(running.server.port, "/api/status", running.token)[0] == 200
    assert get(running.server.port, "/lab", running.token)[0] == 200
    assert len(running.token) == 48
    assert running.server.root_dir == str(account.home)
    assert running.server.gpus == [1, 2]
    assert running.server.version
    assert not running.server.adopted
    assert steps[0].startswith("starting jupyter-lab")


def test_find_and_verify_see_it(lab: tuple[Account, Running, list[str]]) -> None:
    account, running, _ = lab
    found = NohupLauncher(account).find()
    assert [record.state for record in found.records] == ["alive"]
    record = found.records[0]
    assert record.running == running
    assert found.servers == []
    assert NohupLauncher(account).verify(running).ok
    row = listing.rows("h", found)[0]
    assert (row.pid, row.port, row.session) == (running.server.pid, running.server.port, "s1")
    assert running.token not in repr(row)


def test_the_token_is_in_no_place_that_others_can_read(lab: tuple[Account, Running, list[str]]) -> None:
    account, running, _ = lab
    secret = running.token.encode()
    execute(running, "print(1)")
    assert running.server.port is not None
    # Jupyter blots the token out of what it logs, but not where a request fails.
    assert get(running.server.port, f"/api/contents/nowhere?token={running.token}")[0] == 404
    for pid in processes(account.uid):
        assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert secret not in Path(f"/proc/{pid}/environ").read_bytes()
    holders = []
    for top in (account.home, runtime_dir(running)):
        for path in [top, *top.rglob("*")]:
            if path.is_file() and secret in path.read_bytes():
                private = any(stat.S_IMODE(parent.stat().st_mode) & 0o077 == 0 for parent in [path, *path.parents])
                assert private, path
                holders.append(path.name)
    assert "token" in holders
    assert "log" not in holders
    for name in ("log", "token", "jupyter_config.py", "record"):
        assert stat.S_IMODE(Path(running.directory, name).stat().st_mode) == 0o600
    for folder in (Path(running.directory), Path(running.directory).parent, runtime_dir(running)):
        assert stat.S_IMODE(folder.stat().st_mode) & 0o777 == 0o700


def test_kernels_use_sockets_in_a_private_directory_and_inherit_a_clean_process(
    lab: tuple[Account, Running, list[str]],
) -> None:
    account, running, _ = lab
    code = """
import os, resource, subprocess
mask = os.umask(0); os.umask(mask)
status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
ignored = int(next(l.split()[1] for l in status.splitlines() if l.startswith("SigIgn")), 16)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
print(oct(mask), os.getcwd(), os.environ["CUDA_VISIBLE_DEVICES"], ignored & 0b111, soft == hard)
env = os.environ.get
print(env("LC_ALL"), env("JUPYTER_TOKEN"), env("XDG_RUNTIME_DIR"), env("PATH").split(":")[0])
"""
    first, second = execute(running, code).splitlines()
    # Bits 0-2: SIGHUP, SIGINT, SIGQUIT.
    assert first == f"0o22 {account.home} 1,2 0 True"
    assert second == f"C.UTF-8 None None {running.server.env}/bin"
    # (ipykernel also listens on a TCP port of its own, PULL only, for prints of forked children: iostream.py,
    # IOPubThread._setup_pipe_in. Nothing can be read there.)
    folder = runtime_dir(running)
    connections = [json.loads(path.read_text()) for path in folder.glob("kernel-*.json")]
    assert {connection["transport"] for connection in connections} == {"ipc"}
    assert all(Path(connection["ip"]).parent == folder for connection in connections)
    sockets = [path for path in folder.iterdir() if path.is_socket()]
    assert len(sockets) >= 5


def test_the_log_comes_without_tokens(lab: tuple[Account, Running, list[str]]) -> None:
    account, running, _ = lab
    with Path(running.directory, "log").open("a") as file:
        file.write(f"http://127.0.0.1:1/?token=abc%20def&x=1 and {running.token}\n")
    lines: list[str] = []
    NohupLauncher(account).logs("s1", running.directory, lines=2, follow=False, on_line=lines.append)
    assert len(lines) == 2
    assert lines[-1] == "http://127.0.0.1:1/?token=***&x=1 and ***"


def test_a_followed_log_ends_with_its_channel(lab: tuple[Account, Running, list[str]]) -> None:
    account, running, _ = lab
    cancelled = threading.Event()
    seen: list[str] = []
    first = threading.Event()

    def line(text: str) -> None:
        seen.append(text)
        first.set()
        if text == "the last line":
            cancelled.set()

    def append() -> None:
        first.wait(20)
        with Path(running.directory, "log").open("a") as file:
            file.write("the last line\n")

    writer = threading.Thread(target=append)
    writer.start()
    before = set(processes(account.uid))
    with pytest.raises(errors.Interrupted):
        NohupLauncher(account).logs("s1", None, lines=1, follow=True, on_line=line, cancelled=cancelled)
    writer.join()
    assert seen[-1] == "the last line"
    wait_until(lambda: set(processes(account.uid)) <= before)


def test_a_second_launch_returns_the_running_server(
    lab: tuple[Account, Running, list[str]], environment: Environment
) -> None:
    account, running, _ = lab
    again = NohupLauncher(account).launch(launch_spec(environment))
    assert again.server.pid == running.server.pid
    assert again.token == running.token
    assert again.server.adopted


def test_a_wrong_start_time_is_another_process(lab: tuple[Account, Running, list[str]]) -> None:
    import msgspec

    account, running, _ = lab
    reused = msgspec.structs.replace(running, start_ticks=running.start_ticks + 1, directory="")
    assert NohupLauncher(account).verify(reused).state == "exited"
    assert NohupLauncher(account).stop(reused, force=True)
    assert NohupLauncher(account).verify(running).ok
    rebooted = msgspec.structs.replace(running, boot_id="another", directory="")
    assert NohupLauncher(account).verify(rebooted).state == "rebooted"
    assert NohupLauncher(account).stop(rebooted, force=True)
    assert NohupLauncher(account).verify(running).ok


def test_another_process_on_the_port_is_seen(lab: tuple[Account, Running, list[str]]) -> None:
    import msgspec

    account, running, _ = lab

    def on(port: int) -> str:
        server = msgspec.structs.replace(running.server, port=port)
        return NohupLauncher(account).verify(msgspec.structs.replace(running, server=server)).state

    with socket.create_server(("127.0.0.1", 0)) as strange:
        assert on(strange.getsockname()[1]) == "taken"
    assert on(free_ports(1)[0]) == "not-listening"
