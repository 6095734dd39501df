"""Impersonates a Jupyter server on a port and appends all that it receives to a file: run as any account.

Arguments: PORT FILE. It answers each request as a server that accepts every token, prints READY once it listens (it
waits for a port that is still taken), and ends with its standard input.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

BODY = b'{"version": "2.21.1", "started": "2026-03-03T10:00:00Z", "kernels": 0, "connections": 0, "last_activity": ""}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def main() -> None:
    """Listen, answer and record."""
    port, path = int(sys.argv[1]), sys.argv[2]
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    while True:
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(64)
            break
        except OSError:
            time.sleep(0.002)  # an attacker would do the same
    print("READY", flush=True)

    def serve(connection: socket.socket) -> None:
        with open(path, "ab", buffering=0) as file:  # noqa: PTH123 - run by an old Python, too
            while True:
                data = connection.recv(65536)
                if not data:
                    return
                file.write(data)
                connection.sendall(ANSWER)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
