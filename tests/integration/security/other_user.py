"""Another user of this computer, who connects to our ports or takes them over."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bed import User

# Sends a text to a port and prints what comes back; an end or a reset prints an empty line.
SPEAK = """
import socket, sys
c = socket.socket()
c.settimeout(20)
c.connect(("127.0.0.1", int(sys.argv[1])))
try:
    c.sendall(sys.argv[2].encode())
    c.shutdown(socket.SHUT_WR)
    print(c.recv(9999).decode())
except OSError:
    print()
"""
# Connects, sends and closes, so that the kernel no longer knows the owner of the connection.
HIT = """
import socket, sys
for _ in range(200):
    c = socket.socket()
    c.connect(("127.0.0.1", int(sys.argv[1])))
    try:
        c.send(sys.argv[2].encode())
    except OSError:
        pass
    c.close()
"""
# Takes a port as soon as it is free, appends all that comes to a file, and answers each connection with a text.
STAND_IN = """
import socket, sys, time
while True:
    try:
        s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
        break
    except OSError:
        time.sleep(0.01)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    c.settimeout(10)
    try:
        heard = c.recv(9999)
        with open(sys.argv[2], "ab") as file:
            file.write(heard)
        c.sendall(sys.argv[3].encode())
        c.shutdown(socket.SHUT_WR)
        with open(sys.argv[2], "ab") as file:
            while heard:
                heard = c.recv(9999)
                file.write(heard)
    except OSError:
        pass
    c.close()
"""


def said_by(user: User, port: int, text: str = "hello") -> str:
    """Send a text to a port as another user; return what comes back."""
    return user.run("python3", "-c", SPEAK, str(port), text).stdout.strip()


def hit(user: User, port: int, text: str) -> None:
    """Connect 200 times to a port as another user, send a text and close at once."""
    done = user.run("python3", "-c", HIT, str(port), text)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def standing_in(user: User, port: int, reply: str, then: Callable[[], None]) -> Iterator[Path]:
    """Take a port as another user once `then` has freed it.

    Args:
        user: the other user.
        port: of loopback.
        reply: sent on each connection.
        then: frees the port.

    Yields:
        The file with all that the other user receives.
    """
    heard = user.put("heard", "")
    words = ("python3", "-c", STAND_IN, str(port), str(heard), reply)
    with user.start(*words, stdout=subprocess.PIPE) as process:
        try:
            then()
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield heard
        finally:
            process.kill()
