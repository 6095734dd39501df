"""Programs that serve a port, and clients of one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

Handler = Callable[[socket.socket], None]


class Listening(Protocol):
    """Whatever listens on a local port."""

    @property
    def local_port(self) -> int:
        """The port."""


@contextlib.contextmanager
def serving(handler: Handler, path: str | None = None) -> Iterator[tuple[str, int]]:
    """Run a server whose `handler` gets each connection in a thread of its own.

    Args:
        handler: gets the connection, which is closed afterwards.
        path: a Unix socket; None: a free port of loopback.

    Yields:
        Address and port.
    """
    server = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    server.bind(path or ("127.0.0.1", 0))
    server.listen(512)

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            handler(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield ("", 0) if path else server.getsockname()
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def echo(connection: socket.socket) -> None:
    """Return what comes, for `serving`."""
    while data := connection.recv(65536):
        connection.sendall(data)


def read_all(sock: socket.socket) -> bytes:
    """Read up to the end of the stream."""
    data = bytearray()
    while chunk := sock.recv(65536):
        data += chunk
    return bytes(data)


def send_all(sock: socket.socket, data: bytes) -> None:
    """Send, and end this direction."""
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def connect(listener: Listening, address: str = "127.0.0.1") -> socket.socket:
    """Connect to a local port, with a timeout of 10 s."""
    return socket.create_connection((address, listener.local_port), timeout=10)


def ping(listener: Listening, text: bytes = b"ping") -> bytes:
    """Send a text, end this direction, and return all that comes back."""
    with connect(listener) as sock:
        send_all(sock, text)
        return read_all(sock)
