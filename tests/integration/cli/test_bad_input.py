"""Wrong arguments and files: refused by the real command line with two lines and a status before any change."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed import Cli, User, wait_until
from tests.bed.aftermath import NOTHING, no_traceback, nothing_left, refused, says, tells
from tests.bed.ports import free_port

NO_NAMES = [
    "a'b",
    'a"b',
    "$(touch pwned)",
    "`touch pwned`",
    "a;b",
    "a\nb",
    "a b",
    "-x",
    "--",
    "../x",
    ".x",
    "",
    "x" * 300,
]
NO_HOSTS = [
    "a'b",
    'a"b',
    "$(touch pwned)",
    "`touch pwned`",
    "a;b",
    "a|b",
    "a&b",
    "a\nb",
    "a b",
    "a\\b",
    "-x",
    "",
    "x" * 300,
]
NO_PORTS = ["0", "70000", "abc", "-1", "8888.0", "\u0661"]


@pytest.fixture
def alone(jupyman_home: Path) -> Cli:
    """A command line without a host."""
    return Cli(jupyman_home)


def untouched(cli: Cli, *words: str) -> None:
    """Assert that a command is refused without a daemon."""
    says(cli(*words), 2)
    assert not cli.home.exists()
    assert not (cli.user_home / "pwned").exists()


@pytest.mark.parametrize(
    "wish",
    [
        ("--torch", "nine"),
        ("--torch", "2.5.1+cu121", "--cuda", "cu124"),
        ("--cuda", "99"),
        ("--python", "2"),
        ("--packages=--prefix=/",),
        ("--channel", "-x"),
    ],
)
def test_what_no_environment_can_be_made_of_is_refused_before_the_login(cli: Cli, wish: tuple[str, ...]) -> None:
    says(cli("env", "create", "work", "server1", *wish), 2)
    hosts = cli("host", "ls", "--json").json["hosts"]
    assert {one["link"]["state"] if one.get("link") else "idle" for one in hosts} == {"idle"}
    assert not (cli.user_home / "pwned").exists()


def test_what_no_session_is_called(alone: Cli) -> None:
    for name in NO_NAMES:
        untouched(alone, "up", "server1", f"--name={name}")
    tells(alone("up", "server1", "--json", "--name=../x"), 2, "usage")
    assert not alone.processes()


def test_what_no_host_is_called(alone: Cli) -> None:
    for host in NO_HOSTS:
        untouched(alone, "up", "--", host)
    untouched(alone, "tunnel", "8888", "--host=$(touch pwned)")
    untouched(alone, "kill", "--", "$(touch pwned):8888")
    untouched(alone, "check", "a;b")
    tells(alone("up", "--json", "--", "-x"), 2, "usage")
    assert not alone.processes()


def test_what_is_no_port(alone: Cli) -> None:
    for port in NO_PORTS:
        untouched(alone, "up", "server1", f"--port={port}")
        untouched(alone, "tunnel", "--", port)
    for port in NO_PORTS[:2]:
        untouched(alone, "up", "server1", f"--local-port={port}")
        untouched(alone, "tunnel", f"8888:{port}", "server1")
        untouched(alone, "kill", port, "--host", "server1")
        untouched(alone, "kill", f"server1:{port}")
    tells(alone("up", "server1", "--port", "abc", "--json"), 2, "usage")
    assert not alone.processes()


def test_sessions_that_do_not_exist(alone: Cli) -> None:
    for name in ("abc", "$(touch pwned)", "../x", "x" * 300):
        ran = refused(alone, "kill", name, status=2, code="unknown-session")
        assert "sessions here: none" in ran.stderr
    for verb in ("down", "url", "open", "logs"):
        says(alone(verb, "abc"), 2)
    assert not (alone.user_home / "pwned").exists()
    no_traceback(alone)


def test_a_host_in_another_folder(cli: Cli, user: User) -> None:
    for host in ("../x", "..", "server1/../x"):
        refused(cli, "up", host, status=2, code="unknown-host" if "x" in host else "usage")
    nothing_left(cli, user)


# --- config.toml --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("default_host = 'server1'\n[defaults\n", 2, "TOML"),
        ("default_host = 'server1'\n\ncolour = true\n", 3, "colour"),
        ("[hosts.server1]\nenv = 'lab'\nenviron = 'lab'\n", 3, "environ"),
        ("[defaults]\nport = 70000\n", 2, "70000"),
        ("[defaults]\napp = 'rstudio'\n", 2, "rstudio"),
        ("[hosts.server1]\n\nssh = '-oProxyCommand=x'\n", 3, "host"),
        ("[hosts.'a/b']\n", 1, "a/b"),
    ],
)
def test_a_broken_config(alone: Cli, text: str, line: int, word: str) -> None:
    alone.home.mkdir()
    config = alone.home / "config.toml"
    config.write_text(text)
    ran = alone("up", "server1")
    says(ran, 2)
    assert f"{config} line {line}" in ran.stderr
    assert word in ran.stderr
    told = alone("ps", "--json")
    tells(told, 2, "bad-config")
    assert told.json["error"]["details"] == {"file": str(config), "line": line}
    assert [path.name for path in alone.home.iterdir()] == ["config.toml"]
    assert config.read_text() == text


def test_a_config_that_breaks_while_the_daemon_runs(alone: Cli) -> None:
    assert alone("ps").rc == 0
    config = alone.home / "config.toml"
    config.write_text("[defaults]\nprot = 1\n")
    assert f"{config} line 2" in refused(alone, "ps", status=2, code="bad-config").stderr
    config.write_text("[defaults]\nport = 1\n")
    assert alone("ps").rc == 0
    no_traceback(alone)


# --- the SSH configuration ----------------------------------------------------------------------------------------


def test_an_ssh_config_that_is_not_there(cli: Cli, user: User) -> None:
    for missing in (cli.user_home / "absent", cli.user_home, Path("~nobody-at-all/config")):
        cli.ssh_config = missing
        assert str(missing) in refused(cli, "up", "server1", status=2, code="bad-config").stderr
    nothing_left(cli, user)


def test_an_ssh_config_with_a_mistake(cli: Cli, user: User, ssh_config: Path) -> None:
    cli.ssh_config = cli.user_home / "ssh_config"
    cli.ssh_config.write_text(f"{ssh_config.read_text()}\nHost other\n    Bogus yes\n    Port abc\n")
    line = len(ssh_config.read_text().splitlines()) + 3
    ran = refused(cli, "up", "server1", status=2, code="bad-config")
    assert f"{cli.ssh_config}: line {line}: Bad configuration option: bogus" in ran.stderr
    nothing_left(cli, user)


def test_an_ssh_config_named_from_the_users_folder(cli: Cli, ssh_config: Path) -> None:
    (cli.user_home / "mine").write_text(ssh_config.read_text())
    for name in ("mine", "./mine", "~/mine"):
        cli.ssh_config = Path(name)
        assert cli("env", "ls", "server1", env={"JUPYMAN_SSH_CONFIG": name}).rc == 0
        assert cli("daemon", "stop").rc == 0  # and with it the link


# --- files of our own ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 0.7], ids=["empty", "a-part"])
def test_a_state_file_cut_short(cli: Cli, user: User, left: float) -> None:
    local = free_port()
    assert cli("tunnel", f"{local}:22", "server1").rc == 0
    assert cli("daemon", "stop").rc == 0
    state = cli.home / "state" / "state.json"
    before = state.read_bytes()
    assert str(local).encode() in before
    state.write_bytes(before[: int(len(before) * left)])
    shown = cli("ps", "--json")
    assert shown.rc == 0, shown  # the last good copy was written before the forward was made
    broken = list(state.parent.glob("state.json.broken-*"))
    assert len(broken) == 1
    assert "could not be read" in "".join(log.read_text() for log in cli.home.rglob("*.log"))
    assert cli("tunnel", f"{local}:22", "server1").rc == 0
    assert [one["local"] for one in cli("ps", "--json").json["forwards"]] == [f"127.0.0.1:{local}"]
    assert cli("tunnel", str(local), "server1", "--close").rc == 0
    nothing_left(cli, user)


@pytest.fixture
def address(alone: Cli) -> Path:
    """The daemon's file, of one that was stopped."""
    assert alone("daemon", "start").rc == 0
    file = alone.home / "run" / "daemon.json"
    honest = file.read_text()
    assert alone("daemon", "stop").rc == 0
    file.write_text(honest)
    return file


