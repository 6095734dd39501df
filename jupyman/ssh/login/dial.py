"""Connect to a host's sshd: by TCP, or by the user's ProxyCommand."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import subprocess
import threading
import time
from typing import Any

from jupyman import errors
from jupyman.ssh.config.ssh_g import HostConfig
from jupyman.ssh.io.socket_pair import pair

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_TIMED_OUT = -1  # not an error number of the system


def tcp(
    config: HostConfig, timeout: float, cancelled: threading.Event | None, reach: float | None = None
) -> socket.socket:
    """Connect by TCP, trying each address in turn.

    Args:
        config: of the host.
        timeout: seconds for the name and all addresses together.
        cancelled: ends the attempt.
        reach: seconds for each address, if that is less.

    Returns:
        A blocking socket with TCP_NODELAY: without it the handshake costs two more round trips.

    Raises:
        UnknownHost: the name is no alias and does not resolve.
        HostUnreachable: refused, no route, no answer, or a configured name that does not resolve; HostSilent if the
            host itself did not answer, not even by a refusal.
        Interrupted: cancelled.
    """
    deadline = time.monotonic() + timeout
    try:
        addresses = _resolve(config, timeout, cancelled)
    except (socket.gaierror, UnicodeError) as error:
        if config.configured:
            raise errors.HostSilent(
                f"{config.alias}: the name {config.hostname} does not resolve",
                "check the network, the VPN, and HostName",
            ) from error
        raise errors.UnknownHost(
            f"there is no host {config.alias!r}: it is no alias, and the name does not resolve",
            "add it to ~/.ssh/config, or write user@address; jupyman host ls shows the known hosts",
        ) from error
    reason, silent = "no address", True
    for index, (kind, _, _, _, address) in enumerate(addresses):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        share = left if index == len(addresses) - 1 else min(left, max(2.0, timeout / 3))
        share = min(share, reach or share)
        try:
            sock = socket.socket(kind, socket.SOCK_STREAM)
        except OSError as error:  # a kernel without IPv6
            reason = error.strerror or str(error)
            continue
        try:
            code = _attempt(sock, address, share, cancelled)
        except BaseException:
            sock.close()
            raise
        if not code:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return sock
        sock.close()
        reason = f"no answer in {share:.0f} s" if code == _TIMED_OUT else _words(code)
        silent = silent and code != errno.ECONNREFUSED
    text = f"{config.alias} ({config.hostname} port {config.port}): {reason}"
    raise errors.HostSilent(text) if silent else errors.HostUnreachable(text)


def _resolve(config: HostConfig, timeout: float, cancelled: threading.Event | None) -> list[Any]:
    """Look the name up; the resolver has no timeout and, without a network, takes up to half a minute."""
    family = _FAMILIES.get(config.address_family, socket.AF_UNSPEC)
    answer: list[Any] = []
    answered = threading.Event()

    def look() -> None:
        try:
            answer.append(socket.getaddrinfo(config.hostname, config.port, family, socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.append(error)
        answered.set()

    threading.Thread(target=look, name=f"resolve {config.hostname}", daemon=True).start()
    deadline = time.monotonic() + timeout
    while not answered.wait(0.1):
        if cancelled is not None and cancelled.is_set():
            raise errors.Interrupted("interrupted while looking up the name")
        if time.monotonic() >= deadline:
            raise errors.HostSilent(f"{config.alias}: the name {config.hostname} was not resolved in {timeout:.0f} s")
    if isinstance(answer[0], Exception):
        raise answer[0]
    found: list[Any] = answer[0]
    return found


def _attempt(sock: socket.socket, address: object, timeout: float, cancelled: threading.Event | None) -> int:
    """Connect; return the number of the error, 0 if there is none."""
    sock.setblocking(False)
    code = sock.connect_ex(address)  # type: ignore[arg-type]  # as getaddrinfo returned it
    if code not in {0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY}:
        return code
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        while not selector.select(min(0.1, max(0.0, deadline - time.monotonic()))):
            if cancelled is not None and cancelled.is_set():
                raise errors.Interrupted("interrupted while connecting")
            if time.monotonic() >= deadline:
                return _TIMED_OUT
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    sock.setblocking(True)
    return code


def _words(code: int) -> str:
    known = {
        errno.ECONNREFUSED: "connection refused",
        errno.EHOSTUNREACH: "no route to the host",
        errno.ENETUNREACH: "no route to the network",
        errno.ETIMEDOUT: "no answer",
    }
    return known.get(code, os.strerror(code))


def proxy(config: HostConfig) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the user's ProxyCommand and return a socket to its stdin and stdout.

    Args:
        config: with `proxy_command`, tokens expanded.

    Raises:
        HostUnreachable: it cannot be started.
        ConfigFault: on Windows, where a process cannot have a socket as its stdin.
    """
    assert config.proxy_command is not None  # noqa: S101 - the caller looked
    if os.name == "nt":
        raise errors.ConfigFault(f"{config.alias}: ProxyCommand is not supported on Windows", "use ProxyJump instead")
    ours, its = pair()
    # As ssh does (sshconnect.c, ssh_proxy_connect): the user's own shell runs the user's own command.
    shell = os.environ.get("SHELL") or "/bin/sh"
    try:
        process = subprocess.Popen(
            [shell, "-c", f"exec {config.proxy_command}"],
            stdin=its.fileno(),
            stdout=its.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C on `jupyman daemon run` must not reach it
        )
    except OSError as error:
        ours.close()
        raise errors.HostUnreachable(f"{config.alias}: the ProxyCommand cannot be started: {error}") from error
    finally:
        its.close()
    return ours, process
