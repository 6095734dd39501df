"""Notice that this computer slept, or that its network changed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# A tick that comes this much later than asked, by either clock, means sleep (or SIGSTOP): CLOCK_MONOTONIC stands
# still during sleep on Linux, the wall clock does not.
LATE = 3.0
# An address that is nobody's (RFC 5737): packets to it would go the default way.
ANYWHERE = "192.0.2.1"


def source_address(peer: str | None) -> str | None:
    """Return the local address that packets to `peer` would leave from.

    Args:
        peer: an IP address; None: anywhere.

    Returns:
        The address, None without a route. A connected UDP socket sends no packet; psutil knows no default route.
    """
    peer = peer or ANYWHERE
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((peer, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


@dataclass
class Awake:
    """Compares ticks with both clocks, and the source address with the last one seen."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    _mono: float = field(init=False)
    _wall: float = field(init=False)
    _ahead: float = field(init=False)  # of the wall clock: it goes on during sleep
    _address: str | None = field(init=False, default=None)
    _peer: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.sleep_begins()
        self._ahead = self._wall - self._mono

    def sleep_begins(self) -> None:
        """Note the clocks before a wait."""
        self._mono, self._wall = self.monotonic(), self.wall()

    def disturbed(self, asked: float, peer: str | None) -> bool:
        """Tell after a wait whether something happened to this computer.

        Args:
            asked: seconds that the wait was meant to last at most.
            peer: the host's IP address, None where it is not known.

        Returns:
            True after sleep, or when packets to `peer` now leave from another address, or from one again.
        """
        mono, wall = self.monotonic(), self.wall()
        late = max(mono - self._mono, wall - self._wall) - asked
        # Between two waits: in the middle of a login, perhaps.
        slept, self._ahead = wall - mono - self._ahead > LATE, wall - mono
        address = source_address(peer)
        # An address that vanishes is no reason to look: the answer would be "unreachable" anyway.
        moved = peer == self._peer and address is not None and address != self._address
        self._address, self._peer = address, peer
        return late > LATE or slept or moved
