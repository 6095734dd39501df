"""The link: our one SSH connection to a host. All commands and forwards of that host ride on it.

Every exception of paramiko and of sockets becomes one of ours at this border.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import paramiko

from jupyman import errors
from jupyman.ssh import command, connect, route
from jupyman.ssh.auth import Credentials, Keyring
from jupyman.ssh.command import Completed as Completed  # noqa: PLC0414 - part of this module's face
from jupyman.ssh.config import HostConfig
from jupyman.ssh.route import Route, Traveller
from jupyman.ssh.transport import CHANNEL_TIMEOUT, Address, Done, Transport

log = logging.getLogger(__name__)
# paramiko writes to its own loggers and, where nobody listens, to stderr; and it logs names and algorithms, which are
# nobody's business. What matters becomes an error of ours.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("jupyman.paramiko").setLevel(logging.CRITICAL)

# sshd's MaxSessions is 10 by default, and the user's own ssh may share nothing with us, but be modest.
MAX_COMMANDS = 6
SESSION_RETRY = 0.5  # seconds until a server that had no session left is asked again
SESSION_TRIES = 8  # of them without a command of ours running that could make room
# RFC 4254, section 5.1.
_CONNECT_FAILED = 2


class TargetRefused(errors.ForwardingRefused):
    """The SSH server would forward, but nothing answers at the target."""

    default_hint = "start the program there first"


class _Client(paramiko.SSHClient):
    """A client whose transport is already verified and logged in: fabric's `open` finds it so."""

    def __init__(self, transport: paramiko.Transport) -> None:
        super().__init__()
        self._transport = transport

    def connect(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


class Link:
    """An SSH connection that is up, or was. Made by `open`."""

    def __init__(self, config: HostConfig, way: Route) -> None:
        from fabric import Config, Connection

        self.config = config
        self.transport: Transport = way.chain[-1]
        self._route = way
        self._slots = threading.Semaphore(MAX_COMMANDS)
        self._running = 0
        self._finished = threading.Condition()
        self._reason: str | None = None
        try:
            self.peer: str | None = way.chain[0].getpeername()[0]
        except (OSError, AttributeError, IndexError, TypeError):
            self.peer = None
        # fabric holds the connection: session channels and uploads are its own. Not its `run` (stdin goes a byte per
        # 10 ms), its host key policy (accepts everything) or its forwards (ADR 3). An empty SSH config, because ours
        # was read by ssh itself, and `lazy`, because a fabric.yaml of the user's is not meant for us (it may name a
        # gateway); `connect` of its client does nothing, because ours is verified and logged in.
        settings = Config(ssh_config=paramiko.SSHConfig(), lazy=True)
        self.connection = Connection(config.hostname, user=config.user, port=config.port, config=settings)
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
        reach: float | None = None,
        cancelled: threading.Event | None = None,
    ) -> Link:
        """Connect, verify the host's key, log in.

        Args:
            config: of the host.
            credentials: of the caller.
            keyring: of the daemon.
            timeout: seconds to reach each machine on the way and shake hands; the login is not counted.
            reach: seconds for TCP to connect to one address, where less than `timeout`.
            cancelled: ends the attempt.

        Raises:
            UnknownHost, HostUnreachable: no connection; details["unreached"] where the first machine on the way said
                nothing, not even no.
            ConfigFault: the configuration of a jump host cannot be used.
            HostKeyFault: unknown, changed or revoked key; nothing secret was sent.
            AuthenticationFailed: no credential was taken.
            LinkLost: it ended on the way.
            Interrupted: cancelled.
        """
        way = Route()
        try:
            route.climb(config, Traveller(credentials, keyring, timeout, cancelled, reach), way)
            return cls(config, way)
        except BaseException:
            way.close()
            raise

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the connection has not ended, as far as is known."""
        return bool(self.transport.is_active())

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the reason, once, in a thread of its own, when the connection has ended."""
        self.transport.on_end(lambda: callback(self._reason or self.transport.reason))

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
            reason = f"no answer in {timeout:.0f} s" if self.alive else self.transport.reason
            self._reason = self._reason or reason
            raise errors.LinkLost(f"{self.config.alias}: {reason}")
        return time.monotonic() - start

    def close(self) -> None:
        """End the connection and everything on it."""
        self._reason = self._reason or "closed"
        self._route.close()

    def _lost(self) -> errors.LinkLost:
        return errors.LinkLost(f"the link to {self.config.alias} was lost: {self._reason or self.transport.reason}")

    # --- commands -------------------------------------------------------------------------------------------------

    def run(
        self,
        script: str,
        *,
        timeout: float,
        limit: int = 4 * 1024 * 1024,
        on_line: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
        feed: command.Feed | None = None,
    ) -> Completed:
        """Run a script by ``/bin/sh -s``: one word that every login shell understands, the script on stdin.

        Args:
            script: its text.
            timeout: seconds until the channel is closed; waiting for one counts.
            limit: bytes kept of stdout and of stderr; the rest is read and dropped.
            on_line: called with each line of stdout as it comes, cut at 16 KiB.
            cancelled: closes the channel.
            feed: what follows the script on stdin once it asks for it.

        Returns:
            What it left.

        Raises:
            LinkLost: the connection ended.
            RemoteFailed: `timeout` passed, or the host starts no shell.
            Interrupted: cancelled.
        """
        deadline = time.monotonic() + timeout
        with self._slot(deadline, cancelled):
            channel = self._session(deadline, cancelled)
            try:
                done = command.talk(
                    channel, script, deadline=deadline, limit=limit, on_line=on_line, cancelled=cancelled, feed=feed
                )
            except (OSError, EOFError, paramiko.SSHException) as error:
                if self.alive:
                    raise errors.RemoteFailed(f"{self.config.alias} starts no shell: {error}") from error
                raise self._lost() from error
            finally:
                self._release(channel)
            if done.status is None and not self.alive:
                raise self._lost()
            return done

    def put(self, local: str, remote: str) -> None:
        """Upload a file by sftp.

        Raises:
            LinkLost: the connection ended.
            RemoteFailed: the host refused it.
        """
        with self._slot(time.monotonic() + 60, None):
            try:
                self.connection.put(local, remote)
            except (OSError, EOFError, paramiko.SSHException) as error:
                if self.alive:
                    raise errors.RemoteFailed(f"{remote} could not be written: {error}") from error
                raise self._lost() from error
            finally:
                self._end_sftp()

    def _end_sftp(self) -> None:
        """Give the sftp session back: fabric keeps it, and with MaxSessions 1 no command would run any more."""
        sftp = self.connection._sftp  # noqa: SLF001 - `sftp()` would open one where none is
        self.connection._sftp = None  # noqa: SLF001 - else fabric would use the closed one
        if sftp is not None:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                sftp.close()

    @contextlib.contextmanager
    def _slot(self, deadline: float, cancelled: threading.Event | None) -> Iterator[None]:
        """Hold one of the few sessions that we allow ourselves."""
        while not self._slots.acquire(timeout=0.25):
            if cancelled is not None and cancelled.is_set():
                raise errors.Interrupted("interrupted while waiting for other commands on the host")
            if not self.alive:
                raise self._lost()
            if time.monotonic() >= deadline:
                raise errors.RemoteFailed(f"other commands on {self.config.alias} did not finish in time")
        try:
            yield
        finally:
            self._slots.release()

    def _session(self, deadline: float, cancelled: threading.Event | None) -> paramiko.Channel:
        """Open a session channel; where the server allows few (MaxSessions), wait for one to end."""
        alone = 0
        while True:
            try:
                channel: paramiko.Channel = self.connection.create_session()
            except paramiko.ChannelException as error:
                with self._finished:
                    # Even alone it may take a moment: sshd counts a session until its process is gone.
                    alone = alone + 1 if self._running == 0 else 0
                    if alone >= SESSION_TRIES or time.monotonic() >= deadline:
                        raise self._no_session(error) from error
                    self._finished.wait(min(SESSION_RETRY, max(0.0, deadline - time.monotonic())))
                if cancelled is not None and cancelled.is_set():
                    raise errors.Interrupted("interrupted while waiting for a session") from error
            except (OSError, EOFError, paramiko.SSHException) as error:
                if self.alive:
                    raise errors.RemoteFailed(f"{self.config.alias} starts no session: {error}") from error
                raise self._lost() from error
            else:
                with self._finished:
                    self._running += 1
                return channel

    def _no_session(self, error: paramiko.ChannelException) -> errors.RemoteFailed:
        return errors.RemoteFailed(
            f"{self.config.alias} starts no session: {error.text or error.code}",
            "its sshd_config may forbid it (MaxSessions)",
        )

    def _release(self, channel: paramiko.Channel) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.close()
        with self._finished:
            self._running -= 1
            self._finished.notify_all()

    # --- streams --------------------------------------------------------------------------------------------------

    def begin_channel(self, target: Address, done: Done) -> None:
        """Ask for a byte stream to an address without waiting; see `Transport.begin_channel`."""
        self.transport.begin_channel(target, done)

    def open_channel(self, target: Address, timeout: float = CHANNEL_TIMEOUT) -> paramiko.Channel:
        """Open a byte stream to an address as the host sees it.

        Args:
            target: address and port, or the path of a UNIX socket on the host.
            timeout: seconds.

        Raises:
            TargetRefused: nothing answers there; details["target_refused"] is true.
            ForwardingRefused: sshd forbids it.
            LinkLost: the connection ended.
        """
        place = target if isinstance(target, str) else f"{target[0]}:{target[1]}"
        try:
            return self.transport.wait_channel(target, timeout)
        except paramiko.ChannelException as error:
            if error.code == _CONNECT_FAILED:
                text = f"nothing answers on {place} of {self.config.alias}"
                if isinstance(target, str):  # sshd gives one code for both
                    text += ", or sshd does not allow forwarding to UNIX sockets (AllowStreamLocalForwarding)"
                raise TargetRefused(text, target_refused=True) from error
            raise errors.ForwardingRefused(
                f"{self.config.alias} does not allow forwarding to {place} (sshd: {error.text or error.code})"
            ) from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            if self.alive:
                text = f"no stream to {place} of {self.config.alias}: {error}"
                raise TargetRefused(text, target_refused=True) from error
            raise self._lost() from error


def scan(config: HostConfig, timeout: float = 10.0) -> paramiko.PKey:
    """Ask a host for its key, without logging in; only a direct connection is possible.

    Raises:
        UsageFault: it is reached through a jump host or a ProxyCommand.
        UnknownHost, HostUnreachable: as `Link.open`.
    """
    if config.proxy_jump or config.proxy_command is not None:
        raise errors.UsageFault(
            f"{config.alias} is reached through another machine, so its key cannot be looked at beforehand",
            f"run jupyman up {config.alias} on a terminal: it shows the key and asks",
        )
    deadline = time.monotonic() + timeout
    transport = route.handshake(config, connect.tcp(config, timeout, None), deadline, None)
    try:
        return transport.get_remote_server_key()
    finally:
        transport.close()
