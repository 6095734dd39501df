"""What is measured through a forward: each measure is a function, and a process of its own by ``call``.

``python -m tests.bench.traffic '{"what": "down", "port": 1, …}'`` prints the result as JSON. A wrong byte count, a
wrong byte or an early end is an error, never a figure.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from tests.bench.child import start
from tests.bench.targets import ANSWER, CHUNK, REQUEST, expected, raise_limit, receive, send

PING = bytes(range(64))
TIMEOUT = 120.0  # seconds without a byte
ENDLESS = 1 << 62


class Wrong(Exception):
    """Bytes were lost, added or changed on the way."""


def main() -> None:
    """Do one measure."""
    asked = json.loads(sys.argv[1])
    raise_limit()
    measures: list[Callable[..., Any]] = [down, up, ping, opens, burst, load, hold]
    measure = {one.__name__: one for one in measures}[asked.pop("what")]
    json.dump(measure(**asked), sys.stdout)


def call(what: str, *, prefix: Sequence[str] = (), **arguments: Any) -> Any:
    """Do one measure in a process of its own.

    Args:
        what: the function.
        prefix: before the command, as in ``ip netns exec NAME``.
        arguments: of the function.

    Raises:
        Wrong: it failed; the message has its last line.
    """
    words = [*prefix, *_words(what, arguments)]
    with start(words, errors=True) as process:
        try:
            out, err = process.communicate("")
        finally:
            process.kill()
    if process.returncode != 0:
        raise Wrong(f"{what} {arguments}: {(err.strip().splitlines() or ['?'])[-1]}")
    return json.loads(out)


def _words(what: str, arguments: dict[str, Any]) -> list[str]:
    return [sys.executable, "-m", "tests.bench.traffic", json.dumps({"what": what, **arguments})]


class Beside:
    """A measure that runs beside another one, until the ``with`` block ends; `result` is there afterwards."""

    def __init__(self, what: str, *, prefix: Sequence[str] = (), **arguments: Any) -> None:
        self._words = [*prefix, *_words(what, arguments)]
        self.result: Any = None

    def __enter__(self) -> Self:
        self._process = start(self._words, errors=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "GO\n":
            raise Wrong(f"{self._words}: {self._process.communicate()[1].strip()[-300:]}")
        return self

    def __exit__(self, *_: object) -> None:
        out, err = self._process.communicate()  # closes its stdin, which is its end
        if self._process.returncode != 0:
            raise Wrong(f"{self._words}: {err.strip()[-300:]}")
        self.result = json.loads(out)


# --- the measures -------------------------------------------------------------------------------------------------


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _ended() -> threading.Event:
    """Return an event that is set when standard input ends."""
    event = threading.Event()

    def watch() -> None:
        sys.stdin.buffer.read()
        event.set()

    threading.Thread(target=watch, daemon=True).start()
    return event


def down(port: int, size: int, *, hashed: bool = False) -> float:
    """Download; return the seconds from the request to the last byte."""
    with _connect(port) as sock:
        start = time.perf_counter()
        sock.sendall(REQUEST.pack(b"D", False, size))
        got, digest = receive(sock, size, hashed=hashed)
        seconds = time.perf_counter() - start
    if got != size or (hashed and digest != expected(size)):
        raise Wrong(f"a download of {size} bytes: {got} came" + (", changed" if got == size else ""))
    return seconds


def up(port: int, size: int, *, hashed: bool = False) -> float:
    """Upload; return the seconds until the other end confirms the last byte."""
    with _connect(port) as sock:
        start = time.perf_counter()
        sock.sendall(REQUEST.pack(b"U", hashed, size))
        send(sock, size)
        answer = sock.recv(ANSWER.size, socket.MSG_WAITALL)
        seconds = time.perf_counter() - start
    got, digest = ANSWER.unpack(answer) if len(answer) == ANSWER.size else (0, b"")
    if got != size or (hashed and digest != expected(size)):
        raise Wrong(f"an upload of {size} bytes: {got} came" + (", changed" if got == size else ""))
    return seconds


def ping(port: int, count: int, *, limit: float = 60.0) -> list[float]:
    """Send 64 bytes and wait for them, again and again; return the seconds of each.

    Args:
        port: leads to the echo.
        count: how often at most.
        limit: seconds for all.
    """
    took: list[float] = []
    with _connect(port) as sock:
        end = time.perf_counter() + limit
        while len(took) < count and time.perf_counter() < end:
            start = time.perf_counter()
            sock.sendall(PING)
            if sock.recv(len(PING), socket.MSG_WAITALL) != PING:
                raise Wrong("64 bytes came back changed")
            took.append(time.perf_counter() - start)
    return took


def opens(port: int, seconds: float) -> float:
    """Open a connection, send a byte there and back, close; return how many of these one after another a second."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        with _connect(port) as sock:
            sock.sendall(b"x")
            if sock.recv(1) != b"x":
                raise Wrong("a connection ended before its answer")
        count += 1
    return count / (time.perf_counter() - start)


def burst(ports: list[int], count: int, limit: float) -> tuple[int, float]:
    """Open many connections at once, each with four bytes there and back.

    Args:
        ports: taken in turn.
        count: how many connections.
        limit: seconds after which what has not come is given up.

    Returns:
        How many were served, and the seconds until the last of them was.
    """
    start, served, last = time.perf_counter(), 0, 0.0
    socks = [socket.socket() for _ in range(count)]
    with selectors.DefaultSelector() as selector:
        rounds = dict.fromkeys(socks, 0)
        for index, sock in enumerate(socks):
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", ports[index % len(ports)]))
            selector.register(sock, selectors.EVENT_WRITE)
        while selector.get_map() and (left := start + limit - time.perf_counter()) > 0:
            for key, mask in selector.select(left):
                one = key.fileobj
                assert isinstance(one, socket.socket)
                try:
                    if mask & selectors.EVENT_READ:
                        if one.recv(1) != b"x":
                            raise ConnectionResetError
                        rounds[one] += 1
                    if rounds[one] == 4:
                        served, last = served + 1, time.perf_counter() - start
                        selector.unregister(one)
                        continue
                    one.send(b"x")
                    selector.modify(one, selectors.EVENT_READ)
                except OSError:
                    selector.unregister(one)  # not served
    for sock in socks:
        sock.close()
    return served, last


def load(port: int, direction: str) -> float:
    """Move bytes until standard input ends; say GO once they flow. Return bytes a second."""
    end, moved = _ended(), 0
    with _connect(port) as sock:
        sock.sendall(REQUEST.pack(b"D" if direction == "down" else b"U", False, ENDLESS))
        start, started = time.perf_counter(), False
        buffer = bytearray(CHUNK)
        while not end.is_set():
            moved += sock.recv_into(buffer) if direction == "down" else sock.send(buffer)
            if not started and moved > 16 * CHUNK:
                started = True
                print("GO", flush=True)
        return moved / (time.perf_counter() - start)


def hold(ports: list[int], count: int) -> int:
    """Hold connections open, each proven by a byte there and back, until standard input ends; say GO then.

    Args:
        ports: taken in turn.
        count: how many connections.

    Returns:
        How many were still carried at the end.
    """
    end, socks = _ended(), []
    for index in range(count):
        sock = _connect(ports[index % len(ports)])
        sock.sendall(b"x")
        if sock.recv(1) != b"x":
            raise Wrong(f"connection {index} of {count} was not carried")
        socks.append(sock)
    print("GO", flush=True)
    end.wait()
    alive = 0
    for sock in socks:
        sock.sendall(b"y")
        alive += sock.recv(1) == b"y"
    return alive


if __name__ == "__main__":
    main()
