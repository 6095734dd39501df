"""What a stream needs of where it came in, and of whoever made it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from jupyman.ssh.channels.channel import Channel

if TYPE_CHECKING:
    from jupyman.ssh.channels.relay import Relay

# Asked what to say in the host's stead: what the local program said since it was last answered, and for how many
# seconds it has waited (None: the link was lost in the middle). Bytes are said, then it is closed; None: it waits.
Respond = Callable[[bytes, float | None], bytes | None]


class Origin(Protocol):
    """Where a connection came in: a listener, or none where we ourselves connect."""

    respond: Respond | None

    def count(self, inward: int, outward: int) -> None:
        """So many bytes came from the host, so many went to it; from any thread."""


class Owner(Protocol):
    """Who is told what becomes of a stream; all in the loop's thread.

    Attributes:
        hasty: wants to hear at once that a channel is open; else that may wait for the next thing that happens.
        held: the host is silent, and what it is asked now may wait for long.
    """

    hasty: bool
    held: bool

    def opened(self, stream: Relay, channel: Channel, error: Exception | None) -> None:
        """The host has answered."""

    def linger(self, stream: Relay) -> None:
        """End it when its deadline comes."""

    def end(self, stream: Relay) -> None:
        """End it now."""
