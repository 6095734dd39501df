"""A byte stream on a link as a socket: the way to a host behind this one. The loop relays it like any connection."""

from __future__ import annotations

import socket
import threading
import time

import paramiko

from jupyman.model.endpoint import Target
from jupyman.ssh.io import loop as loops
from jupyman.ssh.io.socket_pair import pair
from jupyman.ssh.streams.byte_stream import StreamOpener
from jupyman.ssh.streams.origin import Respond
from jupyman.ssh.streams.relay import Relay, RelayState


def connect(opener: StreamOpener, target: Target, timeout: float) -> socket.socket:
    """Open a byte stream to an address on the host's side.

    Args:
        opener: the link.
        target: address and port, or the path of a UNIX socket there.
        timeout: seconds.

    Returns:
        A socket; closing it ends the stream, and the end of the link ends it.

    Raises:
        SSHException: refused, or not answered in time.
        ConnectionError: the link has ended.
    """
    ours, its = pair()
    bridge = _Bridge(its)
    try:
        bridge.open(opener, target, timeout)
    except BaseException:
        ours.close()
        raise
    return ours


class _Bridge:
    """The owner, and the origin, of one relay."""

    respond: Respond | None = None
    held = False

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._loop = loops.shared()
        self._relay = Relay(self._loop, self, self, sock)
        self._answered = threading.Event()
        self._error: Exception | None = ConnectionError("the connection ended")

    def open(self, opener: StreamOpener, target: Target, timeout: float) -> None:
        """Open the stream; arguments and errors as `connect`."""
        try:
            self._loop.call(lambda: self._relay.begin(opener.open_stream(target, self._relay)))
            self._wait(timeout)
        except BaseException:
            self._loop.call(lambda: self.end(self._relay))
            raise

    def _wait(self, timeout: float) -> None:
        if not self._answered.wait(timeout):
            raise paramiko.SSHException("the server did not answer in time")
        if self._error is not None:
            raise self._error

    def count(self, inward: int, outward: int) -> None:
        """Nobody counts."""

    def opened(self, relay: Relay) -> None:
        """The stream is open."""
        del relay
        self._error = None
        self._answered.set()

    def refused(self, relay: Relay, reason: str) -> None:
        """The host refused it."""
        self._error = paramiko.SSHException(reason)
        self.end(relay)

    def schedule_close(self, relay: Relay) -> None:
        """End it when its deadline comes; there is no other link to wait for."""
        if relay.state is RelayState.WAITING:
            self.end(relay)
        else:
            self._loop.remind(self, relay.deadline)

    def due(self) -> None:
        """Its deadline may have come."""
        if time.monotonic() >= self._relay.deadline:
            self.end(self._relay)
        else:
            self.schedule_close(self._relay)

    def end(self, relay: Relay) -> None:
        """End it now."""
        self._loop.forget(self)
        if relay.state is not RelayState.ENDED:
            relay.release()
        self._answered.set()
