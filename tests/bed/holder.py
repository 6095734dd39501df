"""Holds a TCP port and prints READY: run with any Python, as any account.

Arguments: ADDRESS PORT MODE. PORT 0 takes a free one. MODE ``listen`` accepts and closes, ``bind`` only binds. It ends
with its standard input.
"""

from __future__ import annotations

import socket
import sys
import threading


def main() -> None:
    """Hold the port until standard input ends."""
    address, port, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    held = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((address, port))
    if mode == "listen":
        held.listen()

        def serve() -> None:
            while True:
                held.accept()[0].close()

        threading.Thread(target=serve, daemon=True).start()
    print("READY", held.getsockname()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
