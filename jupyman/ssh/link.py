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
from jupyman.ssh.channels.channel import Channel, Receiver
from jupyman.ssh.channels.transport import BROKEN, CHANNEL_TIMEOUT, Address, Transport
from jupyman.ssh.config.ssh_g import HostConfig
from jupyman.ssh.exec import command
from jupyman.ssh.exec.command import CompletedCommand as CompletedCommand  # noqa: PLC0414 - part of this module's face
from jupyman.ssh.exec.session_pool import SessionPool
from jupyman.ssh.io import loop as loops
from jupyman.ssh.io.loop import Loop
from jupyman.ssh.login import dial, route
from jupyman.ssh.login.auth import Credentials, Keyring
from jupyman.ssh.login.route import LoginContext, Route

log = logging.getLogger(__name__)
# paramiko writes to its own loggers and, where nobody listens, to stderr; and it logs names and algorithms, which are
# nobody's business. What matters becomes an error of ours.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("jupyman.paramiko").setLevel(logging.CRITICAL)

PUT_TIMEOUT = 60.0  # seconds for a session to become free
LIMIT = 4 * 1024 * 1024  # bytes of a command's output that are kept
# RFC 4254, section 5.1.
_CONNECT_FAILED = 2


class NoAnswer(errors.LinkLost):
    """The host does not answer over a connection that stands."""


