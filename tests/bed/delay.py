"""A long line between this computer and a host: a TCP relay that delays, and counts round trips."""

from __future__ import annotations

import contextlib
import heapq
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

CHUNK = 65536


@dataclass(order=True)
class _Held:
    due: float
    number: int
    sock: socket.socket = field(compare=False)
    data: bytes = field(compare=False)
    to_client: bool = field(compare=False)


class Line:
    """Relays connections to an address; use as a context manager.

    A round trip is counted when the client sends something after it got something: what it sent without having
    waited belongs to the trip before.

    Args:
        port: of the host on 127.0.0.1.
        delay: seconds each way.

    Attributes:
        port: where it listens on 127.0.0.1.
        trips: round trips so far; may be set back to 0.
    """

    def __init__(self, port: int, delay: float) -> None:
        self._target = port
        self._delay = delay
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.trips = 0
        self._heard = True  # the client got something since it last sent
        self._held: list[_Held] = []
        self._count = 0
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._hear, self._call = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)

    def __enter__(self) -> Self:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._hear, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call.close()
        self._thread.join()
        for sock in (self._listener, self._hear, *self._peers):
            sock.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            wait = max(0.0, self._held[0].due - time.monotonic()) if self._held else None
            for key, _ in self._selector.select(wait):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._hear:
                    return
                if sock is self._listener:
                    self._accept()
                else:
                    self._read(sock)
            while self._held and self._held[0].due <= time.monotonic():
                self._deliver(heapq.heappop(self._held))

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._target))
        self._clients.add(client)
        self._peers[client], self._peers[server] = server, client
        self.trips += 1  # TCP's own handshake, which loopback does not show
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(sock, selectors.EVENT_READ)

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(sock)
        from_client = sock in self._clients
        if from_client and data and self._heard:
            self.trips += 1
            self._heard = False
        self._count += 1
        due = time.monotonic() + self._delay
        heapq.heappush(self._held, _Held(due, self._count, self._peers[sock], data, not from_client))

    def _deliver(self, held: _Held) -> None:
        if held.to_client and held.data:
            self._heard = True
        with contextlib.suppress(OSError):
            if held.data:
                held.sock.sendall(held.data)
            else:
                held.sock.shutdown(socket.SHUT_WR)
