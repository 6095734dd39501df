"""Launches with hostile configuration, odd names, taken ports, failures, and files of other users."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from jupyman import errors
from jupyman.host.servers.nohup import NohupLauncher
from jupyman.model import App, Environment, Running
from tests.bed import wait_until
from tests.bed.http import get
from tests.bed.launches import build_environment, execute, launch_spec, session_dir
from tests.bed.local_account import Account, processes, public_folder
from tests.bed.ports import free_ports

# --- the user's own configuration -------------------------------------------------------------------------------------


HOSTILE = """
for section in (c.ServerApp, c.NotebookApp, c.LabApp):
    section.token = ""
    section.ip = "0.0.0.0"
    section.port = 1
    section.base_url = "/elsewhere"
    section.certfile = "/etc/passwd"
    section.keyfile = "/etc/passwd"
    section.password = "sha1:74ba40f8a388:c913541b7ee99d15d5ed31d4226bf7838f83a50e"
    section.open_browser = True
c.IdentityProvider.token = ""
c.PasswordIdentityProvider.token = ""
c.PasswordIdentityProvider.hashed_password = "sha1:74ba40f8a388:c913541b7ee99d15d5ed31d4226bf7838f83a50e"
c.PasswordIdentityProvider.password_required = True
c.ServerApp.sock = "/tmp/hostile.sock"
c.ServerApp.root_dir = "/"
c.KernelManager.transport = "tcp"
c.ServerApp.tornado_settings = {"headers": {"X-Mine": "kept"}}
"""


def hostile(account: Account) -> None:
    folder = account.home / ".jupyter"
    folder.mkdir()
    os.chown(folder, account.uid, -1)
    for name in ("jupyter_server_config", "jupyter_notebook_config", "jupyter_lab_config", "jupyter_config"):
        text = HOSTILE if name != "jupyter_notebook_config" else HOSTILE.replace("c.LabApp", "c.NotebookApp")
        (folder / f"{name}.py").write_text(text)
        settings = {"ServerApp": {"token": "", "ip": "*", "base_url": "/json"}, "IdentityProvider": {"token": ""}}
        (folder / f"{name}.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("app", ["server", "lab"])
def test_our_configuration_wins(account: Account, environment: Environment, app: App) -> None:
    hostile(account)
    running = NohupLauncher(account).launch(launch_spec(environment, app=app))
    port = running.server.port
    assert port is not None
    assert get(port, "/api/status")[0] == 403
    assert get(port, "/api/status", running.token)[0] == 200
    assert NohupLauncher(account).find().records[0].state == "alive"
    # What does not contradict ours holds as the user set it.
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/api")
    assert connection.getresponse().getheader("X-Mine") == "kept"
    connection.close()
    name = execute(running, "import ipykernel.kernelapp as k; print(k.IPKernelApp.instance().transport)")
    assert name.strip() == "ipc"
    assert NohupLauncher(account).stop(running)


def test_a_server_without_a_token_is_stopped(account: Account, environment: Environment) -> None:
    # The one thing that a configuration file cannot win against: code that runs after it.
    folder = account.home / ".jupyter"
    folder.mkdir()
    (folder / "jupyter_server_config.py").write_text(
        "import jupyter_server.auth.identity as i\n"
        "async def anybody(self, handler):\n    return i.User('x')\n"
        "i.PasswordIdentityProvider._get_user = anybody\ni.PasswordIdentityProvider.get_user = anybody\n"
    )
    with pytest.raises(errors.ServerExited, match="without a token"):
        NohupLauncher(account).launch(launch_spec(environment))
    assert processes(account.uid) == []


# --- directories, ports, shells ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_odd_names_arrive_unchanged(account: Account, environment: Environment, shell: str) -> None:
    odd = "a  b'c\"d$(touch pwned)`id`;&|*?\\中文 -é"
    (account.home / odd).mkdir()
    account.shell = shell
    # A long name of the machine and of the session: the kernels' sockets have paths of at most 107 bytes.
    node = f"{'node' * 12}.example.org"
    shims = account.home / "shims"
    shims.mkdir()
    (shims / "uname").write_text(f"#!/bin/sh\necho {node}\n")
    (shims / "uname").chmod(0o755)
    account.environ = {"PATH": f"{shims}:/usr/bin:/bin"}
    running = NohupLauncher(account).launch(
        launch_spec(environment, dir=f"~/{odd}", name="n" * 40, cuda_visible_devices="")
    )
    assert running.server.root_dir == f"{account.home}/{odd}"
    assert running.server.node == node
    assert running.server.port is not None
    (account.home / odd / "seen.txt").write_text("x")
    listing = get(running.server.port, "/api/contents", running.token)[1]
    assert [entry["name"] for entry in listing["content"]] == ["seen.txt"]
    assert execute(running, "import os; print(repr(os.environ['CUDA_VISIBLE_DEVICES']))").strip() == "''"
    assert not list(account.home.rglob("pwned"))
    assert NohupLauncher(account).stop(running)


def test_a_missing_directory_is_named(account: Account, environment: Environment) -> None:
    with pytest.raises(errors.RemoteFailed, match=r"there is no directory .*/nowhere"):
        NohupLauncher(account).launch(launch_spec(environment, dir="nowhere"))
    assert not session_dir(account).exists()


def test_a_taken_port_is_passed_over(account: Account, environment: Environment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        taken = held.getsockname()[1]
        spare = free_ports(1)[0]
        running = NohupLauncher(account).launch(launch_spec(environment, ports=[taken, spare]))
        assert running.server.port == spare
        with pytest.raises(errors.PortInUse):
            NohupLauncher(account).launch(launch_spec(environment, name="s2", ports=[taken]))
        assert not session_dir(account, "s2").exists()


def test_a_port_lost_during_the_start_is_passed_over(account: Account, environment: Environment) -> None:
    first, second = free_ports(2)
    with ExitStack() as stack:

        def grab(step: str) -> None:
            if step.endswith(f"on port {first}"):
                stack.enter_context(socket.create_server(("127.0.0.1", first)))

        running = NohupLauncher(account).launch(launch_spec(environment, ports=[first, second]), progress=grab)
        assert running.server.port == second


# --- failures leave nothing -------------------------------------------------------------------------------------------


def assert_nothing_left(account: Account) -> None:
    wait_until(lambda: processes(account.uid) == [])
    assert [path for path in Path("/tmp").glob("jm-*") if path.lstat().st_uid == account.uid] == []
    folder = session_dir(account)
    left = {path.name for path in folder.iterdir()} if folder.exists() else set()
    assert left <= {"log"}


def test_a_server_that_ends_at_once_is_reported_with_the_reason(account: Account, environment: Environment) -> None:
    with pytest.raises(errors.ServerExited, match=r"No module named .*notebook") as caught:
        NohupLauncher(account).launch(launch_spec(environment, app="notebook"))
    assert any("No module named" in line for line in caught.value.details["log"])
    assert_nothing_left(account)


def test_a_server_that_never_answers_is_stopped(account: Account) -> None:
    with public_folder() as folder:
        env = build_environment(folder / "hangs")
        (folder / "hangs/bin/jupyter-server").write_text(
            "import signal, subprocess\nprint('here I hang ?token=secret', flush=True)\n"
            "subprocess.Popen(['sleep', '1000'])\nsignal.pause()\n"
        )
        with pytest.raises(errors.LaunchTimedOut) as caught:
            NohupLauncher(account).launch(launch_spec(env, timeout=2))
    assert caught.value.details["log"] == ["here I hang ?token=***"]
    assert_nothing_left(account)


def test_cancelling_leaves_nothing(account: Account, environment: Environment) -> None:
    cancelled = threading.Event()

    def progress(step: str) -> None:
        if step.startswith("waiting"):
            cancelled.set()

    with pytest.raises(errors.Interrupted):
        NohupLauncher(account).launch(launch_spec(environment), progress=progress, cancelled=cancelled)
    assert_nothing_left(account)


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_link_lost_during_the_launch_leaves_nothing(account: Account, environment: Environment, shell: str) -> None:
    account.shell = shell
    account.cut_at = "step waiting"
    with pytest.raises(errors.LinkLost):
        # The Python side cannot reach the host either: the script must notice by itself.
        NohupLauncher(account).launch(launch_spec(environment))
    assert_nothing_left(account)


def test_two_launches_at_once_make_one_server(account: Account, environment: Environment) -> None:
    results: list[Running] = []
    spec = launch_spec(environment)
    threads = [threading.Thread(target=lambda: results.append(NohupLauncher(account).launch(spec))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({running.server.pid for running in results}) == 1
    assert sorted(running.server.adopted for running in results) == [False, True]
    assert not (session_dir(account) / "lock").exists()


def test_a_stale_lock_is_taken_away(account: Account, environment: Environment) -> None:
    lock = session_dir(account) / "lock"
    lock.mkdir(parents=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (lock / "owner").write_text(f"{int(time.time())} 60 {os.getpid()} 1 {boot} someone\n")
    for path in (lock, *list(lock.parents)[:5], lock / "owner"):
        os.chown(path, account.uid, -1)
    assert NohupLauncher(account).launch(launch_spec(environment)).server.pid
    assert not lock.exists()


def test_a_read_only_home_is_named(account: Account, environment: Environment) -> None:
    if account.uid == 0:
        pytest.skip("root writes everywhere")
    account.home.chmod(0o555)
    with pytest.raises(errors.RemoteFailed, match=str(account.home)):
        NohupLauncher(account).launch(launch_spec(environment))
    assert list(account.home.iterdir()) == []


def test_a_full_disk_is_named(account: Account, environment: Environment) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    options = f"size=32k,uid={account.uid},mode=700"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(account.home)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount")
    try:
        # Filled to the last block: nothing more can be written.
        subprocess.run(["dd", "if=/dev/zero", f"of={account.home}/fill", "bs=4096"], check=False, capture_output=True)
        with pytest.raises(errors.RemoteFailed, match="No space left"):
            NohupLauncher(account).launch(launch_spec(environment))
        assert_nothing_left(account)
    finally:
        subprocess.run(["umount", "-l", str(account.home)], check=True)


# --- other people's files ---------------------------------------------------------------------------------------------


def test_a_planted_symlink_is_refused(account: Account, environment: Environment) -> None:
    target = account.home / "elsewhere"
    target.mkdir()
    folder = session_dir(account)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(target)
    for path in (target, *list(folder.parents)[:4]):
        os.chown(path, account.uid, -1)
    with pytest.raises(errors.NotOurs, match="symbolic link"):
        NohupLauncher(account).launch(launch_spec(environment))
    assert list(target.iterdir()) == []
    folder.unlink()
    folder.mkdir(mode=0o700)
    os.chown(folder, account.uid, -1)
    victim = account.home / "victim"
    victim.write_text("precious")
    for name in ("token", "log", "jupyter_config.py"):
        (folder / name).symlink_to(victim)
        with pytest.raises(errors.NotOurs, match="symbolic link"):
            NohupLauncher(account).launch(launch_spec(environment))
        (folder / name).unlink()
        (folder / name).hardlink_to(victim)
        os.chown(victim, account.uid, -1)
        with pytest.raises(errors.NotOurs, match="hard link"):
            NohupLauncher(account).launch(launch_spec(environment))
        (folder / name).unlink()
    assert victim.read_text() == "precious"


def test_directories_that_others_could_write_are_mended_and_those_of_others_refused(
    account: Account, environment: Environment
) -> None:
    folder = session_dir(account)
    folder.mkdir(parents=True)
    for path in (folder, *list(folder.parents)[:4]):
        os.chown(path, account.uid, -1)
        path.chmod(0o777)
    running = NohupLauncher(account).launch(launch_spec(environment))
    for path in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert not (account.home / ".local").stat().st_mode & 0o002
    assert NohupLauncher(account).stop(running)
    if os.getuid() == 0:
        os.chown(folder, 0, 0)
        folder.chmod(0o777)
        with pytest.raises(errors.NotOurs, match="belongs to uid 0"):
            NohupLauncher(account).launch(launch_spec(environment))
