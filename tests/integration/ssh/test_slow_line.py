"""A message that takes long to send over a slow line arrives, as it does behind `ssh -L`."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.bed import Bed, Cli, private_home
from tests.bed.notebooks import local_port, now, up
from tests.bed.tab import Tab
from tests.bed.throttle import Throttle

# Bytes and bytes a second: as in reports of people at home, made smaller for the suite.
MEGABYTES = float(os.environ.get("JUPYMAN_SLOW_MB", "1.5"))
RATE = float(os.environ.get("JUPYMAN_SLOW_RATE", "200000"))
DOWN_MEGABYTES = float(os.environ.get("JUPYMAN_SLOW_DOWN_MB", "2.5"))
DOWN_RATE = float(os.environ.get("JUPYMAN_SLOW_DOWN_RATE", "65000"))


@pytest.fixture
def line(fresh_bed: Bed) -> Iterator[tuple[Cli, Throttle]]:
    """A command line that reaches the host over a line, which is fast until somebody sets its rate."""
    with fresh_bed.start_sshd() as sshd, Throttle(sshd.port, 1e12) as throttle, private_home() as home:
        cli = Cli(home, config := home.parent / "ssh_config")
        # Jupyter would cut an output of more than 3 MB in three seconds.
        own = fresh_bed.user().home / ".jupyter"
        own.mkdir()
        (own / "jupyter_server_config.py").write_text("c.ZMQChannelsWebsocketConnection.iopub_data_rate_limit = 1e12\n")
        text = sshd.ssh_config.read_text().replace(f"Port {sshd.port}", f"Port {throttle.port}")
        config.write_text(text + f"    HostKeyAlias [127.0.0.1]:{sshd.port}\n")
        yield cli, throttle


@pytest.mark.parametrize("beside", ["alone", "beside an upload"])
def test_a_long_message_arrives(line: tuple[Cli, Throttle], beside: str) -> None:
    cli, throttle = line
    made = up(cli, "server1", "--no-browser")
    tab = Tab(made["url"])
    other = Upload(local_port(made)) if beside != "alone" else None
    try:
        throttle.rate = RATE
        if other is not None:
            other.start()
        text = "x" * int(MEGABYTES * 1e6)
        tab.start(f"text = {text!r}; print(len(text))")
        assert tab.over.wait(150), "the cell has not ended"
        assert (tab.text, tab.closed) == (f"{len(text)}\n", 0)
        assert now(cli)["link"]["reconnects"] == 0
    finally:
        throttle.rate = 1e12
        if other is not None:
            other.stop()
        tab.close()


def test_a_long_output_arrives(line: tuple[Cli, Throttle]) -> None:
    """Its pings wait behind it, for longer than a websocket without long messages may be silent."""
    cli, throttle = line
    tab = Tab(up(cli, "server1", "--no-browser")["url"])
    try:
        throttle.rate = DOWN_RATE
        size = int(DOWN_MEGABYTES * 1e6)
        start = time.monotonic()
        tab.start(f"print('y' * {size})")
        assert tab.over.wait(150), "the cell has not ended"
        assert time.monotonic() - start > 30, "the line was not slow"
        assert len(tab.text) == size + 1
        throttle.rate = 1e12
        # A websocket that was given up meanwhile is closed behind all that had been written into it.
        tab.start("print('the same')")
        assert tab.over.wait(30), "the second cell has not ended"
        assert (tab.text, tab.closed) == ("the same\n", 0)
    finally:
        throttle.rate = 1e12
        tab.close()


class Upload:
    """A program that sends to the server for as long as it may: a body without an end."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        self._sock.settimeout(1.0)
        head = b"POST /api/contents HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        data = head + b"10000\r\n" + bytes(0x10000) + b"\r\n"
        while not self._over.is_set():
            try:
                sent = self._sock.send(data)
            except TimeoutError:
                continue
            except OSError:
                return
            data = data[sent:] or b"10000\r\n" + bytes(0x10000) + b"\r\n"

    def stop(self) -> None:
        self._over.set()
        self._sock.close()
        self._thread.join()
