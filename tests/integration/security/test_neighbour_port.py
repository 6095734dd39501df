"""Another account of the host listens in place of the user's Jupyter: it receives no byte."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed import Bed, Cli, Network, Sshd, User, impostor, wait_until

PORT = 8888  # the host has a network of its own in these tests


class Impostor:
    """The neighbour's program; `heard` is all that it was sent."""

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self.process = process
        self._path = path

    def ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "READY\n"

    @property
    def heard(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""


Play = Callable[[], contextlib.AbstractContextManager[Impostor]]


@pytest.fixture
def play(users: Callable[[str], User], network: Network) -> Play:
    """Start the impostor as the neighbour, on the host."""
    neighbour = users("other")

    @contextlib.contextmanager
    def start() -> Iterator[Impostor]:
        path = neighbour.home / "heard"
        text = Path(impostor.__file__).read_text()
        words = ["setpriv", f"--reuid={neighbour.uid}", f"--regid={neighbour.gid}", "--clear-groups"]
        words = [*network.prefix, *words, sys.executable, "-c", text, str(PORT), str(path)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/") as process:
            try:
                yield Impostor(process, path)
            finally:
                process.kill()

    return start


def up(far_cli: Cli, *options: str) -> dict[str, Any]:
    made = far_cli("up", "server1", "--no-browser", "--json", *options)
    assert made.rc == 0, made
    found: dict[str, Any] = made.json
    return found


def session(far_cli: Cli) -> dict[str, Any]:
    found: dict[str, Any] = far_cli("ps", "--json").json["sessions"][0]
    return found


def browse(local: int) -> tuple[int, str]:
    """What a browser gets that sends its cookie and its token."""
    connection = http.client.HTTPConnection("127.0.0.1", local, timeout=30)
    headers = {"Cookie": "username-127=secret", "Authorization": "token secret", "Accept": "text/html"}
    try:
        connection.request("GET", "/lab?token=secret", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def local_port(one: dict[str, Any]) -> int:
    return int(one["forwards"][0]["local"].rsplit(":", 1)[1])


def test_another_users_listener_is_skipped(far_cli: Cli, play: Play) -> None:
    with play() as there:
        there.ready()
        made = far_cli("up", "server1", "--no-browser", "--json", "--port", str(PORT))
        assert made.rc == 0, made
        assert made.json["server"]["port"] != PORT
        assert "not yours" in made.stderr
        assert there.heard == b""


def test_a_port_that_another_user_takes_before_the_start_is_skipped(
    far_cli: Cli, play: Play, user: User, fresh_bed: Bed
) -> None:
    # The first look finds the port free; before the launch looks again, the neighbour has it. The launch runs mktemp
    # in between: a program in its place waits for him.
    held = fresh_bed.folder / "held"
    held.unlink(missing_ok=True)
    user.program(
        "mktemp",
        f'#!/bin/sh\n: >{user.home}/reached\nwhile [ ! -e {held} ]; do sleep 0.02; done\nexec /usr/bin/mktemp "$@"\n',
    )
    with far_cli.start("up", "server1", "--no-browser", "--json", "--port", str(PORT)) as started:
        wait_until((user.home / "reached").exists, what="the launch")
        with play() as there:
            there.ready()
            held.touch()
            out, err = started.communicate(timeout=60)
            assert started.returncode == 0, err
            assert f'"port":{PORT},' not in out
            assert there.heard == b""


def test_another_users_listener_on_the_port_of_a_dead_server_during_an_outage(
    far_cli: Cli, play: Play, far_sshd: Sshd, user: User
) -> None:
    made = up(far_cli, "--port", str(PORT))
    assert made["server"]["port"] == PORT
    far_sshd.stop()
    wait_until(lambda: session(far_cli)["link"]["state"] == "reconnecting", what="the loss of the link")
    user.run("kill", "-9", str(made["server"]["pid"]))
    with play() as there:
        there.ready()
        far_sshd.start()
        wait_until(lambda: session(far_cli)["state"] == "exited", what="word of the end", timeout=40)
        status, body = browse(local_port(made))
        assert status == 503
        assert "has ended" in body
        assert there.heard == b""
        # Nor does starting it again lead anybody there.
        assert up(far_cli)["server"]["port"] != PORT
        assert there.heard == b""


def test_a_server_whose_port_was_taken_is_not_called_running(far_cli: Cli, play: Play, user: User) -> None:
    made = up(far_cli, "--port", str(PORT))
    with play() as there:
        # He waits for his chance, and gets the port in the moment in which the server dies.
        user.run("kill", "-9", str(made["server"]["pid"]))
        there.ready()
        wait_until(lambda: session(far_cli)["state"] == "exited", what="word of the end", timeout=40)
        heard = there.heard
        assert browse(local_port(made))[0] == 503
        assert there.heard == heard == b""


def test_on_a_private_socket_there_is_nothing_to_take(far_cli: Cli, play: Play, user: User) -> None:
    made = up(far_cli)
    assert made["server"]["port"] is None
    assert made["forwards"][0]["remote"].startswith("unix:/tmp/jm-")
    with play() as there:
        there.ready()
        user.run("kill", "-9", str(made["server"]["pid"]))
        assert browse(local_port(made))[0] in {0, 503}
        wait_until(lambda: session(far_cli)["state"] == "exited", what="word of the end", timeout=40)
        assert browse(local_port(made))[0] == 503
        assert there.heard == b""
