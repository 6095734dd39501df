"""`kill` asks before it ends busy kernels; the failure of one target or host hides no other."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.bed import Bed, Cli, User, wait_until
from tests.bed.http import get
from tests.bed.notebooks import Kernel, local_port, quietly, served, token
from tests.bed.ports import free_ports
from tests.bed.terminal import Terminal

NOTEBOOK = "deep/analysis of $(x).ipynb"


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def notebook(session: dict[str, Any], path: str = NOTEBOOK) -> str:
    """Open a notebook as JupyterLab does; returns its kernel's id."""
    wish = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
    status, made = get(local_port(session), "/api/sessions", token(session), "POST", wish)
    assert status == 201, made
    found: str = made["kernel"]["id"]
    return found


@contextlib.contextmanager
def at_work(session: dict[str, Any], kernel: str) -> Iterator[None]:
    """Let a kernel run a cell that has no end, and the server know it."""
    import websocket

    address = f"ws://127.0.0.1:{local_port(session)}/api/kernels/{kernel}/channels"
    message = uuid.uuid4().hex
    header = {"msg_id": message, "msg_type": "execute_request", "username": "", "session": message, "version": "5.3"}
    content = {"code": "import time\nwhile True: time.sleep(1)", "silent": False, "store_history": False}
    request = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    with contextlib.closing(
        websocket.create_connection(address, header=[f"Authorization: token {token(session)}"], timeout=60)
    ) as channels:
        channels.send(json.dumps({**request, "buffers": []}))
        wait_until(lambda: served(session, f"/api/kernels/{kernel}")[1]["execution_state"] == "busy", what="the work")
        yield


@pytest.fixture
def session(cli: Cli, user: User) -> dict[str, Any]:
    return quietly(cli, "server1", "--app", "server")


def test_without_a_terminal_kernels_at_work_need_a_yes(cli: Cli, session: dict[str, Any]) -> None:
    pid = session["server"]["pid"]
    idle, busy = Kernel(session), notebook(session)
    assert idle.run(session, "print(1)") == "1\n"
    with at_work(session, busy):
        ran = cli("kill", "server1", input="y\n")
        assert ran.rc == 2, ran
        *_, error, hint = ran.stderr.splitlines()
        assert re.fullmatch(
            re.escape(f"error: kernels of session server1 are busy: {NOTEBOOK}")
            + r" \(since \d\d:\d\d:\d\d or before\); it was not stopped",
            error,
        )
        assert hint == "hint: -y stops it anyway"
        told = cli("kill", "server1", "--json")
        assert told.rc == 2, told
        [named] = told.json["error"]["details"]["busy"]
        assert (named["kernel"], named["notebook"]) == (busy, NOTEBOOK)
        assert alive(pid)
        assert served(session, f"/api/kernels/{busy}")[1]["execution_state"] == "busy", "it works on"
        ran = cli("kill", "-y", "server1")
        assert ran.rc == 0, ran
        assert not alive(pid)


def test_on_a_terminal_it_is_asked(cli: Cli, session: dict[str, Any]) -> None:
    pid = session["server"]["pid"]
    kernel = Kernel(session)
    question = "Kernels of session server1 are busy: "
    with at_work(session, kernel.id):
        for keys in ("n\n", "\n", "\x03"):
            with Terminal(cli, "kill", "server1") as terminal:
                terminal.expect(f"{question}kernel {kernel.id[:8]} (since ")
                terminal.expect("Stop it anyway? [y/N]")
                terminal.type(keys)
                ran = terminal.end()
            assert ran.rc == 130, ran
            assert alive(pid)
        # A port's question has been answered already, and is the only one.
        with Terminal(cli, "kill", str(session["server"]["port"])) as terminal:
            terminal.expect("is the server of session server1. Stop it? [y/N]")
            terminal.type("n\n")
            assert terminal.end().rc == 130
            assert question not in terminal.seen
        with Terminal(cli, "kill", "server1") as terminal:
            terminal.expect("Stop it anyway? [y/N]")
            terminal.type("y\n")
            ran = terminal.end()
        assert ran.rc == 0, ran
        assert not alive(pid)


def test_force_and_idle_kernels_are_not_asked_about(cli: Cli, session: dict[str, Any]) -> None:
    assert Kernel(session).run(session, "print(1)") == "1\n"
    ran = cli("kill", "server1")
    assert ran.rc == 0, ran
    assert "are busy" not in ran.stderr
    again = quietly(cli, "server1", "--app", "server")
    with at_work(again, notebook(again)):
        ran = cli("kill", "--force", "server1")
        assert ran.rc == 0, ran
        assert not alive(again["server"]["pid"])


