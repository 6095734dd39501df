"""What a relay needs of its listener and of the forwarder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jupyman.ssh.streams.relay import Relay

# Called with what the local program has sent since the host last sent something, and the seconds that it has waited
# (None: the link was lost in the middle). Returns what to send in the host's place before the connection is closed, or
# None: it waits.
Respond = Callable[[bytes, float | None], bytes | None]


class Origin(Protocol):
    """Where a connection came in: a listener, or none when we ourselves connect."""

    respond: Respond | None

    def count(self, inward: int, outward: int) -> None:
        """Count bytes that came from the host, and bytes that went to it."""


class Owner(Protocol):
    """Keeps the relays, their deadlines and their ends; everything runs in the loop's thread.

    Attributes:
        held: the host is silent, and what it is asked now may wait for long.
    """

    held: bool

    def opened(self, relay: Relay) -> None:
        """The stream is open."""

    def refused(self, relay: Relay, reason: str) -> None:
        """The host, or the endpoint, refused it: end the relay."""

    def schedule_close(self, relay: Relay) -> None:
        """End it when its deadline comes."""

    def end(self, relay: Relay) -> None:
        """End it now."""
