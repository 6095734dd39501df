"""Bind a local port, and find out who holds it if it is taken."""

from __future__ import annotations

import errno
import os
import socket

from jupyman import errors
from jupyman.model.endpoint import LOOPBACK

BACKLOG = 512
# As many as Jupyter itself would try (ServerApp.port_retries).
TRIES = 50


def bind(port: int, *, strict: bool, address: str = LOOPBACK) -> tuple[socket.socket, str]:
    """Listen on a local port.

    Args:
        port: the preferred one.
        strict: this one or none; else the next that is free, at last any.
        address: local address.

    Returns:
        The socket, and " (held by …)" if the preferred port is taken, else "".

    Raises:
        PortInUse: no port can be bound.
    """
    text = ""
    hint = "free it, or choose another with --local-port"
    for candidate in [port] if strict else [*range(port, min(port + TRIES, 65536)), 0]:
        try:
            sock = _listen(address, candidate)
        except OSError as error:
            if error.errno not in {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL}:
                raise errors.PortInUse(f"local port {candidate}: {error.strerror}", hint, port=port) from error
            if candidate == port:
                text = " (needs root)" if error.errno == errno.EACCES else holder(port)
        else:
            return sock, text
    raise errors.PortInUse(f"local port {port} is taken{text}", hint, port=port)


def _listen(address: str, port: int) -> socket.socket:
    if port and os.name == "posix" and _answers(address, port):
        # If a program listens on every address, macOS still allows the narrower bind, and would share the port.
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # To bind the same port again after a restart; on Windows it would let two programs share it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _answers(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        # TCP connects a socket to itself if the kernel happens to choose that very port for its other end.
        return probe.connect_ex((address, port)) == 0 and probe.getsockname()[:2] != probe.getpeername()[:2]


def holder(port: int) -> str:
    """Return " (held by NAME, pid N)" for a local port, "" if that cannot be seen (macOS needs root for it)."""
    import psutil

    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError, RuntimeError):
        return ""
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            if connection.pid is None:
                return " (held by another user's program)"
            try:
                mine = connection.pid == os.getpid()
                name = "jupyman itself" if mine else psutil.Process(connection.pid).name()
            except psutil.Error:
                name = "a program"
            return f" (held by {name}, pid {connection.pid})"
    return ""
