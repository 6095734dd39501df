"""A byte stream on a link as a socket: the way to a host behind this one. The loop carries it like any connection."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import paramiko

from jupyman.ssh.channels.channel import Address, Channel
from jupyman.ssh.channels.mux import ChannelMux
from jupyman.ssh.channels.origin import Respond
from jupyman.ssh.channels.relay import Relay
from jupyman.ssh.io import loop as loops
from jupyman.ssh.io.socket_pair import pair


def connect(channels: ChannelMux, target: Address, timeout: float) -> socket.socket:
    """Open a byte stream to an address on the host's side.

    Args:
        channels: of the link.
        target: address and port, or the path of a UNIX socket there.
        timeout: seconds.

    Returns:
        A socket; closing it ends the stream, and the end of the link ends it.

    Raises:
        SSHException: refused, not answered in time, or the link has ended.
    """
    ours, its = pair()
    bridge = _Bridge(its)
    try:
        bridge.open(channels, target, timeout)
    except BaseException:
        ours.close()
        raise
    return ours


class _Bridge:
    """The owner, and the origin, of one stream."""

    respond: Respond | None = None
    hasty = True
    held = False

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._loop = loops.shared()
        self._stream = Relay(self._loop, self, self, sock)
        self._answered = threading.Event()
        self._error: Exception | None = None

    def open(self, channels: ChannelMux, target: Address, timeout: float) -> None:
        """Open the channel; arguments and errors as `connect`."""
        channel = channels.channel(self._loop, self._stream)
        self._stream.begin(channel)
        try:
            channel.open(target)
            self._wait(timeout)
        except BaseException:
            self._loop.call(lambda: self.end(self._stream))
            raise

    def _wait(self, timeout: float) -> None:
        if not self._answered.wait(timeout):
            raise paramiko.SSHException("the server did not answer in time")
        if self._error is not None:
            raise self._error

    def count(self, inward: int, outward: int) -> None:
        """Nobody counts."""

    def opened(self, stream: Relay, channel: Channel, error: Exception | None) -> None:
        """The host has answered."""
        del channel
        self._error = error
        if error is None and not stream.dead:
            with contextlib.suppress(OSError):
                stream.carry()
        self._answered.set()

    def linger(self, stream: Relay) -> None:
        """End it when its deadline comes."""
        self._loop.remind(self, stream.deadline)

    def due(self) -> None:
        """Its deadline may have come."""
        if time.monotonic() >= self._stream.deadline:
            self.end(self._stream)
        else:
            self.linger(self._stream)

    def end(self, stream: Relay) -> None:
        """End it now."""
        self._loop.forget(self)
        if not stream.dead:
            stream.release()
        self._answered.set()
