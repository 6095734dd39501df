"""The link: our one SSH connection to a host. All commands and forwards of that host ride on it.

Every exception of paramiko and of sockets becomes one of ours at this border.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paramiko

from jupyman import errors
from jupyman.ssh import auth, connect, hostkeys
from jupyman.ssh import config as configuration
from jupyman.ssh.auth import Credentials, Keyring
from jupyman.ssh.config import HostConfig
from jupyman.ssh.transport import Transport

log = logging.getLogger(__name__)
# paramiko writes to its own logger and, where nobody listens, to stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("jupyman.paramiko").setLevel(logging.CRITICAL)

Address = tuple[str, int]

# sshd's MaxSessions is 10 by default, and the user's own ssh may share nothing with us, but be modest.
MAX_COMMANDS = 6
MAX_HOPS = 8
CHANNEL_TIMEOUT = 15.0
_CHUNK = 65536
# RFC 4254 section 5.1.
_PROHIBITED, _CONNECT_FAILED = 1, 2


@dataclass(frozen=True)
class Completed:
    """A finished command; `status` None: it was killed or the link ended."""

    stdout: bytes
    stderr: bytes
    status: int | None


class _Client(paramiko.SSHClient):
    """A client whose transport is already verified and logged in: fabric's `open` finds it so."""

    def __init__(self, transport: paramiko.Transport) -> None:
        super().__init__()
        self._transport = transport

    def connect(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


class Bell(threading.Event):
    """An event for paramiko's buffers that is never cleared by them: two buffers share it."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    def set(self) -> None:
        """Ring."""
        self._ring()

    def clear(self) -> None:
        """Ignore: the loop looks at the buffers themselves."""


class Link:
    """An SSH connection that is up, or was. Made by `open`."""

    def __init__(self, config: HostConfig, chain: list[Transport], helpers: list[subprocess.Popen[bytes]]) -> None:
        from fabric import Config, Connection

        self.config = config
        self.transport = chain[-1]
        self._chain = chain
        self._helpers = helpers
        self._commands = threading.Semaphore(MAX_COMMANDS)
        self._running = 0
        self._finished = threading.Condition()
        self._reason: str | None = None
        try:
            self.peer: str | None = chain[0].getpeername()[0]
        except (OSError, AttributeError, IndexError, TypeError):
            self.peer = None
        # fabric holds the connection: uploads and channels are its own. Not its `run` (stdin goes a byte per 10 ms),
        # its host key policy (accepts everything) or its forwards (ADR 3). An empty SSH config, because ours was
        # read by ssh itself.
        self.connection = Connection(
            config.hostname, user=config.user, port=config.port, config=Config(ssh_config=paramiko.SSHConfig())
        )
        self.connection.client = _Client(self.transport)
        self.connection.open()

    @classmethod
    def open(
        cls,
        config: HostConfig,
        credentials: Credentials,
        keyring: Keyring,
        *,
        timeout: float = 10.0,
        cancelled: threading.Event | None = None,
    ) -> Link:
        """Connect, verify the host's key, log in.

        Args:
            config: of the host.
            credentials: of the caller.
            keyring: of the daemon.
            timeout: seconds to reach each machine on the way, and for its handshake.
            cancelled: ends the attempt.

        Raises:
            UnknownHost, HostUnreachable: no connection.
            HostKeyFault: unknown, changed or revoked key; nothing secret was sent.
            AuthenticationFailed: no credential was taken.
            LinkLost: it ended on the way.
            Interrupted: cancelled.
        """
        chain: list[Transport] = []
        helpers: list[subprocess.Popen[bytes]] = []
        try:
            _climb(config, credentials, keyring, timeout, cancelled, chain, helpers, depth=0)
            return cls(config, chain, helpers)
        except BaseException:
            _close(chain, helpers)
            raise

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the connection has not ended, as far as is known."""
        return bool(self.transport.is_active())

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the reason, once, in a thread of paramiko's, when the connection has ended."""

        def ended() -> None:
            error = self.transport.saved_exception
            callback(self._reason or (str(error) if error is not None and str(error) else "the connection ended"))

        self.transport.on_end(ended)

    def heartbeat(self, timeout: float) -> float:
        """Ask for a sign of life.

        Args:
            timeout: seconds.

        Returns:
            Seconds until it came.

        Raises:
            LinkLost: it did not come.
        """
        start = time.monotonic()
        if not self.transport.ping(timeout):
            self._reason = f"no answer in {timeout:.0f} s" if self.alive else "the connection ended"
            raise errors.LinkLost(f"{self.config.alias}: {self._reason}")
        return time.monotonic() - start

    def close(self) -> None:
        """End the connection and everything on it."""
        self._reason = self._reason or "closed"
        _close(self._chain, self._helpers)

    # --- commands -------------------------------------------------------------------------------------------------

    def run(
        self,
        script: str,
        *,
        timeout: float,
        limit: int = 4 * 1024 * 1024,
        on_line: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> Completed:
        """Run a script by ``/bin/sh -s``: one word that every login shell understands, the script on stdin.

        Args:
            script: its text.
            timeout: seconds until the channel is closed.
            limit: bytes kept of stdout and of stderr; the rest is read and dropped.
            on_line: called with each line of stdout as it comes.
            cancelled: closes the channel.

        Returns:
            What it left.

        Raises:
            LinkLost: the connection ended.
            RemoteFailed: `timeout` passed, or the host starts no shell.
            Interrupted: cancelled.
        """
        deadline = time.monotonic() + timeout
        with self._commands:
            channel = self._session(deadline)
            try:
                return self._talk(channel, script, deadline, limit, on_line, cancelled)
            except (OSError, EOFError, paramiko.SSHException) as error:
                if self.alive:
                    raise errors.RemoteFailed(f"{self.config.alias} starts no shell: {error}") from error
                raise errors.LinkLost(f"the link to {self.config.alias} was lost") from error
            finally:
                channel.close()
                with self._finished:
                    self._running -= 1
                    self._finished.notify_all()

    def put(self, local: str, remote: str) -> None:
        """Upload a file.

        Raises:
            LinkLost: the connection ended.
            RemoteFailed: the host refused it.
        """
        try:
            self.connection.put(local, remote)
        except (OSError, EOFError, paramiko.SSHException) as error:
            if self.alive:
                raise errors.RemoteFailed(f"{remote} could not be written: {error}") from error
            raise errors.LinkLost(f"the link to {self.config.alias} was lost") from error

    def open_channel(self, target: Address, timeout: float = CHANNEL_TIMEOUT) -> paramiko.Channel:
        """Open a byte stream to an address as the host sees it.

        Args:
            target: address and port.
            timeout: seconds; paramiko's own default is an hour.

        Raises:
            ForwardingRefused: sshd forbids it; with details["target_refused"] where nothing listens there.
            LinkLost: the connection ended.
        """
        try:
            return self.transport.open_channel("direct-tcpip", target, ("127.0.0.1", 0), timeout=timeout)
        except paramiko.ChannelException as error:
            place = f"{target[0]}:{target[1]}"
            if error.code == _CONNECT_FAILED:
                raise errors.ForwardingRefused(
                    f"nothing answers on {place} of {self.config.alias}", "start the program there first", target_refused=True
                ) from error
            raise errors.ForwardingRefused(
                f"{self.config.alias} does not allow forwarding to {place} (sshd: {error.text or error.code})"
            ) from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            if self.alive:
                raise errors.ForwardingRefused(f"no stream to {target[0]}:{target[1]}: {error}", target_refused=True) from error
            raise errors.LinkLost(f"the link to {self.config.alias} was lost") from error

    def _session(self, deadline: float) -> paramiko.Channel:
        """Open a session channel; where the server allows few (MaxSessions), wait for one of ours to end."""
        while True:
            try:
                channel: paramiko.Channel = self.transport.open_session(timeout=max(1.0, deadline - time.monotonic()))
            except paramiko.ChannelException as error:
                with self._finished:
                    if self._running == 0 or time.monotonic() >= deadline:
                        raise errors.RemoteFailed(
                            f"{self.config.alias} starts no session: {error.text or error.code}",
                            "its sshd_config may forbid it (MaxSessions, ForceCommand)",
                        ) from error
                    self._finished.wait(max(0.0, deadline - time.monotonic()))
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise errors.LinkLost(f"the link to {self.config.alias} was lost") from error
            else:
                with self._finished:
                    self._running += 1
                return channel

    def _talk(
        self,
        channel: paramiko.Channel,
        script: str,
        deadline: float,
        limit: int,
        on_line: Callable[[str], None] | None,
        cancelled: threading.Event | None,
    ) -> Completed:
        news = threading.Event()
        channel.exec_command("/bin/sh -s")
        bell = Bell(news.set)
        channel.in_buffer.set_event(bell)
        channel.in_stderr_buffer.set_event(bell)
        channel.sendall(script.encode("utf-8", "surrogateescape"))
        channel.shutdown_write()
        out, err, tail = bytearray(), bytearray(), bytearray()

        def take(chunk: bytes) -> None:
            out.extend(chunk[: max(0, limit - len(out))])
            if on_line is None:
                return
            tail.extend(chunk)
            *lines, rest = bytes(tail).split(b"\n")
            tail[:] = rest[-limit:]
            for line in lines:
                on_line(line.decode("utf-8", "replace"))

        left_open = 0
        while True:
            news.clear()
            while channel.recv_ready():
                take(channel.recv(_CHUNK))
            while channel.recv_stderr_ready():
                chunk = channel.recv_stderr(_CHUNK)
                err.extend(chunk[: max(0, limit - len(err))])
            if cancelled is not None and cancelled.is_set():
                raise errors.Interrupted("interrupted")
            if channel.exit_status_ready() and not channel.recv_ready() and not channel.recv_stderr_ready():
                # Bytes that were sent before the exit status are here; something left in the background may
                # hold the streams open for ever, so their end is awaited only shortly.
                if channel.eof_received or channel.closed or left_open:
                    break
                left_open += 1
                news.wait(0.2)
                continue
            if channel.closed or channel.eof_received:
                if channel.closed or not self.alive:
                    break
                news.wait(0.05)  # the exit status comes right behind the end of the streams
                left_open += 1
                if left_open > 100:
                    break
                continue
            if time.monotonic() >= deadline:
                raise errors.RemoteFailed(
                    f"{self.config.alias} did not finish in time", "the host may hang: a dead network file system, a full load"
                )
            # The bell rings for data; half a second is for cancellation and the deadline.
            news.wait(0.25 if cancelled is not None else 0.5)
        if not self.alive and not channel.exit_status_ready():
            raise errors.LinkLost(f"the link to {self.config.alias} was lost")
        status = channel.recv_exit_status() if channel.exit_status_ready() else None
        return Completed(stdout=bytes(out), stderr=bytes(err), status=None if status == -1 else status)


# --- making a link ------------------------------------------------------------------------------------------------


def _climb(
    config: HostConfig,
    credentials: Credentials,
    keyring: Keyring,
    timeout: float,
    cancelled: threading.Event | None,
    chain: list[Transport],
    helpers: list[subprocess.Popen[bytes]],
    *,
    depth: int,
) -> None:
    """Connect to a host, through its jump hosts, and append its transport to the chain."""
    if depth > MAX_HOPS:
        raise errors.ConfigFault(f"more than {MAX_HOPS} jump hosts: does a ProxyJump lead to itself?")
    sock: Any
    if config.proxy_jump:
        for index, hop in enumerate(config.proxy_jump):
            before = configuration.read(hop, ssh_config=config.ssh_config)
            if index == 0:
                _climb(before, credentials, keyring, timeout, cancelled, chain, helpers, depth=depth + 1)
            else:
                chain.append(_handshake(before, _through(chain[-1], before, timeout), credentials, keyring, timeout, cancelled))
        sock = _through(chain[-1], config, timeout)
    elif config.proxy_command is not None:
        sock, process = connect.proxy(config)
        helpers.append(process)
    else:
        sock = connect.tcp(config, config.connect_timeout or timeout, cancelled)
    chain.append(_handshake(config, sock, credentials, keyring, timeout, cancelled))


def _through(transport: Transport, config: HostConfig, timeout: float) -> paramiko.Channel:
    try:
        return transport.open_channel("direct-tcpip", (config.hostname, config.port), ("127.0.0.1", 0), timeout=timeout)
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise errors.HostUnreachable(
            f"{config.alias} ({config.hostname} port {config.port}) cannot be reached from the jump host: {error}",
            f"try `ssh {config.alias}` by hand",
        ) from error


def _handshake(
    config: HostConfig,
    sock: Any,
    credentials: Credentials,
    keyring: Keyring,
    timeout: float,
    cancelled: threading.Event | None,
) -> Transport:
    """Exchange keys, verify the host, log in; closes the socket where that fails."""
    transport = _kex(config, sock, timeout, cancelled)
    try:
        hostkeys.verify(config, transport.get_remote_server_key(), credentials.ask)
        if cancelled is not None and cancelled.is_set():
            raise errors.Interrupted("interrupted while connecting")
        auth.login(transport, config, credentials, keyring)
    except BaseException:
        transport.close()
        raise
    return transport


def _kex(config: HostConfig, sock: Any, timeout: float, cancelled: threading.Event | None) -> Transport:
    try:
        transport = Transport(sock)
        transport.banner_timeout = transport.handshake_timeout = timeout
        options = transport.get_security_options()
        options.key_types = hostkeys.preferred(config, tuple(options.key_types))
        done = threading.Event()
        transport.start_client(event=done)
        deadline = time.monotonic() + timeout
        while not done.wait(0.1):
            if cancelled is not None and cancelled.is_set():
                transport.close()
                raise errors.Interrupted("interrupted while connecting")
            if time.monotonic() >= deadline or not transport.is_active():
                break
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise errors.HostUnreachable(f"{config.alias} speaks no SSH: {error}") from error
    if not done.is_set() or not transport.is_active():
        failure = transport.get_exception()
        transport.close()
        if isinstance(failure, paramiko.ssh_exception.IncompatiblePeer):
            raise errors.HostUnreachable(
                f"{config.alias} and jupyman have no common algorithm: {failure}", "its sshd may be very old, or very strict"
            )
        why = str(failure) if failure is not None and str(failure) else f"no SSH handshake in {timeout:.0f} s"
        raise errors.HostUnreachable(f"{config.alias} ({config.hostname} port {config.port}): {why}")
    return transport


def scan(config: HostConfig, timeout: float = 10.0) -> paramiko.PKey:
    """Ask a host for its key, without logging in; only a direct connection is possible.

    Raises:
        UnknownHost, HostUnreachable: as `Link.open`.
    """
    if config.proxy_jump or config.proxy_command is not None:
        raise errors.UsageFault(
            f"{config.alias} is reached through another machine, so its key cannot be looked at beforehand",
            f"run jupyman up {config.alias} on a terminal: it shows the key and asks",
        )
    transport = _kex(config, connect.tcp(config, timeout, None), timeout, None)
    try:
        return transport.get_remote_server_key()
    finally:
        transport.close()


def _close(chain: list[Transport], helpers: list[subprocess.Popen[bytes]]) -> None:
    for transport in reversed(chain):
        try:
            transport.close()
        except (OSError, EOFError, paramiko.SSHException) as error:
            log.debug("closing: %s", error)
    for process in helpers:
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

