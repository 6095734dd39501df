"""The benchmark of the forwarder runs, counts every byte and leaves nothing; its figures are not judged."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest

from tests.bed import wait_until
from tests.bed.command import REPOSITORY
from tests.bed.sshd import find_sshd
from tests.bench import traffic
from tests.bench.host import target
from tests.bench.targets import ANSWER, BLOCK, REQUEST
from tests.bench.traffic import Wrong

SIZE = 3 << 20

needs_sshd = pytest.mark.skipif(find_sshd() is None, reason="sshd is not installed (openssh-server)")


@contextmanager
def start(*words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.bench.forward", "--engines", "ssh -L;jupyman", *words]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, start_new_session=True, **pipes) as process:
        try:
            yield process
        finally:
            process.terminate()


def namespaces(pid: int) -> list[str]:
    if os.geteuid() != 0:
        return []
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    return re.findall(rf"^jm{pid:x}-\w+", listed, re.MULTILINE)


@needs_sshd
def test_it_compares_and_leaves_nothing() -> None:
    tables = "bulk,wan" if os.geteuid() == 0 else "bulk"
    with start("--tables", tables, "--rounds", "1", "--mib", "2", "--wan-mib", "2") as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    rows = [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("|")]
    assert rows.count("ssh -L") == rows.count("jupyman") == len(tables.split(","))
    assert "bulk down, of ssh -L: " in out
    assert not namespaces(process.pid)


@needs_sshd
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(number: signal.Signals) -> None:
    tables = "wan" if os.geteuid() == 0 else "bulk"
    with start("--tables", tables, "--wan-mib", "1000", "--mib", "100000") as process:
        one = psutil.Process(process.pid)

        def moving() -> list[psutil.Process]:
            below = one.children(recursive=True)
            for child in below:
                with suppress(psutil.Error):  # it ended a moment ago
                    if "tests.bench.traffic" in child.cmdline():
                        return below
            return []

        below = wait_until(moving, timeout=60, what="a transfer")
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.endswith("interrupted; everything that was started is ended\n")
    assert "Traceback" not in err
    assert not psutil.wait_procs(below, 10)[1]
    assert not namespaces(process.pid)


# --- wrong bytes are an error ---------------------------------------------------------------------------------------


@contextmanager
def serving(handler: Callable[[socket.socket], None]) -> Iterator[int]:
    """A forward that does something to what it carries."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                handler(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


def ends_early(sock: socket.socket) -> None:
    sock.recv(REQUEST.size, socket.MSG_WAITALL)
    sock.sendall((BLOCK * 3)[:-1])


def changes(sock: socket.socket) -> None:
    sock.recv(REQUEST.size, socket.MSG_WAITALL)
    sock.sendall(bytes([BLOCK[0] ^ 1]) + (BLOCK * 3)[1:])


def swallows(sock: socket.socket) -> None:
    sock.recv(REQUEST.size, socket.MSG_WAITALL)
    left = SIZE
    while left:
        left -= len(sock.recv(left))
    sock.sendall(ANSWER.pack(SIZE - 1, bytes(32)))


def mangles(sock: socket.socket) -> None:
    sock.sendall(bytes(len(sock.recv(64, socket.MSG_WAITALL))))


@pytest.mark.parametrize("handler", [ends_early, changes])
def test_a_wrong_download(handler: Callable[[socket.socket], None]) -> None:
    with serving(handler) as port, pytest.raises(Wrong, match=f"a download of {SIZE} bytes"):
        traffic.down(port, SIZE, hashed=True)


def test_a_wrong_upload() -> None:
    with serving(swallows) as port, pytest.raises(Wrong, match=f"{SIZE - 1} came"):
        traffic.up(port, SIZE)


def test_a_wrong_answer() -> None:
    with serving(mangles) as port, pytest.raises(Wrong, match="changed"):
        traffic.ping(port, 1)


def test_right_ones() -> None:
    with target("bulk") as bulk, target("echo") as echo:
        assert traffic.call("down", port=bulk, size=SIZE, hashed=True) > 0
        assert traffic.call("up", port=bulk, size=SIZE, hashed=True) > 0
        assert len(traffic.call("ping", port=echo, count=5)) == 5
        assert traffic.call("burst", ports=[echo], count=50, limit=10.0)[0] == 50
        with traffic.Beside("hold", ports=[echo], count=20) as held:
            pass
        assert held.result == 20
