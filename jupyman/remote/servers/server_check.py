# ruff: noqa: UP006, UP032, UP035, UP045 - this runs on the host, on Python 3.6 as well
"""Runs on the host, by the environment's own Python (3.6+), around the start of a server or a change of its token.

``prepare DIRECTORY APP PORT...``: check that a kernel's socket can be bound there; print ``sock yes`` if the server itself
can listen on one, and ``free PORT`` or ``taken PORT``.
``answers ENDPOINT TOKENFILE``: print the HTTP status of /api/status without and with the token.
``renewed ENDPOINT TOKENFILE OLDFILE``: print that status with the token, and with the former one.
"""

import http.client
import os
import socket
import sys
from typing import List, Optional

# The longest name of a socket that jupyter_client makes in a runtime directory: kernel-<uuid>-ipc-<n> (connect.py, ConnectionFileMixin._ip_default).
LONGEST = "kernel-00000000-0000-0000-0000-000000000000-ipc-99"
PATH_MAX = 107  # sun_path in sys/un.h, less its NUL


def can_socket(app: str) -> bool:
    """Servers before jupyter_server 2 and notebook 6, which is a server of its own, were not tried with sockets."""
    try:
        from importlib.metadata import PackageNotFoundError, version
    except ImportError:  # Python 3.7 and older: no such server runs there
        return False
    try:
        major = int(version("jupyter_server").split(".")[0])
        return major >= 2 and (app != "notebook" or int(version("notebook").split(".")[0]) >= 7)
    except (PackageNotFoundError, ValueError):
        return False


def prepare(directory: str, app: str, ports: List[str]) -> None:
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
    if can_socket(app):
        print("sock yes")
    for port in ports:
        tcp = socket.socket()
        # As tornado binds: a port in TIME_WAIT is free, one with a listener is not.
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tcp.bind(("127.0.0.1", int(port)))
            tcp.listen(1)
            print("free", port)
        except OSError as error:
            print("taken", port, "({})".format(error.strerror))
        finally:
            tcp.close()


class Local(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str) -> None:
        http.client.HTTPConnection.__init__(self, "localhost", timeout=25)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(endpoint: str, token: Optional[str]) -> int:
    if endpoint.startswith("/"):
        connection = Local(endpoint)  # type: http.client.HTTPConnection
    else:
        connection = http.client.HTTPConnection("127.0.0.1", int(endpoint), timeout=25)
    connection.request("GET", "/api/status", headers={"Authorization": "token " + token} if token else {})
    return connection.getresponse().status


def read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def main() -> None:
    if sys.argv[1] == "prepare":
        prepare(sys.argv[2], sys.argv[3], sys.argv[4:])
    elif sys.argv[1] == "renewed":
        print(ask(sys.argv[2], read(sys.argv[3])), ask(sys.argv[2], read(sys.argv[4])))
    else:
        print(ask(sys.argv[2], None), ask(sys.argv[2], read(sys.argv[3])))


main()
