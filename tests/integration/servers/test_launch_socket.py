"""A server on a private UNIX socket, on which no other account can listen or connect."""

from __future__ import annotations

import http.client
import socket
import stat
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from jupyman.host.servers.nohup import NohupLauncher
from jupyman.model import Environment, LaunchSpec, Running
from tests.bed import wait_until
from tests.bed.launches import launch_spec
from tests.bed.local_account import Account, new_account


class Local(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str) -> None:
        super().__init__("127.0.0.1", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def status(path: str, token: str | None = None) -> int:
    connection = Local(path)
    try:
        connection.request("GET", "/api/status", headers={"Authorization": f"token {token}"} if token else {})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture(scope="module")
def lab(environment: Environment) -> Iterator[tuple[Account, Running]]:
    with new_account() as account:
        yield account, NohupLauncher(account).launch(launch_spec(environment, app="lab", sock=True))


def test_it_answers_on_the_socket_with_the_token_only(lab: tuple[Account, Running]) -> None:
    _, running = lab
    assert running.server.port is None
    assert running.sock is not None
    assert len(running.sock) < 40
    assert status(running.sock) == 403
    assert status(running.sock, running.token) == 200
    assert running.endpoint is not None
    assert running.endpoint.target == running.sock


def test_find_and_verify_know_it_again(lab: tuple[Account, Running]) -> None:
    account, running = lab
    [record] = NohupLauncher(account).find().records
    assert record.running == running
    assert NohupLauncher(account).verify(running).ok
    assert NohupLauncher(account).launch(wish_again(running)).server.adopted


def wish_again(running: Running) -> LaunchSpec:
    environment = Environment(
        name="x", prefix="/nowhere", kind="venv", python=None, jupyter=None, ipykernel=None, torch=None, apps=["lab"]
    )
    return launch_spec(environment, name=running.name, app="lab", sock=True)


def test_no_other_account_reaches_it(lab: tuple[Account, Running]) -> None:
    _, running = lab
    assert running.sock is not None
    folder = Path(running.sock).parent
    assert stat.S_IMODE(folder.stat().st_mode) & 0o777 == 0o700
    with new_account() as neighbour:
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({running.sock!r})"
        done = subprocess.run(
            neighbour.command("/usr/bin/env", "python3", "-c", code),
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        assert done.returncode != 0
        assert "PermissionError" in done.stderr
        # Nothing of it listens on a port, either.
        tables = "".join(Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6"))
        uid = str(folder.stat().st_uid)
        assert not [line for line in tables.splitlines() if line.split()[3] == "0A" and line.split()[7] == uid]


def test_another_process_on_the_path_is_not_the_server(environment: Environment) -> None:
    with new_account() as account:
        running = NohupLauncher(account).launch(launch_spec(environment, app="lab", sock=True))
        assert running.sock is not None
        path = Path(running.sock)
        path.rename(path.with_name("moved"))
        assert NohupLauncher(account).verify(running).state == "not-listening"
        code = f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen(); "
        code += "print('ready', flush=True); input()"
        other = subprocess.Popen(
            account.command("/usr/bin/env", "python3", "-c", code),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
        )
        with other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"ready\n"
            assert NohupLauncher(account).verify(running).state == "taken"
            other.kill()
        assert NohupLauncher(account).stop(running)
        assert not path.parent.exists()


def test_a_server_that_is_too_old_gets_a_port(environment: Environment) -> None:
    # Notebook 6 and jupyter_server 1 were never tried with sockets: what says it is one of them gets a port.
    site = next(Path(environment.prefix).glob("lib/python*/site-packages"))
    [info] = site.glob("jupyter_server-*.dist-info")
    kept = (info / "METADATA").read_text()
    try:
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: jupyter_server\nVersion: 1.24.0\n")
        with new_account() as account:
            running = NohupLauncher(account).launch(launch_spec(environment, app="lab", sock=True))
            assert running.sock is None
            assert running.server.port is not None
            assert NohupLauncher(account).verify(running).ok
    finally:
        (info / "METADATA").write_text(kept)


def empty(procs: Path) -> bool:
    return not procs.read_text().strip()


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A memory cgroup of 300 MiB (version 1 or 2), for one process."""
    for parent, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(parent, "jmt-oom")
        try:
            group.mkdir()
            (group / limit).write_text(str(300 * 1024 * 1024))
        except OSError:
            continue
        procs = group / "cgroup.procs"
        try:
            yield group
        finally:
            wait_until(partial(empty, procs))
            group.rmdir()
        return
    pytest.skip("no memory cgroup can be made here")


def test_the_oom_killer_is_named(environment: Environment, memory_group: Path) -> None:
    with new_account() as account:
        running = NohupLauncher(account).launch(launch_spec(environment, app="lab", sock=True))
        pid = running.server.pid
        record = Path(running.directory, "record")
        name = "memory.oom_control" if (memory_group / "memory.oom_control").exists() else "memory.events"
        lines = [
            line for line in record.read_text().splitlines() if not line.startswith(("memory_events", "oom_kills"))
        ]
        # As if it had been started there: the launch itself needs more memory than the group has.
        record.write_text("\n".join([*lines, f"memory_events {memory_group / name}", "oom_kills 0", ""]))
        (memory_group / "cgroup.procs").write_text(str(pid))
        eater = subprocess.Popen(["python3", "-c", "input(); x = bytearray(10**9)"], stdin=subprocess.PIPE)
        with eater:
            (memory_group / "cgroup.procs").write_text(str(eater.pid))
            assert eater.stdin is not None
            eater.stdin.write(b"\n")
            eater.stdin.close()
            assert eater.wait(30) == -9
        subprocess.run(["kill", "-9", str(pid)], check=True)
        wait_until(lambda: NohupLauncher(account).verify(running).state == "exited")
        seen = NohupLauncher(account).verify(running)
        assert seen.code == "server-killed"
        assert "out of memory" in seen.text


def test_an_older_record_with_a_port_is_still_understood(lab: tuple[Account, Running]) -> None:
    account, running = lab
    old = msgspec.structs.replace(running, sock=None, server=msgspec.structs.replace(running.server, port=1))
    assert NohupLauncher(account).verify(old).state == "not-listening"
