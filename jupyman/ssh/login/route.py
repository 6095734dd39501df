"""The route to a host: its socket, directly or through jump hosts; the handshake; the host's key; the login."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import paramiko

from jupyman import errors
from jupyman.ssh.channels import channel_socket
from jupyman.ssh.channels.transport import BROKEN, Transport
from jupyman.ssh.config import ssh_g as configuration
from jupyman.ssh.config.ssh_g import HostConfig
from jupyman.ssh.login import auth, dial, hostkeys
from jupyman.ssh.login.auth import Credentials, Keyring
from jupyman.ssh.wire.compat import printable

log = logging.getLogger(__name__)

MAX_HOPS = 8


@dataclass
class Route:
    """Transports from the first jump host to the host itself, and the processes of ProxyCommands."""

    chain: list[Transport] = field(default_factory=list)
    helpers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def close(self) -> None:
        """Close everything, the last first."""
        for transport in reversed(self.chain):
            try:
                transport.close()
            except (OSError, EOFError, paramiko.SSHException) as error:
                log.debug("closing: %s", error)
        for process in self.helpers:
            process.terminate()
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(frozen=True)
class LoginContext:
    """Credentials, limits and cancellation of one login.

    Attributes:
        credentials: of the caller.
        keyring: of the daemon.
        timeout: seconds for each machine on the route.
        cancelled: ends the login.
        reach: seconds for TCP to connect to one address, if less than `timeout`.
    """

    credentials: Credentials
    keyring: Keyring
    timeout: float
    cancelled: threading.Event | None = None
    reach: float | None = None


def connect(config: HostConfig, context: LoginContext, route: Route, depth: int = 0) -> None:
    """Connect to a host through its jump hosts, verify and log in to each, and append them to the route.

    Raises:
        JupymanError: as `Link.open`; the caller closes the route.
    """
    if depth > MAX_HOPS:
        raise errors.ConfigFault(
            f"more than {MAX_HOPS} jump hosts lead to {config.alias}",
            "does a ProxyJump lead to itself? set ProxyJump none for the jump host",
        )
    deadline = time.monotonic() + (config.connect_timeout or context.timeout)
    sock: socket.socket
    if config.proxy_jump:
        # As `ssh -J a,b host`: a by its own configuration, b through a, the host through b.
        for index, hop in enumerate(config.proxy_jump):
            before = configuration.read(hop, ssh_config=config.ssh_config)
            if index == 0:
                connect(before, context, route, depth + 1)
            else:
                limit = time.monotonic() + (before.connect_timeout or context.timeout)
                sock = _through(route.chain[-1], before, limit)
                route.chain.append(_enter(before, sock, limit, context))
        deadline = time.monotonic() + (config.connect_timeout or context.timeout)
        sock = _through(route.chain[-1], config, deadline)
    elif config.proxy_command is not None:
        sock, process = dial.proxy(config)
        route.helpers.append(process)
    else:
        sock = dial.tcp(config, deadline - time.monotonic(), context.cancelled, context.reach)
    route.chain.append(_enter(config, sock, deadline, context))


def _through(transport: Transport, config: HostConfig, deadline: float) -> socket.socket:
    target = (config.hostname, config.port)
    try:
        return channel_socket.connect(transport.channels, target, max(1.0, deadline - time.monotonic()))
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise errors.HostUnreachable(
            f"{config.alias} ({config.hostname} port {config.port}) cannot be reached from the jump host: {error}",
            f"try `ssh {config.alias}` by hand",
        ) from error


def _enter(config: HostConfig, sock: socket.socket, deadline: float, context: LoginContext) -> Transport:
    """Exchange keys, verify the host, log in; close the socket if that fails."""
    transport = handshake(config, sock, deadline, context.cancelled)
    try:
        with _ended_by(context.cancelled, transport):
            hostkeys.verify(config, transport.get_remote_server_key(), context.credentials.ask)
            auth.login(transport, config, context.credentials, context.keyring)
    except BROKEN as error:  # it ended between two steps
        transport.close()
        raise errors.LinkLost(f"{config.alias} ended the connection during the login: {transport.reason}") from error
    except BaseException:
        transport.close()
        raise
    return transport


@contextlib.contextmanager
def _ended_by(cancelled: threading.Event | None, transport: Transport) -> Iterator[None]:
    """Close the transport as soon as `cancelled` is set, and raise; paramiko's own waits cannot be cancelled."""
    if cancelled is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if cancelled.wait(0.2):
                if not done.is_set():
                    transport.close()
                return

    threading.Thread(target=watch, name="login watch", daemon=True).start()
    try:
        yield
    except errors.JupymanError as error:
        if cancelled.is_set() and not isinstance(error, errors.HostKeyFault):
            raise errors.Interrupted("interrupted while logging in") from error
        raise
    finally:
        done.set()
    if cancelled.is_set():
        raise errors.Interrupted("interrupted while logging in")


def handshake(config: HostConfig, sock: socket.socket, deadline: float, cancelled: threading.Event | None) -> Transport:
    """Exchange keys over a connected socket; nothing secret is sent, and the host's key is not verified yet.

    Args:
        config: of the host: known types of its key are requested first.
        sock: connected; closed if this fails.
        deadline: on the monotonic clock.
        cancelled: ends the attempt.

    Raises:
        HostUnreachable: no SSH server answers in time, or there is no common algorithm.
        Interrupted: cancelled.
    """
    left = max(1.0, deadline - time.monotonic())
    try:
        transport = Transport(sock)
    except (paramiko.SSHException, EOFError, OSError) as error:
        sock.close()
        raise errors.HostUnreachable(f"{config.alias}: no SSH connection: {error}") from error
    transport.banner_timeout = transport.handshake_timeout = left + 1.0  # the limit below comes first
    options = transport.get_security_options()
    options.key_types = hostkeys.preferred(config, tuple(options.key_types))
    done = threading.Event()
    transport.start_client(event=done)
    limit = time.monotonic() + left
    while not done.wait(0.1) and transport.is_active() and time.monotonic() < limit:
        if cancelled is not None and cancelled.is_set():
            transport.close()
            raise errors.Interrupted("interrupted while connecting")
    if done.is_set() and transport.is_active():
        return transport
    ended = not transport.is_active()
    failure = transport.get_exception()
    transport.close()
    if isinstance(failure, paramiko.ssh_exception.IncompatiblePeer):
        raise errors.HostUnreachable(
            f"{config.alias} and jupyman have no common algorithm: {printable(str(failure))}",
            f"its sshd may be very old or very strict: compare with `ssh -v {config.alias}`",
        )
    if "banner" in str(failure):  # paramiko, Transport._check_banner
        raise errors.HostUnreachable(
            f"{config.alias} ({config.hostname} port {config.port}): no SSH server answers, or it refuses connections",
            f"check HostName and Port; `ssh -v {config.alias}` shows more",
        )
    why = printable(str(failure)) if failure is not None and str(failure) else f"no SSH handshake in {left:.0f} s"
    if ended and transport.disconnect_text is not None:
        why = transport.disconnect_text
    raise errors.HostUnreachable(f"{config.alias} ({config.hostname} port {config.port}): {why}")
