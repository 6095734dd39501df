"""The output of cells arrives, however fast it comes; gaps are marked; the server stays small."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
import websocket

from jupyman.demo.cell import CellKernel
from tests.bed import Bed, Cli, User, wait_until
from tests.bed.http import get
from tests.bed.notebooks import local_port, token, up
from tests.bed.old_stack import old_stack

MANY = 15_000
# Jupyter's own limits, switched off as its messages say; older ones have them in the application's section.
NO_LIMITS = {
    "jupyter_server_config.py": ("ZMQChannelsWebsocketConnection", "ServerApp"),
    "jupyter_notebook_config.py": ("NotebookApp",),
}
LIMITS = ("iopub_msg_rate_limit", "iopub_data_rate_limit")
DEADLINE = 150.0  # seconds, for what never comes; this machine may be busy


@dataclass
class Output:
    """What a cell's tab has got."""

    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    idle: bool = False

    @property
    def lines(self) -> int:
        return "".join(self.stdout).count("\n")


@dataclass
class Tab:
    """A page that is connected to a kernel; one of the same name gets what came while it was away."""

    session: dict[str, Any]
    kernel: str
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    channels: Any = None

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        address = f"ws://127.0.0.1:{local_port(self.session)}/api/kernels/{self.kernel}/channels?session_id={self.name}"
        header = [f"Authorization: token {token(self.session)}"]
        self.channels = websocket.create_connection(address, header=header, timeout=DEADLINE)
        try:
            yield
        finally:
            self.channels.close()

    def start(self, code: str) -> str:
        """Run a cell; return its message's id."""
        mine = uuid.uuid4().hex
        header = {"msg_id": mine, "msg_type": "execute_request", "username": "", "session": self.name, "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "stop_on_error": True}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        self.channels.send(json.dumps({**message, "buffers": []}))
        return mine

    def follow(self, cell: str, output: Output, lines: int | None = None) -> Output:
        """Read what comes for a cell, to its end or until so many lines are there."""
        until = time.monotonic() + DEADLINE
        while not output.idle and (lines is None or output.lines < lines):
            # Its pings come whether or not anything else does.
            opcode, frame = self.channels.recv_data_frame(control_frame=True)
            assert time.monotonic() < until, f"no end after {output.lines} lines: {output.stderr}"
            if opcode not in {websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY}:
                assert opcode == websocket.ABNF.OPCODE_PING, "the server closed the connection"
                continue
            message = json.loads(frame.data)
            if message["parent_header"].get("msg_id") != cell or message["channel"] != "iopub":
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                (output.stdout if content["name"] == "stdout" else output.stderr).append(content["text"])
            elif message["msg_type"] == "error":
                output.errors.append(content["ename"])
            elif message["msg_type"] == "status":
                output.idle = content["execution_state"] == "idle"
        return output

    def run(self, code: str) -> Output:
        """Run a cell to its end."""
        return self.follow(self.start(code), Output())


def no_limits(user: User) -> None:
    for name, sections in NO_LIMITS.items():
        lines = [f"c.{section}.{key} = 0\n" for section in sections for key in LIMITS]
        user.put(f".jupyter/{name}", "".join(lines))


def a_tab(session: dict[str, Any]) -> Tab:
    status, started = get(local_port(session), "/api/kernels", token(session), "POST", {})
    assert status == 201, started
    return Tab(session, started["id"])


def post(tab: Tab, action: str) -> None:
    status, _ = get(local_port(tab.session), f"/api/kernels/{tab.kernel}/{action}", token(tab.session), "POST", {})
    assert status in {200, 204}


def state(tab: Tab) -> str:
    _, kernel = get(local_port(tab.session), f"/api/kernels/{tab.kernel}", token(tab.session))
    found: str = kernel["execution_state"]
    return found


@pytest.mark.parametrize(("stack", "app"), [("new", "lab"), ("old", "lab"), ("old", "notebook")])
def test_each_of_many_lines_arrives_in_order_and_so_does_the_end(cli: Cli, user: User, stack: str, app: str) -> None:
    no_limits(user)
    env = str(old_stack()) if stack == "old" else "lab"
    session = up(cli, "server1", "--env", env, "--app", app)
    tab = a_tab(session)
    wanted = [str(number) for number in range(MANY)]
    with tab.open():
        for _ in range(2):
            found = tab.run(f"for i in range({MANY}): print(i, flush=True)")
            assert found.lines == MANY
            assert "".join(found.stdout).split() == wanted
            assert found.errors == found.stderr == []
            wait_until(lambda: state(tab) == "idle", what="the end, also for who asks the server")
        # Two streams keep their lines apart, and their order.
        found = tab.run(
            "import sys\nfor i in range(4000): print(i, file=sys.stderr if i % 100 == 99 else None, flush=True)"
        )
        assert "".join(found.stdout).split() == [one for one in wanted[:4000] if not one.endswith("99")]
        assert "".join(found.stderr).split() == [one for one in wanted[:4000] if one.endswith("99")]


def test_pages_that_open_while_a_cell_prints_see_its_end(cli: Cli, user: User) -> None:
    no_limits(user)
    session = up(cli, "server1", "--env", "lab")
    tab = a_tab(session)
    others = [Tab(session, tab.kernel) for _ in range(4)]
    with tab.open(), contextlib.ExitStack() as stack:
        cell = tab.start(f"for i in range({MANY}): print(i, flush=True)\nwhile True: print('more', flush=True)")
        found = tab.follow(cell, Output(), lines=100)
        readers = stack.enter_context(ThreadPoolExecutor(len(others)))
        reading = []
        for other in others:
            stack.enter_context(other.open())
            reading.append(readers.submit(other.follow, cell, Output()))
        tab.follow(cell, found, lines=MANY)
        post(tab, "interrupt")
        assert tab.follow(cell, found).errors == ["KeyboardInterrupt"]
        for seen in [one.result() for one in reading]:
            assert seen.errors == ["KeyboardInterrupt"]
            assert "".join(found.stdout).endswith("".join(seen.stdout)), "from some moment on, all of it"


def test_output_that_jupyter_drops_is_marked_and_the_end_arrives(cli: Cli, user: User) -> None:
    tab = a_tab(up(cli, "server1", "--env", "lab"))
    with tab.open():
        found = tab.run("for i in range(300): print('x' * 100_000, flush=True)")
        assert found.lines < 300
        assert "IOPub data rate exceeded" in "".join(found.stderr)
        assert found.idle
        # Many short lines are within the limits.
        again = tab.run(f"import time\ntime.sleep(4)\nfor i in range({MANY}): print(i, flush=True)")
        assert again.lines == MANY
        assert "message rate exceeded" not in "".join(again.stderr)


def test_an_endless_print_is_interrupted_and_the_server_stays_small(cli: Cli, user: User) -> None:
    no_limits(user)
    session = up(cli, "server1", "--env", "lab")
    server = psutil.Process(session["server"]["pid"])
    tab = a_tab(session)
    with tab.open():
        before = server.memory_info().rss
        cell = tab.start("i = 0\nwhile True:\n    print(i, flush=True)\n    i += 1")
        found = tab.follow(cell, Output(), lines=60_000)
        post(tab, "interrupt")
        tab.follow(cell, found)
        assert found.errors == ["KeyboardInterrupt"]
        assert server.memory_info().rss - before < 300e6
        last = int("".join(found.stdout).split()[-1])
        assert "".join(found.stdout).split() == [str(number) for number in range(last + 1)]


def test_output_for_a_disconnected_page_is_bounded_and_the_gap_is_marked(cli: Cli, user: User) -> None:
    no_limits(user)
    session = up(cli, "server1", "--env", "lab")
    server = psutil.Process(session["server"]["pid"])
    tab = a_tab(session)
    code = (
        "import os, time\n"
        "print('begin', flush=True)\n"
        "while not os.path.exists('away'): time.sleep(0.1)\n"
        "for i in range(300): print('x' * 1_000_000, flush=True)\n"
        "1 / 0\n"
    )
    with tab.open():
        cell = tab.start(code)
        found = tab.follow(cell, Output(), lines=1)
    log = user.home / ".local/state/jupyman" / session["server"]["node"] / "server1" / "log"
    wait_until(lambda: "Starting buffering" in log.read_text(), what="the server to notice that the page is away")
    before = server.memory_info().rss
    user.put("away", "")
    wait_until(lambda: state(tab) == "idle", what="the cell's end", timeout=DEADLINE)
    # It watches a kernel by a connection of its own: that which waits for the page may be behind.
    wait_until(lambda: server.cpu_percent(interval=0.5) < 5, what="the server to have read all", timeout=DEADLINE)
    assert server.memory_info().rss - before < 300e6
    with tab.open():
        tab.follow(cell, found)
    assert 30 < found.lines < 40, "as much as may wait"
    assert found.stderr == ["jupyman: output is left out here: more than 32 MiB waited for this page\n"]
    assert found.errors == ["ZeroDivisionError"]


# Where the kernel itself would drop output, and its command line.
LOOK = (
    "import sys, zmq; from ipykernel.kernelapp import IPKernelApp as A\n"
    "print(A.instance().iopub_thread.socket.getsockopt(zmq.SNDHWM), sys.argv[1:])"
)


def test_kernels_of_any_spec_have_room_and_see_nothing_of_it(cli: Cli, bed: Bed, user: User) -> None:
    python = bed.conda.lab / "bin/python"
    session = up(cli, "server1", "--env", "lab")
    with CellKernel(session["url"]) as kernel:
        # A notebook that reads its command line finds Jupyter's own words only.
        assert kernel.run(LOOK).startswith("200000 ['-f', '/tmp/jm-")
        assert kernel.run(LOOK).count("'") == 4
    wrapped = ["/bin/sh", "-c", 'exec "$0" "$@"', str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    write_spec(user, "wrapped", wrapped)
    with CellKernel(session["url"], "wrapped") as kernel:
        assert kernel.run(LOOK).startswith("200000 ['-f', ")
    # One that is no ipykernel by its words gets no word more than it asks for.
    script = f'#!/bin/sh\nprintf "%s\\n" "$@" >"$HOME/words"\nexec {python} -m ipykernel_launcher -f "$1"\n'
    user.put("kernel.sh", script)
    write_spec(user, "other", ["/bin/sh", str(user.home / "kernel.sh"), "{connection_file}"])
    with CellKernel(session["url"], "other") as kernel:
        assert kernel.run("print(6 * 7)") == "42\n"
    [word] = (user.home / "words").read_text().split()
    assert word.endswith(".json")
    # Its own --config is the user's.
    user.put("mine.py", "c.IPKernelApp.exec_lines = ['mine = 1']\n")
    write_spec(user, "mine", [*wrapped[3:], f"--config={user.home / 'mine.py'}"])
    with CellKernel(session["url"], "mine") as kernel:
        assert kernel.run("print(mine)") == "1\n"


def write_spec(user: User, name: str, argv: list[str]) -> None:
    spec = {"argv": argv, "display_name": name, "language": "python"}
    user.put(f".local/share/jupyter/kernels/{name}/kernel.json", json.dumps(spec))