def test_a_daemon_file_that_names_another_process(alone: Cli, address: Path) -> None:
    honest = json.loads(address.read_text())
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with subprocess.Popen(["sleep", "600"]) as other, http_server(answer) as (port, asked):
        try:
            address.write_text(json.dumps({**honest, "pid": other.pid, "port": port}))
            says(alone("daemon", "status"), 40)
            assert alone("daemon", "stop", "--json").json == {"stopped": False}
            assert alone("ps", "--json").json == NOTHING
            assert asked  # it was taken for the daemon, and did not pass
            assert json.loads(address.read_text())["pid"] not in {other.pid, honest["pid"]}
            assert other.poll() is None
        finally:
            other.kill()
    no_traceback(alone)


@contextlib.contextmanager
def http_server(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Give everybody the same answer; yields the port, and what was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        asked.append(connection.recv(4096))
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], asked
        listener.shutdown(socket.SHUT_RDWR)


def test_a_daemon_file_that_lies(alone: Cli, address: Path) -> None:
    honest = json.loads(address.read_text())
    with subprocess.Popen(["true"]) as gone:
        pass
    lies = [
        json.dumps({**honest, "pid": gone.pid}),
        json.dumps({**honest, "pid": -1}),
        json.dumps({**honest, "pid": os.getpid(), "port": 10**9}),
        json.dumps(honest)[:40],
        "[]",
        "",
    ]
    for lie in lies:
        address.write_text(lie)
        says(alone("daemon", "status"), 40)
        assert alone("daemon", "stop", "--json").json == {"stopped": False}
    assert alone("ps", "--json").json == NOTHING
    address.write_text(lies[0])  # while one runs: it tells again where it is
    assert alone("ps", "--json").json == NOTHING
    address.unlink()
    assert alone("ps", "--json").json == NOTHING
    wait_until(lambda: len(alone.processes()) == 1)  # those that found the lock held end
    no_traceback(alone)
