"""An old Jupyter (notebook 6, JupyterLab 3, jupyter_server 1), and kernels on TCP ports."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jupyman.demo.cell import CellKernel
from tests.bed import Bed, Cli, User, wait_until
from tests.bed.aftermath import nothing_left
from tests.bed.by_hand import by_hand
from tests.bed.notebooks import now, served, up
from tests.bed.old_stack import old_stack

OPEN_CONFIG = "c.{app}.token = ''\nc.{app}.password = ''\nc.{app}.ip = '0.0.0.0'\n"
# Run as the neighbour: subscribe to every TCP port on which the user's processes listen, and tell what is heard.
EAVESDROP = r"""
import sys, zmq
ports = []
for line in open("/proc/net/tcp").read().splitlines()[1:]:
    cells = line.split()
    if cells[3] == "0A" and cells[7] == sys.argv[1]:
        ports.append(int(cells[1].rpartition(":")[2], 16))
context = zmq.Context()
socket = context.socket(zmq.SUB)
socket.setsockopt(zmq.SUBSCRIBE, b"")
for port in ports:
    socket.connect("tcp://127.0.0.1:%d" % port)
print("ready", flush=True)
heard = b""
while socket.poll(float(sys.argv[2])):
    heard += b" ".join(socket.recv_multipart())
    if b"the answer" in heard:
        break
print(b"the answer" in heard, flush=True)
"""


@pytest.fixture(scope="module")
def old() -> Path:
    return old_stack()


def hears(neighbour: User, prefix: Path, victim: User, kernel: CellKernel) -> bool:
    """Whether the neighbour hears what cells print."""
    python = str(prefix / "bin" / "python")
    with neighbour.start(python, "-c", EAVESDROP, str(victim.uid), "500", stdout=subprocess.PIPE) as ear:
        assert ear.stdout is not None
        assert ear.stdout.readline() == "ready\n"
        # More than one: he may still be connecting at the first.
        for _ in range(5):
            assert kernel.run("print('the answer is', 6 * 7)") == "the answer is 42\n"
        heard: str = ear.stdout.readline()
    return heard == "True\n"


@pytest.mark.parametrize(("app", "section"), [("notebook", "NotebookApp"), ("lab", "ServerApp")])
def test_an_old_jupyter_runs_as_safely_as_a_new_one(
    cli: Cli, bed: Bed, user: User, old: Path, app: str, section: str
) -> None:
    names = {"NotebookApp": "jupyter_notebook_config.py", "ServerApp": "jupyter_server_config.py"}
    user.put(f".jupyter/{names[section]}", OPEN_CONFIG.format(app=section))
    session = up(cli, "server1", "--env", str(old), "--app", app)
    assert session["state"] == "running"
    assert session["server"]["app"] == app
    assert session["server"]["port"] is not None, "sockets were never tried with these"
    assert session["server"]["version"] == (None if app == "notebook" else "1.24.0")  # notebook 6 does not tell
    assert session["problems"] == []
    assert served(session, "/api/status", "")[0] == 403, "the user's own configuration opens nothing"
    page = {"notebook": "/tree", "lab": "/lab"}[app]
    assert served(session, page)[0] == 200
    with CellKernel(session["url"]) as kernel:
        assert not hears(bed.user("other"), old, user, kernel)
        assert cli("ps", "-a", "--json").json["sessions"][0]["problems"] == []
    # The same server again, and its end.
    assert up(cli, "server1")["server"] == session["server"]
    assert cli("kill", "server1", "--yes").rc == 0
    nothing_left(cli, user)


def test_kernels_that_talk_over_ports_are_named(cli: Cli, bed: Bed, user: User, old: Path) -> None:
    with by_hand(user) as mine:
        # Host and client are one machine here.
        direct = f"http://127.0.0.1:{mine['port']}/lab?token={mine['token']}"
        with CellKernel(direct) as kernel:
            assert hears(bed.user("other"), old, user, kernel), "this is why it matters"
            [row] = cli("ps", "-a", "server1", "--json").json["servers"]
            assert [one["code"] for one in row["problems"]] == ["kernels-exposed"]
            taken = up(cli, "server1", "--name", "mine")
            [problem] = taken["problems"]
            assert problem["code"] == "kernels-exposed"
            assert f"pid {mine['pid']}" in problem["text"]
            assert up(cli, "mine")["problems"] == [problem], "also where it runs already"
            told = cli("check", "server1", "--json").json["problems"]
            assert [one["severity"] for one in told if one["code"] == "kernels-exposed"] == ["warning"]
        wait_until(lambda: now(cli, "mine")["problems"] == [], what="the end of the problem, with the kernel's")
        with CellKernel(direct):
            wait_until(lambda: now(cli, "mine")["problems"] == [problem], what="the problem of another kernel")
