"""Forwards of `jupyman tunnel`, and what they lead to."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from jupyman.local import daemon_file
from tests.bed.command import Cli
from tests.bed.notebooks import answers
from tests.bed.sockets import read_all
from tests.bed.wait import wait_until


@contextlib.contextmanager
def reader(port: int = 0, host: str = "127.0.0.1") -> Iterator[int]:
    """Listen; answer each connection, at the end of its stream, with all that it sent, in capitals."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as server:
        ended = threading.Event()

        def serve() -> None:
            while True:
                connection, _ = server.accept()
                if ended.is_set():
                    connection.close()
                    return
                with connection, contextlib.suppress(OSError):
                    connection.sendall(read_all(connection).upper())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            socket.create_connection(server.getsockname()[:2]).close()
            thread.join()


def spoken(port: int, text: bytes = b"hello") -> bytes:
    """Send a text to a local port, end this direction, and read the answer to its end; empty after a reset."""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.settimeout(20)
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)
    except OSError as error:
        # After a reset between the text and the end, shutdown fails with ENOTCONN, which is no ConnectionError.
        if isinstance(error, ConnectionError) or error.errno == errno.ENOTCONN:
            return b""
        raise


def local(forward: dict[str, Any]) -> int:
    """Return the local port of a forward."""
    return int(forward["local"].rpartition(":")[2])


def kill_daemon(cli: Cli, *ports: int) -> None:
    """Kill the daemon, and wait until these ports of it are free."""
    found = daemon_file.read(cli.home / "run" / "daemon.json")
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    wait_until(lambda: not any(answers(port) for port in ports), what="the daemon's end")