class _Client(paramiko.SSHClient):
    """A client whose transport is already verified and logged in: fabric's `open` finds it so."""

    def __init__(self, transport: paramiko.Transport) -> None:
        super().__init__()
        self._transport = transport

    def connect(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


class Link:
    """An SSH connection that is up, or was. Made by `open`.

    Attributes:
        config: of the host.
        transport: to the host itself.
        peer: IP address of the first machine on the way; None: it is reached by a ProxyCommand.
        source: IP address of this computer to which that connection is bound; None likewise.
    """

    def __init__(self, config: HostConfig, way: Route) -> None:
        from fabric import Config, Connection

        self.config = config
        self.transport: Transport = way.chain[-1]
        self._route = way
        self._reason: str | None = None
        self._allowed: set[Address] = set()
        first: Any = way.chain[0].sock
        self.peer, self.source = _address(first, "getpeername"), _address(first, "getsockname")
        # fabric holds the connection: session channels and uploads are its own. Not its `run` (stdin goes a byte per
        # 10 ms), its host key policy (accepts everything) or its forwards (ADR 3). An empty SSH config, because ours
        # was read by ssh itself, and `lazy`, because a fabric.yaml of the user's is not meant for us (it may name a
        # gateway); `connect` of its client does nothing, because ours is verified and logged in.
        settings = Config(ssh_config=paramiko.SSHConfig(), lazy=True)
        self.connection = Connection(config.hostname, user=config.user, port=config.port, config=settings)
        self.connection.client = _Client(self.transport)
        self.connection.open()
        self._sessions = SessionPool(
            config.alias,
            self.connection.create_session,
            lambda done: self.transport.begin_channel(None, done),
            lambda: None if self.alive else self._lost(),
        )
        self._sessions.open_ahead()
        self.transport.channels.join(loops.shared())

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
            UnknownHost, HostUnreachable: no connection; HostSilent if the first machine on the way did not even
                refuse.
            ConfigFault: the configuration of a jump host cannot be used.
            HostKeyFault: unknown, changed or revoked key; nothing secret was sent.
            AuthenticationFailed: no credential was taken.
            LinkLost: it ended on the way.
            Interrupted: cancelled.
        """
        way = Route()
        try:
            route.climb(config, LoginContext(credentials, keyring, timeout, cancelled, reach), way)
            return cls(config, way)
        except BROKEN as error:  # it ended right after the login
            way.close()
            raise errors.LinkLost(f"{config.alias} ended the connection: {error or type(error).__name__}") from error
        except BaseException:
            way.close()
            raise

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the connection has not ended, as far as is known."""
        return bool(self.transport.is_active())

    @property
    def busy(self) -> float:
        """For how many seconds commands, or uploads, have been running; 0: none is."""
        return self._sessions.busy

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the reason, once, in a thread of its own, when the connection has ended."""
        self.transport.on_end(lambda: callback(self._reason or self.transport.reason))

    def heartbeat(self, timeout: float) -> float:
        """Ask for a sign of life.

        Args:
            timeout: seconds without one.

        Returns:
            Seconds until it came.

        Raises:
            NoAnswer: it did not come, and the connection stands.
            LinkLost: the connection has ended.
        """
        start = time.monotonic()
        if self.transport.ping(timeout):
            return time.monotonic() - start
        if self.alive:
            raise NoAnswer(f"{self.config.alias}: no answer in {timeout:.0f} s")
        self._reason = self._reason or self.transport.reason
        raise errors.LinkLost(f"{self.config.alias}: {self._reason}")

    @property
    def heard(self) -> float:
        """When the host gave the last sign of life, on the monotonic clock; see `Transport.heard`."""
        return self.transport.heard

    @property
    def acknowledged(self) -> float:
        """When the host's kernel last acknowledged what we sent; see `Transport.acknowledged`."""
        return self.transport.acknowledged

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
        limit: int = LIMIT,
        on_line: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
        feed: command.Feed | None = None,
    ) -> CompletedCommand:
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
        with self._sessions.session(deadline, cancelled) as channel:
            return self._talk(
                channel, script, deadline=deadline, limit=limit, on_line=on_line, cancelled=cancelled, feed=feed
            )

    @contextlib.contextmanager
    def shell_ahead(self) -> Iterator[ShellAhead]:
        """Start a shell on the host now, for a script that comes soon, inside a ``with`` block.

        Yields:
            What runs scripts as this link does; the first of them a round trip sooner, where a session is to spare.
        """
        with self._sessions.spare() as channel:
            if channel is not None:
                with contextlib.suppress(*BROKEN):
                    command.start(channel)
            yield ShellAhead(self, channel)

    def _talk(self, channel: paramiko.Channel, script: str, **how: Any) -> CompletedCommand:
        try:
            done = command.talk(channel, script, **how)
        except BROKEN as error:
            if self.alive:
                raise errors.RemoteFailed(f"{self.config.alias} starts no shell: {error}") from error
            raise self._lost() from error
        if done.status is None and not self.alive:
            raise self._lost()
        return done

    def put(self, local: str, remote: str) -> None:
        """Upload a file by sftp.

        Raises:
            LinkLost: the connection ended.
            RemoteFailed: the host refused it.
        """
        with self._sessions.session(time.monotonic() + PUT_TIMEOUT, None) as channel:
            try:
                channel.invoke_subsystem("sftp")
                # fabric would open a session of its own and keep it: with MaxSessions 1 no command would run any more.
                self.connection._sftp = paramiko.SFTPClient(channel)  # noqa: SLF001 - see above
                self.connection.put(local, remote)
            except Exception as error:  # paramiko reads sftp's answers as it reads messages: see manners.py
                if self.alive:
                    raise errors.RemoteFailed(f"{remote} could not be written: {error}") from error
                raise self._lost() from error
            finally:
                self.connection._sftp = None  # noqa: SLF001 - see above

    # --- streams --------------------------------------------------------------------------------------------------

    def channel(self, loop: Loop, receiver: Receiver) -> Channel:
        """Return a new channel for a byte stream, to be opened; see `Channels.channel`."""
        return self.transport.channels.channel(loop, receiver)

    def may_forward(self, target: Address) -> None:
        """Find out whether sshd lets us forward to an address; asked once, for it reads its configuration at the login.

        Args:
            target: as for `open_channel`; nothing needs to answer there.

        Raises:
            ForwardingRefused: sshd forbids it.
            RemoteFailed: the server did not answer in time.
            LinkLost: the connection ended.
        """
        if target not in self._allowed:
            with contextlib.suppress(errors.TargetRefused):
                self.open_channel(target).close()
            self._allowed.add(target)

    def open_channel(self, target: Address, timeout: float = CHANNEL_TIMEOUT) -> paramiko.Channel:
        """Open a byte stream to an address as the host sees it.

        Args:
            target: address and port, or the path of a UNIX socket on the host.
            timeout: seconds.

        Raises:
            TargetRefused: nothing answers there.
            ForwardingRefused: sshd forbids it.
            RemoteFailed: the server did not answer in time.
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
                raise errors.TargetRefused(text) from error
            raise errors.ForwardingRefused(
                f"{self.config.alias} does not allow forwarding to {place} (sshd: {error.text or error.code})"
            ) from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            if self.alive:
                raise errors.RemoteFailed(f"no stream to {place} of {self.config.alias}: {error}") from error
            raise self._lost() from error


class ShellAhead:
    """Runs scripts as its link does; the first one meets a shell that runs already. Made by `Link.shell_ahead`."""

    def __init__(self, link: Link, channel: paramiko.Channel | None) -> None:
        self._link = link
        self._channel = channel

    def run(
        self,
        script: str,
        *,
        timeout: float,
        limit: int = LIMIT,
        on_line: Callable[[str], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> CompletedCommand:
        """Run a script; see `Link.run`."""
        how: dict[str, Any] = {"limit": limit, "on_line": on_line, "cancelled": cancelled}
        channel, self._channel = self._channel, None
        if channel is None or channel.closed:
            return self._link.run(script, timeout=timeout, **how)
        how |= {"deadline": time.monotonic() + timeout, "started": True}
        return self._link._talk(channel, script, **how)  # noqa: SLF001 - this is a part of it


def _address(sock: Any, end: str) -> str | None:
    """Return the IP address of an end of a connection; None if it has none, as that to a ProxyCommand has none."""
    try:
        found = getattr(sock, end)()
    except (OSError, AttributeError):
        return None
    return str(found[0]) if isinstance(found, tuple) else None


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
    transport = route.handshake(config, dial.tcp(config, timeout, None), deadline, None)
    try:
        return transport.get_remote_server_key()
    except BROKEN as error:
        raise errors.HostUnreachable(f"{config.alias} ended the connection: {transport.reason}") from error
    finally:
        transport.close()
