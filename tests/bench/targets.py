"""What the forwards lead to: ``python -m tests.bench.targets bulk|echo``, a program that ends with its standard input.

``bulk`` reads a request of `REQUEST` and sends, or takes, so many bytes; ``echo`` returns what it gets. Each prints its
port. They run in processes of their own, so that neither waits for the other's turn in an interpreter.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import resource
import selectors
import socket
import struct
import sys
import threading

# What is asked for (b"D"own or b"U"p), whether the answer carries a SHA-256, and the bytes.
REQUEST = struct.Struct("!c?Q")
ANSWER = struct.Struct("!Q32s")  # of an upload: the bytes that came, and their SHA-256 if requested
BLOCK = random.Random(0).randbytes(1 << 20)  # a download repeats it
CHUNK = 1 << 18
BACKLOG = 4096


def main() -> None:
    """Serve until standard input ends."""
    raise_limit()
    server = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    print(server.getsockname()[1], flush=True)
    serve = {"bulk": _bulk, "echo": _echo}[sys.argv[1]]
    threading.Thread(target=serve, args=(server,), daemon=True).start()
    sys.stdin.buffer.read()


def raise_limit() -> None:
    """Allow this process as many file descriptors as it may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _bulk(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = connection.recv(REQUEST.size, socket.MSG_WAITALL)
        if len(head) < REQUEST.size:
            return
        what, hashed, size = REQUEST.unpack(head)
        if what == b"D":
            send(connection, size)
        else:
            got, digest = receive(connection, size, hashed=hashed)
            connection.sendall(ANSWER.pack(got, digest))


def send(sock: socket.socket, size: int) -> None:
    """Send `size` bytes of repeated `BLOCK`."""
    block, left = memoryview(BLOCK), size
    while left:
        sock.sendall(block[: min(left, len(block))])
        left -= min(left, len(block))


def receive(sock: socket.socket, size: int, *, hashed: bool) -> tuple[int, bytes]:
    """Take up to `size` bytes.

    Returns:
        How many came before the end, and their SHA-256 (zeros if it was not requested).
    """
    buffer = memoryview(bytearray(CHUNK))
    got, digest = 0, hashlib.sha256()
    while got < size:
        count = sock.recv_into(buffer, min(CHUNK, size - got))
        if count == 0:
            break
        got += count
        if hashed:
            digest.update(buffer[:count])
    return got, digest.digest() if hashed else bytes(32)


def expected(size: int) -> bytes:
    """Return the SHA-256 of what `send` sends."""
    digest, left = hashlib.sha256(), size
    while left:
        digest.update(memoryview(BLOCK)[: min(left, len(BLOCK))])
        left -= min(left, len(BLOCK))
    return digest.digest()


def _echo(server: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is server:
                    connection, _ = server.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(connection, selectors.EVENT_READ)
                    continue
                data = b""
                with contextlib.suppress(OSError):
                    data = sock.recv(65536)
                    sock.sendall(data)
                if not data:
                    selector.unregister(sock)
                    sock.close()


if __name__ == "__main__":
    main()
