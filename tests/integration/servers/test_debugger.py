"""JupyterLab's debugger accepts every connection: off if others have accounts, reported while it is on."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyman.demo.cell import CellKernel
from tests.bed import Bed, Cli, User, wait_until
from tests.bed.by_hand import by_hand
from tests.bed.http import get
from tests.bed.notebooks import local_port, now, token, up
from tests.bed.old_stack import old_stack

# Run as the other user: use the Debug Adapter Protocol on each port: attach, and evaluate an expression.
ATTACK = r"""
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def ask(stream, number, command, arguments):
    body = json.dumps({"seq": number, "type": "request", "command": command, "arguments": arguments}).encode()
    stream.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    stream.flush()

def answers(stream):
    while True:
        length = 0
        while (line := stream.readline()) not in (b"", b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if not length:
            return
        yield json.loads(stream.read(length))

def attack(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.settimeout(5)
            stream = connection.makefile("rwb")
            ask(stream, 1, "initialize", {"adapterID": "x", "pathFormat": "path"})
            ask(stream, 2, "attach", {"name": "x", "type": "python", "request": "attach"})
            for answer in answers(stream):
                print(port, json.dumps(answer)[:300], file=sys.stderr)
                if answer.get("event") == "initialized":
                    ask(stream, 3, "configurationDone", {})
                    ask(stream, 4, "evaluate", {"expression": "__import__('os').getuid()", "context": "repl"})
                if answer.get("command") == "evaluate":
                    print("ran as", answer.get("body", {}).get("result"), flush=True)
                    break
    except OSError as error:
        print(port, repr(error), file=sys.stderr)

if sys.argv[1:]:
    with ThreadPoolExecutor(len(sys.argv)) as pool:
        list(pool.map(attack, map(int, sys.argv[1:])))
"""
# What JupyterLab sends when its debugger is switched on, and off again (ipykernel's debugger.py, DAP).
DEBUGGING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("initialize", {"clientID": "jupyterlab", "adapterID": "", "pathFormat": "path", "linesStartAt1": True}),
    ("attach", {}),
    ("disconnect", {"restart": False, "terminateDebuggee": False}),
)
# A row of /proc/net/tcp: a socket that listens, its port and its owner.
LISTENING = re.compile(r"^ *[0-9]+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F:]+ 0A (?:\S+ +){3}([0-9]+) ", re.MULTILINE)


def debug(kernel: CellKernel) -> list[str]:
    """Use the debugger as JupyterLab does, and leave it; return the requests that are answered."""
    answered: list[str] = []
    for number, (command, arguments) in enumerate(DEBUGGING, 1):
        content = {"type": "request", "seq": number, "command": command, "arguments": arguments}
        answered += [one["command"] for one in control(kernel, ("debug_request", content), INFO)[:-1]]
    return answered


INFO: tuple[str, dict[str, Any]] = ("kernel_info_request", {})


def control(kernel: CellKernel, *requests: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Send requests over the control channel, of which the last is answered whatever happens to the others.

    Returns:
        The answers. A kernel takes requests of one channel one after the other: what is missing was not passed on.
    """
    channels = kernel._channels
    sent = []
    for kind, content in requests:
        mine = uuid.uuid4().hex
        header = {"msg_id": mine, "msg_type": kind, "username": "", "session": mine, "version": "5.3"}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "control"}
        channels.send(json.dumps({**message, "buffers": []}))
        sent.append(mine)
    answered: list[dict[str, Any]] = []
    while True:
        said = json.loads(channels.recv())
        if said["channel"] == "control" and said["parent_header"].get("msg_id") in sent:
            answered.append(said["content"])
            if said["parent_header"]["msg_id"] == sent[-1]:
                return answered


def debuggers(user: User) -> list[psutil.Process]:
    """Return what runs debugpy for a user."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real == user.uid and any("debugpy" in word for word in process.cmdline()):
                found.append(process)
    return found


def attack(bed: Bed, victim: User) -> list[str]:
    """Have the neighbour try all ports on which the user's processes listen; return what he could run."""
    rows = LISTENING.findall(Path("/proc/net/tcp").read_text())
    ports = [str(int(port, 16)) for port, uid in rows if int(uid) == victim.uid]
    ran = bed.user("other").run(str(bed.conda.lab / "bin" / "python"), "-c", ATTACK, *ports, timeout=120)
    assert ran.returncode == 0, ran
    return ran.stdout.splitlines()


def problems(answer: dict[str, Any]) -> list[str]:
    """Return what is said of debuggers."""
    return [one["text"] for one in answer["problems"] if one["code"] == "kernels-exposed" and "debugger" in one["text"]]


@pytest.mark.parametrize(("stack", "app"), [("new", "lab"), ("old", "lab"), ("old", "notebook")])
def test_no_debugger_opens_a_port_if_others_have_accounts(cli: Cli, bed: Bed, user: User, stack: str, app: str) -> None:
    bed.user("other")
    env = str(old_stack()) if stack == "old" else "lab"
    session = up(cli, "server1", "--env", env, "--app", app)
    with CellKernel(session["url"]) as kernel:
        assert debug(kernel) == [], "no request for the debugger reaches a kernel"
        [info] = control(kernel, INFO)
        assert info["status"] == "ok"
        assert "debugger" not in info.get("supported_features", []), "JupyterLab would show its button, and hang"
        status, specs = get(local_port(session), "/api/kernelspecs", token(session))
        assert status == 200
        assert "python3" in specs["kernelspecs"]
        assert not any(one["spec"]["metadata"].get("debugger") for one in specs["kernelspecs"].values())
        if stack == "new":
            assert "kernel subshells" in info["supported_features"], "all else is as it was"
            assert control(kernel, ("create_subshell_request", {}), INFO)[0]["status"] == "ok"
            assert control(kernel, ("usage_request", {}), INFO)[0]["kernel_cpu"] is not None
        assert debuggers(user) == []
        assert attack(bed, user) == []
        kernel.reconnect()  # nobody answered its pings meanwhile
        assert kernel.run("print(6 * 7)") == "42\n"
        problems = cli("ps", "-a", "--json").json["sessions"][0]["problems"]
        # On this bed the host is this computer: sshd's own look whether it may forward comes from another account.
        assert [one for one in problems if one["code"] != "stranger-refused"] == []


def test_a_requested_debugger_is_reported_while_its_port_is_open(cli: Cli, bed: Bed, user: User) -> None:
    cli.home.mkdir(exist_ok=True)
    (cli.home / "config.toml").write_text("[defaults]\ndebugger = false\n[hosts.server1]\ndebugger = true\n")
    session = up(cli, "server1", "--env", "lab")
    assert session["problems"] == []
    with CellKernel(session["url"]) as kernel:
        assert debug(kernel) == ["initialize", "attach", "disconnect"]
        assert f"ran as {user.uid}" in attack(bed, user), "this is why it matters"
        [text] = wait_until(lambda: problems(now(cli)), what="the problem in ps")
        assert f"pid {session['server']['pid']} listens on ports " in text
        assert text.endswith("any user of the host can run code as you")
        assert [one["severity"] for one in now(cli)["problems"]] == ["error"]
        assert problems(cli("ps", "-a", "--json").json["sessions"][0]) == [text]
        assert problems(up(cli, "server1")) == [text], "also where it runs already"
        assert problems(cli("check", "server1", "--json").json) == [text]
    wait_until(lambda: now(cli)["problems"] == [], what="the end of the problem, with the kernel's")


def test_the_debugger_of_a_server_that_is_not_ours_is_named(cli: Cli, bed: Bed, user: User) -> None:
    with by_hand(user) as mine, CellKernel(f"http://127.0.0.1:{mine['port']}/lab?token={mine['token']}") as kernel:
        assert debug(kernel) == ["initialize", "attach", "disconnect"]
        assert f"ran as {user.uid}" in attack(bed, user)
        [row] = cli("ps", "-a", "server1", "--json").json["servers"]
        [text] = problems(row)
        assert f"pid {mine['pid']} listens on ports " in text
        assert problems(cli("check", "server1", "--json").json) == [text]
