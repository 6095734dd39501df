"""The engine protocol with the sshtunnel package: ``engine = "sshtunnel"`` for a host.

sshtunnel's listeners and copy loops, on our link: it neither connects nor logs in by itself, so its open host key
policy does not matter (it gets the verified key all the same), and jump hosts and one-time codes work. It binds
127.0.0.1 because it is told to; its own default is every address.

How it fails the forwarder's contract (0.5.1; tests/integration/ssh/test_sshtunnel_engine.py shows it):
- half-close: the end of one direction ends the other, and the rest is lost;
- its listeners end with the link: a connection in the meantime is refused, not held, and the port may be taken;
- hundreds of connections at once: a backlog of 5, one thread each, and `select` ends at descriptor 1023;
- each listener wakes ten times a second while idle;
- a connection while the gate is closed is closed, not held.

Over 300 lines because sshtunnel's class, its view of our transport and of a channel are useless without one another.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import paramiko
import sshtunnel

from jupyman import errors
from jupyman.local.peer_guard import PeerGuard
from jupyman.model.endpoint import LOOPBACK, Target
from jupyman.ssh.channels.transport import BROKEN
from jupyman.ssh.forward.bind import bind
from jupyman.ssh.forward.connection_limit import ConnectionLimit
from jupyman.ssh.link import Link
from jupyman.ssh.streams.origin import Respond

log = logging.getLogger(__name__)
# sshtunnel adds a handler that writes to stderr to a logger without one.
_theirs = logging.getLogger("jupyman.sshtunnel")
_theirs.addHandler(logging.NullHandler())
_theirs.setLevel(logging.CRITICAL)

_BROKEN = (*BROKEN, sshtunnel.BaseSSHTunnelForwarderError)


class TunnelListener:
    """A local port that leads to an address on the host. Made by `TunnelForwarder.listen`."""

    def __init__(self, forwarder: TunnelForwarder, port: int, target: tuple[str, int], holder_text: str) -> None:
        self.local_port = port
        self.target: Target = target
        self.holder_text = holder_text
        self.gate: Callable[[], bool] | None = None
        self.respond: Respond | None = None  # never called: nothing waits here
        self.on_refused: Callable[[], None] | None = None
        self.share = False
        self.peer_guard = PeerGuard(f"{forwarder.name}: local port {port}")
        self.open = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.limit = ConnectionLimit()
        self.tunnel: _Tunnel | None = None
        self._forwarder = forwarder

    def retarget(self, target: Target) -> None:
        """Lead new connections elsewhere."""
        self.target = target

    def stats(self) -> tuple[int, int, int]:
        """Return open connections, bytes that came from the host, bytes that went to it."""
        return self.open, self.bytes_in, self.bytes_out

    def detach(self) -> None:
        """End its connections; while the link is there it goes on listening, and closes whatever comes."""
        tunnel = self.tunnel
        if tunnel is not None:
            tunnel.detach()

    def close(self) -> None:
        """Stop listening and end its connections."""
        self._forwarder.remove(self)


class TunnelForwarder:
    """All listeners of one host, as `Forwarder` has them.

    Args:
        name: the host.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.RLock()
        self._link: Link | None = None
        self._listeners: set[TunnelListener] = set()

    def listen(
        self,
        local_port: int,
        target: Target,
        *,
        strict: bool = False,
        address: str = LOOPBACK,
        gate: Callable[[], bool] | None = None,
    ) -> TunnelListener:
        """Choose a local port, and bind it as soon as a link is there; see `Forwarder.listen`.

        Raises:
            PortInUse: no port can be bound.
            UsageFault: a UNIX socket, which sshtunnel cannot reach, or another address than 127.0.0.1.
        """
        if isinstance(target, str) or address != LOOPBACK:
            raise errors.UsageFault(
                "the engine sshtunnel forwards only from 127.0.0.1 and only to ports",
                f'set engine = "native" for {self.name}',
            )
        sock, text = bind(local_port, strict=strict, address=address)
        port = sock.getsockname()[1]
        sock.close()
        listener = TunnelListener(self, port, target, text)
        listener.gate = gate
        with self._lock:
            self._listeners.add(listener)
            if self._link is not None:
                try:
                    listener.tunnel = _Tunnel(listener, self._link)
                except _BROKEN as error:
                    self._listeners.discard(listener)
                    raise errors.PortInUse(f"local port {port} was taken in the meantime", port=port) from error
        return listener

    def attach(self, link: Link) -> None:
        """Carry connections over this link from now on."""
        with self._lock:
            self.detach()
            self._link = link
            for listener in self._listeners:
                try:
                    listener.tunnel = _Tunnel(listener, link)
                except _BROKEN as error:
                    log.warning("%s: local port %d cannot be bound again: %s", self.name, listener.local_port, error)

    def detach(self) -> None:
        """The link is gone: end connections and listeners."""
        with self._lock:
            self._link = None
            for listener in self._listeners:
                _stop(listener)

    def hold(self) -> None:
        """Go on: sshtunnel's connections stay, and new ones wait for their channel."""

    def resume(self) -> None:
        """Nothing was held."""

    def wake(self) -> None:
        """Nothing waits here."""

    def remove(self, listener: TunnelListener) -> None:
        """Close a listener."""
        with self._lock:
            self._listeners.discard(listener)
            _stop(listener)

    def close(self) -> None:
        """Close everything."""
        with self._lock:
            self.detach()
            self._listeners.clear()


