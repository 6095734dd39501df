"""A byte stream to an endpoint on a host, and who opens one: all that the forwarder and the relay know of the carrier.

A direct-tcpip or direct-streamlocal channel is a byte stream (`jupyman.ssh.channels`). A stream of an agent on the
host, or one through a step of a job, can be another. How such a stream fits:

- An opener whose streams outlive links is attached once, and detached only when its streams cannot be resumed;
  `lost` is called then, and not when a link ends. While the carrier is away, `credit` returns 0.
- While the host is silent the forwarder opens nothing, and closes what was not `opened` yet; open streams stay.

Thread rule: every method and every callback runs in the loop's thread. No callback runs during a method call, and none
after `close`.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

from jupyman.model.endpoint import Target


class ByteStream(Protocol):
    """The far half of a relayed connection."""

    def credit(self) -> int:
        """Return the bytes that may be sent now; after 0, `StreamReceiver.writable` is called when that changes."""

    def send(self, data: bytes) -> bool:
        """Send a few bytes, whatever the credit, if the peer's window takes all of them; return whether it does."""

    def send_from(self, sock: socket.socket, limit: int) -> Sequence[memoryview]:
        """Read what a non-blocking socket has, and send it.

        Args:
            sock: it.
            limit: bytes at most, no more than `credit` returned.

        Returns:
            The pieces that were sent, valid until the next call on any stream; none at the socket's end.

        Raises:
            OSError: as `socket.recv`.
        """

    def send_eof(self) -> None:
        """Send nothing more; it can still receive."""

    def delivered(self, size: int) -> None:
        """Let the peer send as many bytes more: these have reached the local program."""

    def close(self) -> None:
        """Close it, opened or not; no callback follows."""


class StreamReceiver(Protocol):
    """The near half: what becomes of a stream. No method may wait, or raise."""

    def opened(self) -> None:
        """The stream is open."""

    def refused(self, reason: str) -> None:
        """The host, or the endpoint, refused it; nothing follows."""

    def received(self, views: list[memoryview], size: int) -> None:
        """Bytes have come, valid during the call; `ByteStream.delivered` gives the credit back."""

    def writable(self) -> None:
        """The peer takes more, after `credit` returned 0."""

    def eof(self) -> None:
        """The peer sends nothing more."""

    def closed(self) -> None:
        """The peer sends nothing more and takes nothing more, by its own decision: all that it sent has come."""

    def lost(self) -> None:
        """The carrier has ended, opened or not; nothing follows."""


class StreamOpener(Protocol):
    """A carrier that is up: a link."""

    def open_stream(self, target: Target, receiver: StreamReceiver) -> ByteStream:
        """Ask for a stream, without waiting: `opened`, `refused` or `lost` follows.

        Args:
            target: address and port, or the path of a UNIX socket, as the host sees it.
            receiver: of what comes.

        Raises:
            ConnectionError: the carrier has ended.
        """
