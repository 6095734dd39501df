"""Notice that this computer slept, or that its network changed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# A tick that comes this much later than asked, by either clock, means sleep (or SIGSTOP): CLOCK_MONOTONIC stands
# still during sleep on Linux, the wall clock does not.
LATE = 3.0


def source_address(peer: str | None) -> str | None:
    """Return the local address that packets to `peer` would leave from.

    Args:
        peer: an IP address; None asks nothing.

    Returns:
        The address, None without a route. A connected UDP socket sends no packet; psutil knows no default route.
    """
    if peer is None:
        return None
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
    _address: str | None = field(init=False, default=None)
    _peer: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.sleep_begins()

    def sleep_begins(self) -> None:
        """Note the clocks before a wait."""
        self._mono, self._wall = self.monotonic(), self.wall()

    def disturbed(self, asked: float, peer: str | None) -> bool:
        """Tell after a wait whether something happened to this computer.

        Args:
            asked: seconds that the wait was meant to last at most.
            peer: the host's IP address.

        Returns:
            True after sleep, or when packets to `peer` now leave from another address.
        """
        late = max(self.monotonic() - self._mono, self.wall() - self._wall) - asked
        address = source_address(peer)
        # An address that vanishes is no reason to look: the answer would be "unreachable" anyway.
        moved = peer == self._peer and address is not None and address != self._address
        if address is not None or peer != self._peer:
            self._address, self._peer = address, peer
        return late > LATE or moved
