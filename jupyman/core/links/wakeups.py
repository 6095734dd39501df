"""Detect that this computer slept, or that its network changed."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterable
from typing import Protocol

from jupyman.core.runtime.clock import Clock

# A tick that comes this much later than asked, by either clock, means sleep (or SIGSTOP): CLOCK_MONOTONIC stands
# still during sleep on Linux, the wall clock does not.
LATE = 3.0
TICK = 1.0  # seconds
# A connection of a computer that slept for longer, in seconds, is not expected to survive: the other end may have
# given it up.
LONG = 30.0
# Without a route to the host for this long, seconds, a connection is given up: as soon as there is a network again, a
# new login follows at once. A cable that is back sooner keeps its connections.
CUT_OFF = 5.0
# An address that is never assigned (RFC 5737): packets to it would take the default route.
ANYWHERE = "192.0.2.1"
_NO_ROUTE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL}


def source_address(peer: str | None) -> str | None:
    """Return the local address that packets to `peer` would leave from.

    Args:
        peer: an IP address; None: anywhere.

    Returns:
        The address, None without a route. A connected UDP socket sends no packet; psutil knows no default route.

    Raises:
        OSError: that cannot be determined: no file descriptor is left, a sandbox forbids it, or the address needs more
            than its text (a link-local one of IPv6).
    """
    peer = peer or ANYWHERE
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((peer, 9))
            return str(probe.getsockname()[0])
    except OSError as error:
        if error.errno in _NO_ROUTE:
            return None
        raise


class WakeupListener(Protocol):
    """What is notified: the owner of a link."""

    @property
    def awaited(self) -> bool:
        """Whether a link is up, or to come back."""

    @property
    def peer(self) -> str | None:
        """The host's IP address, None if it is not known."""

    @property
    def source(self) -> str | None:
        """The address of this computer to which the link is bound, None without one or if it is not known."""

    def disturbed(self, *, doubtful: bool) -> None:
        """Check the link, or log in, now: this computer slept, or its network changed. Must not wait."""

    def cut_off(self) -> None:
        """Note that there was no route to the host for `CUT_OFF` seconds. Must not wait."""


class WakeupWatcher:
    """Compares ticks with both clocks, and the addresses that packets leave from with the last ones seen.

    One for all links: a tick of each would cost more than their heartbeats.

    Args:
        listeners: returns what is notified; called at each tick.
        clock: this computer's.
    """

    def __init__(self, listeners: Callable[[], Iterable[WakeupListener]], clock: Clock | None = None) -> None:
        self._listeners = listeners
        self._clock = clock or Clock()
        self._addresses: dict[str | None, str | None] = {}
        self._unreachable: dict[str | None, float] = {}  # peers without a route, and since when, monotonic
        self.wait_begins()
        self._ahead = self._wall - self._mono  # of the wall clock: it goes on during sleep

    def wait_begins(self) -> None:
        """Note the clocks as the wait for the next tick begins. A tick does so at its end."""
        self._mono, self._wall = self._clock.monotonic(), self._clock.wall()

    def tick(self, asked: float = TICK) -> None:
        """Notify, after a wait, those whom it concerns of what happened to this computer.

        After sleep that is everyone; if packets to a host now leave from another address, or from one again, those with
        that host. A link is in doubt if it is bound to another address than packets leave from now, or if the computer
        slept for long. A lack of a route is reported after `CUT_OFF`.

        Args:
            asked: seconds that the wait was meant to last at most.
        """
        mono, wall = self._clock.monotonic(), self._clock.wall()
        late = max(mono - self._mono, wall - self._wall) - asked
        # The sleep may also have come between two waits, while we worked.
        ahead, self._ahead = wall - mono - self._ahead, wall - mono
        slept = max(late, ahead)
        waiting = [(one, one.peer) for one in self._listeners() if one.awaited]
        moved = self._moved({peer for _, peer in waiting})
        for one, peer in waiting:
            if slept > LATE or peer in moved:
                bound, leaves = one.source, self._addresses.get(peer)
                one.disturbed(doubtful=slept > LONG or (peer in moved and bound is not None and bound != leaves))
            elif peer is not None and mono - self._unreachable.get(peer, mono) >= CUT_OFF:
                one.cut_off()
        self.wait_begins()

    def _moved(self, peers: set[str | None]) -> set[str | None]:
        before, self._addresses = self._addresses, {}
        for peer in peers:
            with contextlib.suppress(OSError):  # not known now, so nothing follows from it
                self._addresses[peer] = source_address(peer)
        instant = self._clock.monotonic()
        without = [peer for peer, address in self._addresses.items() if address is None]
        self._unreachable = {peer: self._unreachable.get(peer, instant) for peer in without}
        # An address that vanishes is no reason to check: the result would be "unreachable" anyway.
        return {
            peer
            for peer, address in self._addresses.items()
            if peer in before and address is not None and address != before[peer]
        }
