"""fabric's forwards in a process of their own: it leaves sockets and threads behind when it fails.

``python -m tests.integration.ssh.fabric_ports ADDRESS PORT USER KEY`` reads lines of JSON: ``null`` is a new connection
in place of the one before, ``[HOST, PORT, LOCAL_ADDRESS]`` a forward on it, answered with its local port, or null when
it does not come up. It ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

from tests.bed.sshd import Sshd

WAIT = 2.0  # seconds for a forward to listen


class Ports:
    """The process, from the tests' side."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def reset(self) -> None:
        """Connect anew."""
        self._ask(None)

    def listen(self, host: str, port: int, address: str) -> int:
        """Forward; return the local port."""
        answer = self._ask([host, port, address])
        assert isinstance(answer, int), "fabric does not listen"
        return answer

    def _ask(self, what: object) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def running(sshd: Sshd) -> Iterator[Ports]:
    """Run it."""
    words = [
        sys.executable,
        "-m",
        "tests.integration.ssh.fabric_ports",
        sshd.address,
        str(sshd.port),
        _user(),
        str(sshd.client_key),
    ]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield Ports(process)
        finally:
            process.kill()


def _user() -> str:
    import getpass

    return getpass.getuser()


def main() -> None:
    """Do as asked until input ends."""
    from fabric import Config, Connection
    from paramiko import SSHConfig

    address, port, user, key = sys.argv[1:]
    connection, contexts = None, []
    for line in sys.stdin:
        asked = json.loads(line)
        answer: int | None = None
        if asked is None:
            keys = {"key_filename": key, "allow_agent": False, "look_for_keys": False}
            connection = Connection(
                address, user, int(port), config=Config(ssh_config=SSHConfig(), lazy=True), connect_kwargs=keys
            )
            connection.open()
        elif connection is not None:
            host, remote, local = asked
            with socket.create_server((local, 0), family=socket.AF_INET6 if ":" in local else socket.AF_INET) as probe:
                free = probe.getsockname()[1]
            contexts.append(connection.forward_local(free, remote, host, local))  # kept: its end would close it
            contexts[-1].__enter__()
            answer = free if _listens(free) else None
        print(json.dumps(answer), flush=True)
    os._exit(0)  # its threads do not end by themselves


def _listens(port: int) -> bool:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        held = psutil.Process().net_connections("tcp")
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in held):
            return True
        time.sleep(0.01)  # there is no event for it
    return False


if __name__ == "__main__":
    main()
