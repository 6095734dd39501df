"""The daemon as a process: one for each user, found again, replaced after its end, and nothing left."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

import jupyman.cli.daemon
import jupyman.client
import jupyman.local.spawn
from jupyman import api, paths
from jupyman.daemon import log as daemon_log
from jupyman.daemon.lock import Lock
from jupyman.local import daemon_file as address
from tests import fakes

WAIT = 30.0  # seconds that a process may take on a busy machine
COMMAND = [sys.executable, "-m", "jupyman"]


def environ(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "JUPYMAN_"))}
    return {**kept, "JUPYMAN_HOME": str(home)}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty JUPYMAN_HOME; a daemon that is left in it is ended."""
    for name, value in environ(tmp_path).items():
        monkeypatch.setenv(name, value)  # the daemon is started with ours
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("JUPYMAN_SSH_CONFIG", raising=False)
    yield tmp_path
    fakes.run(tmp_path, "daemon", "stop")
    assert address.read(where(tmp_path).daemon_file) is None


def where(home: Path) -> paths.Paths:
    return paths.find({"JUPYMAN_HOME": str(home)})


def here(home: Path) -> address.DaemonAddress:
    found = address.read(where(home).daemon_file)
    assert found is not None
    return found


def start(home: Path) -> address.DaemonAddress:
    result = fakes.run(home, "daemon", "start")
    assert result.status == 0, result.stderr
    return here(home)


def ended(pid: int) -> bool:
    """Wait for the end of a process, also of a child of ours."""
    try:
        psutil.Process(pid).wait(WAIT)
    except psutil.NoSuchProcess:
        return True
    return not psutil.pid_exists(pid)


def served(home: Path) -> int:
    return where(home).log_file.read_text().count(" serves on ")


