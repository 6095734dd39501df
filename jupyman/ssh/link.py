"""The link: our one SSH connection to a host, for all its commands and forwards.

Every exception of paramiko and of sockets becomes one of ours here. Methods may be called from any thread, except
`open_stream` (the loop's).

Over 300 lines because all errors of a connection are translated in one place.
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
from jupyman.model.endpoint import Target
from jupyman.ssh.channels.transport import BROKEN, CHANNEL_TIMEOUT, Transport
from jupyman.ssh.config.ssh_g import HostConfig
from jupyman.ssh.exec import command
from jupyman.ssh.exec.command import CompletedCommand as CompletedCommand  # noqa: PLC0414 - re-exported
from jupyman.ssh.exec.session_pool import SessionPool
from jupyman.ssh.login import dial, route
from jupyman.ssh.login.auth import Credentials, Keyring
from jupyman.ssh.login.route import LoginContext, Route
from jupyman.ssh.streams.byte_stream import ByteStream, StreamReceiver

log = logging.getLogger(__name__)
# paramiko writes to its own loggers and, if they have no handler, to stderr; and it logs names and algorithms. What
# matters becomes an error of ours.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("jupyman.paramiko").setLevel(logging.CRITICAL)

LIMIT = 4 * 1024 * 1024  # bytes of a command's output that are kept
# RFC 4254, section 5.1.
_CONNECT_FAILED = 2


class NoAnswer(errors.LinkLost):
    """The host does not answer, and the connection has not ended."""


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
        peer: IP address of the first machine on the route; None: it is reached by a ProxyCommand.
        source: IP address of this computer to which that connection is bound; None likewise.
    """

    def __init__(self, config: HostConfig, path: Route) -> None:
        from fabric import Config, Connection

        self.config = config
        self.transport: Transport = path.chain[-1]
        self._route = path
        self._reason: str | None = None
        self._allowed: set[Target] = set()
        first: Any = path.chain[0].sock
        self.peer, self.source = _address(first, "getpeername"), _address(first, "getsockname")
        # fabric holds the connection and opens session channels. Not used: its `run` (a byte of stdin each 10 ms), its
        # host key policy (accepts everything) and its forwards (ADR 3). The SSH config is empty because ssh itself has
        # read ours, and `lazy` keeps a user's fabric.yaml out (it may name a gateway); `connect` of the client does
        # nothing, because the transport is verified and logged in.
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
            timeout: seconds to reach each machine on the route and exchange keys; the login is not counted.
            reach: seconds for TCP to connect to one address, if less than `timeout`.
            cancelled: ends the attempt.

        Raises:
            UnknownHost, HostUnreachable: no connection; HostSilent if the first machine on the route did not
                answer, not even by a refusal.
            ConfigFault: the configuration of a jump host cannot be used.
            HostKeyFault: unknown, changed or revoked key; nothing secret was sent.
            AuthenticationFailed: no credential was accepted.
            LinkLost: it ended meanwhile.
            Interrupted: cancelled.
        """
        path = Route()
        try:
            route.connect(config, LoginContext(credentials, keyring, timeout, cancelled, reach), path)
            return cls(config, path)
        except BROKEN as error:  # it ended right after the login
            path.close()
            raise errors.LinkLost(f"{config.alias} ended the connection: {error or type(error).__name__}") from error
        except BaseException:
            path.close()
            raise

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the connection has not ended, as far as we know."""
        return bool(self.transport.is_active())

    @property
    def busy(self) -> float:
        """For how many seconds at least one command has been running; 0: none is."""
        return self._sessions.busy

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Call `callback` once, with the reason, in a thread of its own, when the connection has ended."""
        self.transport.on_end(lambda: callback(self._reason or self.transport.reason))

    def heartbeat(self, timeout: float) -> float:
        """Ask for a sign of life.

        Args:
            timeout: seconds without one.

        Returns:
            Seconds until it came.

        Raises:
            NoAnswer: it did not come, and the connection has not ended.
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
        """Run a script with ``/bin/sh -s``: a command that every login shell understands, and the script on stdin.

        Args:
            script: its text.
            timeout: seconds until the channel is closed; waiting for one counts.
            limit: bytes kept of stdout and of stderr; the rest is read and dropped.
            on_line: called with each line of stdout as it comes, cut at 16 KiB.
            cancelled: closes the channel.
            feed: input after the script, once the script asks for it.

        Returns:
            Its output and status.

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
        """Start a shell on the host now, for a script that follows soon, inside a ``with`` block.

        Yields:
            An object that runs scripts as this link does; the first one a round trip sooner, if a session is free.
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

    # --- streams --------------------------------------------------------------------------------------------------

    def open_stream(self, target: Target, receiver: StreamReceiver) -> ByteStream:
        """Ask for a byte stream, in the loop's thread; see `StreamOpener.open_stream`."""
        return self.transport.channels.open_stream(target, receiver)

    def may_forward(self, target: Target) -> None:
        """Find out whether sshd lets us forward to an address; once, because it reads its configuration at the login.

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

    def open_channel(self, target: Target, timeout: float = CHANNEL_TIMEOUT) -> paramiko.Channel:
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
    """Runs scripts as its link does; the first one in a shell that runs already. Made by `Link.shell_ahead`."""

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
    """Return the IP address of an end of a connection; None if it has none: it is that of a ProxyCommand."""
    try:
        found = getattr(sock, end)()
    except (OSError, AttributeError):
        return None
    return str(found[0]) if isinstance(found, tuple) else None


def scan(config: HostConfig, timeout: float = 10.0) -> paramiko.PKey:
    """Get a host's key without logging in; only a direct connection is possible.

    Raises:
        UsageFault: it is reached through a jump host or a ProxyCommand.
        UnknownHost, HostUnreachable: as `Link.open`.
    """
    if config.proxy_jump or config.proxy_command is not None:
        raise errors.UsageFault(
            f"{config.alias} is reached through another machine, so its key cannot be shown beforehand",
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