def test_a_server_that_does_not_answer_is_reported_and_stopped(cli: Cli, session: dict[str, Any]) -> None:
    pid = session["server"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    ran = cli("kill", "server1")
    assert ran.rc == 27, ran  # as before there was the question: it takes no SIGTERM
    assert "server1: its server does not report whether kernels are busy" in ran.stderr
    assert cli("kill", "--force", "server1").rc == 0
    assert not alive(pid)


def test_a_dead_server_is_not_asked(cli: Cli, session: dict[str, Any], user: User) -> None:
    user.run("kill", "-9", str(session["server"]["pid"]))
    ran = cli("kill", "server1")
    assert ran.rc == 0, ran
    assert "does not say" not in ran.stderr
    assert ran.stdout == "stopped session server1: its server had already ended\n"


def test_of_several_only_the_one_at_work_stays(cli: Cli, session: dict[str, Any]) -> None:
    other = quietly(cli, "server1", "--app", "server", "--name", "other")
    third = quietly(cli, "server1", "--app", "server", "--name", "third")
    with at_work(session, notebook(session)):
        ran = cli("kill", "server1", "other", "--json")
        assert ran.rc == 2, ran
        assert [one["session"] for one in ran.json["killed"]] == ["other"]
        assert ran.json["error"]["hint"] == "-y stops it anyway"
        assert [alive(one["server"]["pid"]) for one in (session, other)] == [True, False]
        with Terminal(cli, "kill", "server1", "third") as terminal:
            terminal.expect("Stop it anyway? [y/N]")
            terminal.type("n\n")
            ran = terminal.end()
        assert ran.rc == 130, ran
        assert ran.stdout == f"stopped session third (pid {third['server']['pid']})\n", "a no concerns one session"
        assert alive(session["server"]["pid"])


def test_down_of_several_closes_those_that_are_there(cli: Cli, session: dict[str, Any]) -> None:
    ran = cli("down", "nobody", "server1")
    assert ran.rc == 2, ran
    assert ran.stdout.startswith("server1: forwards closed, the server on server1 keeps running; ")
    assert "error: no session is called 'nobody'" in ran.stderr
    assert alive(session["server"]["pid"])
    told = cli("down", "nobody", "server1", "--json")
    assert (told.rc, told.json["error"]["code"]) == (2, "unknown-session")
    assert [one["name"] for one in told.json["sessions"]] == ["server1"]
    assert cli("down", "nobody", "--json").json.keys() == {"error"}


def test_one_dead_host_of_many_hides_no_server(bed: Bed, session: dict[str, Any], cli: Cli, tmp_path: Path) -> None:
    """`ps -a h01 … h08`: seven names of the host, and one that leads nowhere."""
    [nowhere] = free_ports(1)
    names = [f"h{number:02}" for number in range(1, 9)]
    main = bed.ssh_config.read_text().replace("Host server1 ", f"Host {' '.join(names)} server1 ")
    assert "h08" in main
    config = tmp_path / "ssh_config"
    config.write_text(f"Host h03\n  Port {nowhere}\n{main}")
    fleet = Cli(cli.home, config)
    ran = fleet("ps", "-a", *names)
    assert ran.rc == 10, ran
    head, *rows = [line for line in ran.stdout.splitlines() if line]
    assert head.startswith("SERVER ON")
    *servers, missed, why = rows
    assert [row.split()[0] for row in servers] == [name for name in names if name != "h03"]
    assert {row.split()[1] for row in servers} == {str(session["server"]["pid"])}
    assert (missed.split()[0], why.split()[0]) == ("NOT", "h03")
    assert "refused" in why
    *_, error, hint = ran.stderr.splitlines()
    assert (error[:7], hint[:6]) == ("error: ", "hint: ")
    told = fleet("ps", "-a", *names, "--json")
    assert told.rc == 10, told
    assert [one["host"] for one in told.json["servers"]] == [name for name in names if name != "h03"]
    [missing] = told.json["unreachable"]
    assert (missing["host"], missing["error"]["code"]) == ("h03", "host-unreachable")
    assert told.json["error"] == missing["error"]
    good = fleet("ps", "-a", "h01", "--json")
    assert good.rc == 0, good
    assert good.json.keys() == {"sessions", "forwards", "servers"}


def test_ps_without_a_session_names_what_is_unknown(cli: Cli, session: dict[str, Any]) -> None:
    ran = cli("ps", "server1", "nowhere", "--json")
    assert ran.rc == 2, ran
    assert [one["name"] for one in ran.json["sessions"]] == ["server1"]
    assert [one["host"] for one in ran.json["unreachable"]] == ["nowhere"]
    assert ran.json["error"]["code"] == "unknown-host"