def test_start_status_stop(home: Path) -> None:
    assert fakes.run(home, "daemon", "status").status == 40
    assert not list(home.iterdir())
    found = start(home)
    assert psutil.Process(found.pid).create_time() == found.create_time
    for file in (where(home).daemon_file, where(home).log_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for folder in (where(home).state, where(home).runtime):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert found.token not in where(home).log_file.read_text()
    assert found.token not in " ".join(psutil.Process(found.pid).cmdline())
    listening = [one.laddr for one in psutil.Process(found.pid).net_connections("inet") if one.status == "LISTEN"]
    assert [(one.ip, one.port) for one in listening] == [("127.0.0.1", found.port)]
    status = fakes.run(home, "daemon", "status", "--json").json
    assert (status["pid"], status["log"]) == (found.pid, str(where(home).log_file))
    assert start(home) == found
    assert fakes.run(home, "daemon", "stop", "--json").json == {"stopped": True}
    assert ended(found.pid)
    assert not where(home).daemon_file.exists()
    assert fakes.run(home, "daemon", "stop", "--json").json == {"stopped": False}
    assert "serves on" in fakes.run(home, "daemon", "logs").stdout


def test_it_may_open_more_files_than_a_terminal(home: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        found = start(home)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert psutil.Process(found.pid).rlimit(resource.RLIMIT_NOFILE) == (min(65536, hard), hard)


def test_a_second_daemon_is_refused(home: Path) -> None:
    first = start(home)
    second = subprocess.run([*COMMAND, "daemon", "run"], env=environ(home), capture_output=True, text=True, check=False)
    assert second.returncode == 40
    assert "error: a daemon is already running" in second.stderr
    assert here(home) == first
    assert fakes.run(home, "ps").status == 0


def test_many_that_start_at_once_share_one(home: Path) -> None:
    def ps() -> subprocess.CompletedProcess[str]:
        words = [*COMMAND, "daemon", "start", "--json"]
        return subprocess.run(words, env=environ(home), capture_output=True, text=True, check=False, timeout=WAIT * 2)

    with ThreadPoolExecutor(6) as pool:
        results = [future.result() for future in [pool.submit(ps) for _ in range(6)]]
    assert [result.stderr for result in results if result.returncode] == []
    assert {json.loads(result.stdout)["pid"] for result in results} == {here(home).pid}
    assert served(home) == 1


def test_after_kill_9_the_next_command_starts_another(home: Path) -> None:
    first = start(home)
    os.kill(first.pid, signal.SIGKILL)
    assert ended(first.pid)
    assert here(home) == first  # nothing could be tidied up
    result = fakes.run(home, "ps", "--json")
    assert result.json == {"sessions": [], "forwards": [], "servers": []}
    assert here(home).pid != first.pid
    assert here(home).token != first.token


@pytest.mark.parametrize("listens", ["nobody", "silent", "rude", "other web server"])
def test_stale_file_whose_pid_is_another_process(home: Path, listens: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jupyman.client, "HELLO_TIMEOUT", 0.5)
    where(home).make()
    said = {"rude": b"220 mail.example.org\r\n", "other web server": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"}
    with socket.create_server(("127.0.0.1", 0)) as listener, subprocess.Popen(["sleep", "600"]) as other:
        port = listener.getsockname()[1]
        if listens == "nobody":
            listener.close()
        elif listens in said:
            threading.Thread(target=greet, args=(listener, said[listens]), daemon=True).start()
        stale = address.DaemonAddress(pid=other.pid, create_time=1.0, port=port, token="old", version="0")
        address.write(where(home).daemon_file, stale)
        assert fakes.run(home, "ps").status == 0
        assert here(home).pid != other.pid
        assert fakes.run(home, "daemon", "stop").status == 0
        address.write(where(home).daemon_file, stale)
        assert fakes.run(home, "daemon", "stop", "--json").json == {"stopped": False}
        assert other.poll() is None  # never signalled
        other.kill()
        where(home).daemon_file.unlink()


def greet(listener: socket.socket, text: bytes) -> None:
    """Say the same to the first who connects, and hang up."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(text)


def test_broken_file(home: Path) -> None:
    where(home).make()
    where(home).daemon_file.write_text("{")
    assert fakes.run(home, "ps").status == 0
    assert fakes.run(home, "daemon", "status").status == 0


def test_sigterm_leaves_nothing_and_sighup_is_outlived(home: Path) -> None:
    with subprocess.Popen([*COMMAND, "daemon", "run"], env=environ(home), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "serves on" in process.stderr.readline()  # in the foreground it says so
        process.send_signal(signal.SIGHUP)
        assert fakes.run(home, "daemon", "status", "--json").json["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 0
        assert "daemon ended" in process.stderr.read()
    assert not where(home).daemon_file.exists()


def test_ctrl_c_ends_one_in_the_foreground(home: Path) -> None:
    with subprocess.Popen([*COMMAND, "daemon", "run"], env=environ(home), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT) == 0
    assert not where(home).daemon_file.exists()


def test_one_that_hangs_is_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jupyman.client, "HELLO_TIMEOUT", 0.5)
    monkeypatch.setattr(jupyman.cli.daemon, "STOP_TIMEOUT", 0.5)
    first = start(home)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        assert fakes.run(home, "daemon", "status").status == 40
        monkeypatch.setattr(jupyman.client, "HELLO_TIMEOUT", 5.0)
        assert fakes.run(home, "daemon", "restart").status == 0
    finally:
        if psutil.pid_exists(first.pid):
            os.kill(first.pid, signal.SIGCONT)
    assert ended(first.pid)
    assert here(home).pid != first.pid


def test_one_that_is_still_ending_is_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where(home).make()
    lock = Lock(where(home).runtime / "daemon.lock")
    real = jupyman.local.spawn.spawn
    losers: list[int] = []

    def spawn(places: paths.Paths) -> subprocess.Popen[bytes]:
        process = real(places)
        if not losers:
            losers.append(process.wait(WAIT))
            lock.release()  # the one before has ended: now somebody must start another
        return process

    monkeypatch.setattr(jupyman.local.spawn, "spawn", spawn)
    assert fakes.run(home, "ps").status == 0
    assert losers == [40]
    assert served(home) == 1


def test_a_daemon_that_cannot_start_names_its_log(home: Path) -> None:
    where(home).make()
    where(home).state_file.write_text('{"version": 999}')
    result = fakes.run(home, "ps")
    assert result.status == 41
    assert str(where(home).log_file) in result.stderr
    assert "999" in where(home).log_file.read_text()
    assert where(home).state_file.read_text() == '{"version": 999}'


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = fakes.run(tmp_path / "file" / "home", "ps")
    assert result.status == 40
    assert "cannot be started" in result.stderr


# --- the command line as a process --------------------------------------------------------------------------------


def test_ctrl_c_cancels_and_exits_130(tmp_path: Path) -> None:
    cancelled = threading.Event()

    def work(request: api.Up, operation: api.Operation) -> Any:
        del request
        operation.emit(api.Step(key="a", text="first", state="done"))
        if operation.cancelled.wait(WAIT):
            cancelled.set()

    with fakes.serving(tmp_path) as daemon:
        daemon.backend.scripts[api.Up] = work
        words = [*COMMAND, "up", "server1"]
        with subprocess.Popen(words, env=environ(tmp_path), stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert "first" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT) == 130
            assert "error: interrupted" in process.stderr.read().splitlines()
        assert cancelled.wait(WAIT)


def test_a_reader_that_has_enough(tmp_path: Path) -> None:
    def work(request: api.Logs, operation: api.Operation) -> Any:
        del request
        while not operation.cancelled.is_set():
            operation.emit(api.Output(line="x" * 10_000))

    with fakes.serving(tmp_path) as daemon:
        daemon.backend.scripts[api.Logs] = work
        words = [*COMMAND, "logs", "-f"]
        pipe = subprocess.PIPE
        with subprocess.Popen(words, env=environ(tmp_path), stdout=pipe, stderr=pipe, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(1)
            process.stdout.close()
            assert process.wait(WAIT) == 0
            assert process.stderr.read() == ""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_without_unicode(tmp_path: Path, encoding: str) -> None:
    variables = {**environ(tmp_path), "PYTHONIOENCODING": encoding}
    with fakes.serving(tmp_path) as daemon:
        daemon.backend.answers[api.Url] = {"name": "x", "url": "http://✓日本"}
        shown = subprocess.run([*COMMAND, "url"], env=variables, capture_output=True, check=False)
        as_json = subprocess.run([*COMMAND, "url", "--json"], env=variables, capture_output=True, check=False)
    assert (shown.returncode, shown.stdout) == (0, b"http://???\n")
    assert json.loads(as_json.stdout)["url"] == "http://✓日本"


# --- the log ------------------------------------------------------------------------------------------------------


def test_log_is_private_small_and_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_log, "SIZE", 2000)
    root, hook = logging.getLogger(), threading.excepthook
    before, level = root.handlers[:], root.level
    path = tmp_path / "daemon.log"
    handlers = daemon_log.set_up(path, foreground=False)
    try:
        log = logging.getLogger("test")
        for _ in range(100):
            log.warning("GET %s", "http://127.0.0.1:8888/lab?token=s3cret&x=1")
        log.warning("Authorization: Bearer s3cret")
        try:
            int("http://127.0.0.1/?code=s3cret")
        except ValueError:
            log.exception("a traceback")
        thread = threading.Thread(target=lambda: 1 // 0, name="broken")
        thread.start()
        thread.join()
    finally:
        for handler in handlers:
            handler.close()
        root.handlers[:], threading.excepthook = before, hook
        root.setLevel(level)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4
    text = "".join(file.read_text() for file in files)
    assert "s3cret" not in text
    assert "token=…&x=1" in text
    assert "thread broken failed" in text
    assert "ZeroDivisionError" in text
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
