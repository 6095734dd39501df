"""A local port that leads to an endpoint on a host, and what it counts."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from jupyman.local import peer
from jupyman.local.peer_guard import PeerGuard
from jupyman.model.endpoint import Target
from jupyman.ssh.forward.connection_limit import ConnectionLimit
from jupyman.ssh.streams.origin import Respond

if TYPE_CHECKING:
    from jupyman.ssh.forward.forwarder import Forwarder

log = logging.getLogger(__name__)


class Listener:
    """A local port that leads to an address on the host. Made by `Forwarder.listen`.

    Attributes:
        local_port: where it listens.
        target: where it leads: host and port, or the path of a UNIX socket there.
        holder_text: " (held by …)" if the preferred port was taken, else "".
        gate: called, in the loop's thread, before a connection is carried; while it returns False connections wait, as
            without a link. Call `Forwarder.wake` when it opens, or they notice within a quarter of a second.
        respond: called, in the loop's thread, for a connection that has waited for a second or lost its link; returns
            what to answer in the host's place.
        on_refused: called, in the loop's thread, when the host refuses a connection; must not wait.
        limit: how many were refused here because too many are open.
        share: take connections of other users of this computer too; else they are closed unread.
        peer_guard: which of them there were.
    """

    # The request for a stream takes a round trip, in which the others have their turn.
    first = True

    def __init__(self, forwarder: Forwarder, sock: socket.socket, target: Target, holder_text: str) -> None:
        self.sock = sock
        self.mask = 0
        self.local_port: int = sock.getsockname()[1]
        self.target = target
        self.holder_text = holder_text
        self.gate: Callable[[], bool] | None = None
        self.respond: Respond | None = None
        self.on_refused: Callable[[], None] | None = None
        self.share = False
        peer.probe()  # here, because the loop must not wait for it
        self.peer_guard = PeerGuard(f"{forwarder.name}: local port {self.local_port}")
        self.closed = False
        self.out_of_fds = False  # no file descriptor was left for the last connection, which is logged once
        self.turn = -1  # of the loop, in which the last connection came
        self.open = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.limit = ConnectionLimit()
        self._forwarder = forwarder

    def retarget(self, target: Target) -> None:
        """Lead new connections elsewhere."""
        self.target = target

    def stats(self) -> tuple[int, int, int]:
        """Return open connections, bytes that came from the host, bytes that went to it."""
        return self.open, self.bytes_in, self.bytes_out

    def count(self, inward: int, outward: int) -> None:
        """Count bytes that came from the host, and bytes that went to it."""
        self.bytes_in += inward
        self.bytes_out += outward

    def passes(self) -> bool:
        """Return whether the gate is open."""
        try:
            return self.gate is None or self.gate()
        except Exception:
            log.exception("the gate of local port %d", self.local_port)
            return False

    def foreign_owned(self, sock: socket.socket, far: tuple[str, int]) -> bool:
        """Return whether an accepted connection is another user's, and not to be shared with them."""
        if self.share:
            return False
        try:
            near = sock.getsockname()
        except OSError:  # macOS, if it was reset already
            return False
        return self.peer_guard.refuse(far[:2], near[:2])

    def ready(self, mask: int) -> None:  # noqa: ARG002 - there is but one
        """Somebody connects."""
        self._forwarder.accept(self)

    def detach(self) -> None:
        """Detach its connections, as when the link is lost, and go on listening. Close its gate first."""
        self._forwarder.detach_listener(self)

    def close(self) -> None:
        """Stop listening and end its connections; returns when the port is free."""
        self._forwarder.remove(self)
