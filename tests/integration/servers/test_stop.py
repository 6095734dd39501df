"""The end of a server, and servers that jupyman did not start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyman.host.servers import listing
from jupyman.host.servers.nohup import NohupLauncher
from jupyman.model import Environment
from tests.bed import wait_until
from tests.bed.launches import execute, launch_spec, runtime_dir
from tests.bed.local_account import Account, alive, processes
from tests.bed.ports import free_ports

# --- the end of a server ----------------------------------------------------------------------------------------------


def test_stop_takes_kernels_and_their_children_along(account: Account, environment: Environment) -> None:
    running = NohupLauncher(account).launch(launch_spec(environment))
    code = """
import subprocess
child = subprocess.Popen(["sleep", "1000"])
print(child.pid)
subprocess.Popen(["sh", "-c", "trap '' TERM HUP; sleep 1000 & wait; wait"])
"""
    child = int(execute(running, code))
    runtime = runtime_dir(running)
    assert alive(child)
    assert NohupLauncher(account, "tester@here").stop(running)
    assert not alive(running.server.pid)
    assert processes(account.uid) == []
    assert not runtime.exists()
    left = {path.name for path in Path(running.directory).iterdir()}
    assert left == {"log", "record"}
    liveness = NohupLauncher(account).verify(running)
    assert liveness.state == "exited"
    assert liveness.stopped_by is not None
    assert liveness.stopped_by.endswith("tester@here")
    record = NohupLauncher(account).find().records[0]
    assert not record.alive
    assert record.stopped_by == liveness.stopped_by
    assert NohupLauncher(account).stop(running)


def test_a_killed_server_is_seen_and_its_successor_has_the_same_token(
    account: Account, environment: Environment
) -> None:
    running = NohupLauncher(account).launch(launch_spec(environment))
    child = int(execute(running, "import subprocess; print(subprocess.Popen(['sleep', '1000']).pid)"))
    runtime = runtime_dir(running)
    os.kill(running.server.pid, signal.SIGKILL)
    wait_until(lambda: not alive(running.server.pid))
    liveness = NohupLauncher(account).verify(running)
    assert liveness.state == "exited"
    assert liveness.stopped_by is None
    assert liveness.log
    assert running.token not in "".join(liveness.log)
    after = NohupLauncher(account).launch(launch_spec(environment))
    assert after.server.pid != running.server.pid
    assert after.token == running.token
    # What the dead server's kernels left is gone, with its runtime directory.
    wait_until(lambda: not alive(child))
    assert not runtime.exists()


def test_a_server_that_ignores_sigterm_needs_force(account: Account, environment: Environment) -> None:
    (account.home / ".jupyter").mkdir()
    (account.home / ".jupyter/jupyter_server_config.py").write_text(
        "import signal, jupyter_server.serverapp as s\ns.ServerApp._signal_stop = lambda self, *a: None\n"
    )
    running = NohupLauncher(account).launch(launch_spec(environment))
    assert not NohupLauncher(account).stop(running, grace=1)
    assert NohupLauncher(account).verify(running).ok
    assert NohupLauncher(account).find().records[0].stopped_by is None
    assert NohupLauncher(account).stop(running, grace=1, force=True)
    assert processes(account.uid) == []


# --- servers that jupyman did not start -------------------------------------------------------------------------------


@contextmanager
def by_hand(account: Account, env: Environment, *options: str) -> Iterator[int]:
    process = subprocess.Popen(
        account.command(f"{env.prefix}/bin/python", f"{env.prefix}/bin/jupyter-server", *options),
        env=account.variables(),
        cwd=account.home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        runtime = account.home / ".local/share/jupyter/runtime" / f"jpserver-{process.pid}.json"
        wait_until(lambda: runtime.exists() and runtime.stat().st_size)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_a_server_started_by_hand_is_found_adopted_and_stopped(account: Account, environment: Environment) -> None:
    port = free_ports(1)[0]
    options = (f"--ServerApp.port={port}", "--IdentityProvider.token=mine", "--ServerApp.base_url=/x", "--allow-root")
    with by_hand(account, environment, *options) as pid:
        found = wait_until(lambda: NohupLauncher(account).find().servers)[0]
        assert (found.pid, found.port, found.token, found.base_url) == (pid, port, "mine", "/x/")
        assert found.app == "server"
        assert not found.exposed
        loose = NohupLauncher(account).adopt(found, record=False)
        assert loose.directory == ""
        assert NohupLauncher(account).verify(loose).ok
        running = NohupLauncher(account).adopt(found, name="taken")
        assert NohupLauncher(account).verify(running).ok
        # Another computer sees the session, and the token where Jupyter keeps it.
        seen = NohupLauncher(account).find()
        assert seen.servers == []
        assert [(record.name, record.running.token) for record in seen.records] == [("taken", "mine")]
        assert NohupLauncher(account).adopt(seen.records[0]).server.adopted
        assert "mine" not in Path(running.directory, "record").read_text().split()
        assert NohupLauncher(account).stop(running)
        assert processes(account.uid) == []


def test_an_open_server_and_stale_files_are_named(account: Account, environment: Environment) -> None:
    runtime = account.home / ".local/share/jupyter/runtime"
    port = free_ports(1)[0]
    options = (f"--ServerApp.port={port}", "--IdentityProvider.token=", "--ServerApp.ip=0.0.0.0", "--allow-root")
    with by_hand(account, environment, *options) as pid:
        stale = {"pid": pid, "port": 1, "token": "t", "base_url": "/", "root_dir": "/"}
        (runtime / "jpserver-999999.json").write_text(json.dumps(stale, indent=1))
        (runtime / "nbserver-1.json").write_text(json.dumps({**stale, "pid": 1}))
        found = wait_until(lambda: NohupLauncher(account).find().servers)
        assert [server.pid for server in found] == [pid]
        row = listing.rows("h", NohupLauncher(account).find())[0]
        assert {problem.code for problem in row.problems} == {"server-exposed", "server-open"}
        assert (runtime / "jpserver-999999.json").exists()


def test_records_of_another_node_are_only_named(account: Account) -> None:
    other = account.home / ".local/state/jupyman/node-b/s9"
    other.mkdir(parents=True)
    (other / "record").write_text("version 1\nname s9\npid 1\nstart_ticks 1\n")
    os.chown(other / "record", account.uid, -1)
    found = NohupLauncher(account).find()
    assert found.records == []
    assert found.elsewhere == [("node-b", "s9")]
