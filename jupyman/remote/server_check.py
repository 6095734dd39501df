# ruff: noqa: UP006, UP032, UP035, UP045 - this runs on the host, on Python 3.6 as well
"""Runs on the host, by the environment's own Python (3.6+), before and after the start of a server.

``prepare DIRECTORY PORT...``: can a kernel's socket be bound there; prints ``free PORT`` or ``taken PORT``.
``answers PORT TOKENFILE``: the HTTP status of /api/status without and with the token.
"""

import http.client
import os
import socket
import sys
from typing import List, Optional

# What jupyter_client makes of a runtime directory: kernel-<uuid>-ipc-<n> (connect.py, ConnectionFileMixin._ip_default).
LONGEST = "kernel-00000000-0000-0000-0000-000000000000-ipc-99"
PATH_MAX = 107  # sun_path in sys/un.h, less its NUL


def prepare(directory: str, ports: List[str]) -> None:
    path = os.path.join(directory, LONGEST)
    if len(os.fsencode(path)) > PATH_MAX:
        sys.exit("the path of the kernels' sockets is too long: " + directory)
    unix = socket.socket(socket.AF_UNIX)
    try:
        unix.bind(path)
        os.unlink(path)
    except OSError as error:
        sys.exit("no socket for kernels can be made in {}: {}".format(directory, error.strerror))
    finally:
        unix.close()
    for port in ports:
        tcp = socket.socket()
        # As tornado binds: a port in TIME_WAIT is free, one that somebody listens on is not.
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tcp.bind(("127.0.0.1", int(port)))
            tcp.listen(1)
            print("free", port)
        except OSError as error:
            print("taken", port, "({})".format(error.strerror))
        finally:
            tcp.close()


def ask(port: int, token: Optional[str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=25)
    connection.request("GET", "/api/status", headers={"Authorization": "token " + token} if token else {})
    return connection.getresponse().status


def main() -> None:
    if sys.argv[1] == "prepare":
        prepare(sys.argv[2], sys.argv[3:])
    else:
        with open(sys.argv[3]) as file:
            token = file.read().strip()
        port = int(sys.argv[2])
        print(ask(port, None), ask(port, token))


main()