def _stop(listener: TunnelListener) -> None:
    tunnel, listener.tunnel = listener.tunnel, None
    if tunnel is not None:
        with contextlib.suppress(*_BROKEN):
            tunnel.stop()


class _Tunnel(sshtunnel.SSHTunnelForwarder):  # type: ignore[misc]  # it carries no types
    """One listener of sshtunnel on our link."""

    daemon_forward_servers = True

    def __init__(self, listener: TunnelListener, link: Link) -> None:
        assert isinstance(listener.target, tuple)  # noqa: S101 - TunnelForwarder.listen accepts no others
        self._shared = _Shared(listener, link)
        super().__init__(
            (link.config.hostname, link.config.port),
            ssh_config_file=None,
            ssh_username=link.config.user,
            ssh_host_key=link.transport.get_remote_server_key(),
            ssh_password="not used: the link is logged in",  # noqa: S106 - it needs one
            allow_agent=False,
            host_pkey_directories=[],
            local_bind_address=(LOOPBACK, listener.local_port),
            remote_bind_address=listener.target,
            logger=_theirs,
        )
        self.skip_tunnel_checkup = True
        self.start()

    def _connect_to_gateway(self) -> None:
        self._transport = self._shared

    def detach(self) -> None:
        """End its connections."""
        self._shared.detach()

    def stop(self, force: bool = False) -> None:
        """Stop listening and end its connections."""
        self._shared.end()
        super().stop(force=force)


class _Shared:
    """Our transport as sshtunnel uses it: it opens channels, and cannot close the link."""

    def __init__(self, listener: TunnelListener, link: Link) -> None:
        self._listener = listener
        self._link = link
        self._channels: set[_Counted] = set()
        self._lock = threading.Lock()
        self._over = False

    def open_channel(self, kind: str, dest_addr: Any, src_addr: Any, timeout: float | None = None) -> _Counted:
        """Open a channel to the listener's present target.

        Raises:
            SSHException: refused, the gate is shut, too many are open, or another user of this computer connects.
        """
        listener = self._listener
        # sshtunnel asks for the channel before it reads; it has just accepted.
        if not listener.share and listener.peer_guard.refuse(src_addr[:2], (LOOPBACK, listener.local_port)):
            raise paramiko.SSHException("a connection of another user is refused")
        if listener.gate is not None and not listener.gate():
            raise paramiko.SSHException("the server's identity is not proven yet")
        with self._lock:
            full = listener.limit.full(listener.open)
            listener.open += not full
        if full:
            listener.limit.refuse(listener.local_port)
            raise paramiko.SSHException("too many connections are open")
        del dest_addr  # the listener's target may have changed since
        try:
            channel = self._link.transport.open_channel(kind, listener.target, src_addr, timeout=timeout)
        except BaseException as error:
            with self._lock:
                listener.open -= 1
            if isinstance(error, paramiko.SSHException) and listener.on_refused is not None:
                listener.on_refused()
            raise
        counted = _Counted(channel, listener, self._forget)
        with self._lock:
            self._channels.add(counted)
            over = self._over
        if over:
            counted.close()
        return counted

    def _forget(self, channel: _Counted) -> None:
        with self._lock:
            if channel in self._channels:
                self._channels.discard(channel)
                self._listener.open -= 1

    def detach(self) -> None:
        """End its connections; more may come."""
        with self._lock:
            channels = list(self._channels)
        for channel in channels:
            channel.close()

    def end(self) -> None:
        """End its connections, and let no more come."""
        with self._lock:
            self._over = True
        self.detach()

    def is_active(self) -> bool:
        """Whether channels can be opened."""
        return not self._over and self._link.alive

    def close(self) -> None:
        """Do nothing: the link does not belong to sshtunnel."""

    stop_thread = close


class _Counted:
    """A channel that counts its bytes."""

    def __init__(self, channel: paramiko.Channel, listener: TunnelListener, closed: Callable[[_Counted], None]) -> None:
        self._channel = channel
        self._listener = listener
        self._closed = closed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def recv(self, size: int) -> bytes:
        """Receive, and count."""
        data = self._channel.recv(size)
        self._listener.bytes_in += len(data)
        return data

    def sendall(self, data: bytes) -> None:
        """Send, and count."""
        self._channel.sendall(data)
        self._listener.bytes_out += len(data)

    def close(self) -> None:
        """Close."""
        self._closed(self)
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()
