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
    trip: int = field(compare=False)
    era: int = field(compare=False)  # the number of restarts before it was sent


class Line:
    """Relays connections to an address; use as a context manager.

    Round trips are counted, not timed. What the client sends belongs to the trip after the last one whose answer has
    arrived, and an answer belongs to the last trip that has reached the host. So all that happens at the same time is
    one trip, and a message without an answer (a channel's close) is none.

    Args:
        port: of the host on 127.0.0.1.
        delay: seconds each way; may be changed. For a correct count it must be longer than either end needs to send
            all of an answer.

    Attributes:
        port: on which it listens, on 127.0.0.1.
    """

    def __init__(self, port: int, delay: float) -> None:
        self._target = port
        self.delay = delay
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._era = 0
        self._client_heard = 0  # the last trip whose answer has begun to arrive
        self._host_heard = 0
        self._held: list[_Held] = []
        self._count = 0
        self._last: dict[socket.socket, float] = {}  # when the last of what came from it is due
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._hear, self._call = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)

    @property
    def trips(self) -> int:
        """The number of consecutive times that the client waited for the host since `restart`."""
        return self._client_heard

    def restart(self) -> None:
        """Count from 0 again; what is in flight belongs to no trip."""
        self._era += 1
        self._client_heard = self._host_heard = 0

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
        self._client_heard = self._host_heard = (
            self._client_heard + 1
        )  # TCP's handshake, which takes no time on loopback
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
        trip = self._client_heard + 1 if from_client else self._host_heard
        self._count += 1
        # In order, also after the delay was made shorter.
        due = self._last[sock] = max(time.monotonic() + self.delay, self._last.get(sock, 0.0))
        held = _Held(due, self._count, self._peers[sock], data, not from_client, trip, self._era)
        heapq.heappush(self._held, held)

    def _deliver(self, held: _Held) -> None:
        if held.data and held.era == self._era:
            if held.to_client:
                self._client_heard = max(self._client_heard, held.trip)
            else:
                self._host_heard = max(self._host_heard, held.trip)
        with contextlib.suppress(OSError):
            if held.data:
                held.sock.sendall(held.data)
            else:
                held.sock.shutdown(socket.SHUT_WR)
