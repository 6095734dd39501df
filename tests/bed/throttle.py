"""A slow line between this computer and a host: a TCP relay with a limited rate."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

BUFFER = 16 * 1024  # bytes for each end in the kernel; larger buffers take megabytes at once


class Throttle:
    """Relays connections to a port of this computer; use as a context manager.

    Args:
        target: the port.
        rate: bytes per second, for each direction of all connections together; may be changed.

    Attributes:
        port: on which it listens, on 127.0.0.1.
    """

    def __init__(self, target: int, rate: float) -> None:
        self.rate = rate
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.port: int = self._listener.getsockname()[1]
        self._free = [0.0, 0.0]  # when each direction may carry again
        self._locks = (threading.Lock(), threading.Lock())
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rate = float("inf")
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in (self._listener, *self._sockets):
            sock.close()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]  # a method of ours
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket()
                for sock in (client, server):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
                server.connect(("127.0.0.1", self._target))
                self._sockets += [client, server]
                self._start(self._relay, client, server, 0)
                self._start(self._relay, server, client, 1)

    def _relay(self, source: socket.socket, sink: socket.socket, direction: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                with self._locks[direction]:
                    due = max(self._free[direction], time.monotonic()) + len(data) / self.rate
                    self._free[direction] = due
                time.sleep(max(0.0, due - time.monotonic()))  # this is what is simulated
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
