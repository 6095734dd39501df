"""How much may be on its way in one channel (RFC 4254, section 5.2): to the host, and from it. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Callable

# What a channel may bring before the local program has taken it. It begins with what sshd itself allows, and grows
# while the program keeps up: a download over a long line is capped by window / round trip, and 16 MiB carry 320 MB/s
# at 50 ms.
WINDOW = 2 * 1024 * 1024
WINDOW_MAX = 16 * 1024 * 1024
# What one channel may have on its way to the host while others speak, too, for they wait behind it. It must carry any
# speed there is, so it grows with the line's length.
FLIGHT = 192 * 1024
FLIGHT_RATE = 1 << 30  # bytes per second
FLIGHT_STEP = 64 * 1024  # bytes that are worth another turn then
FLIGHT_TURN = 128 * 1024  # bytes in one turn then: reading and sealing them takes an interpreter's thread 0.15 ms
ENOUGH = 512 * 1024  # and while nobody else speaks
_LAST = (1 << 32) - 1


class SendWindow:
    """What the host takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = 0
        self._reserve = 0  # bytes of it that are not used in company
        self._enough = 0  # bytes that are worth another turn
        self._hungry = False  # somebody waits for it to grow
        self._late = False  # for long

    def open(self, size: int, round_trip: float) -> None:
        """Begin.

        Args:
            size: bytes that the host takes.
            round_trip: seconds, to it and back.
        """
        self._reserve = max(0, size - max(FLIGHT, int(FLIGHT_RATE * round_trip)))
        self._enough = min(ENOUGH, size // 4)
        self._free = size

    def free(self, *, company: bool) -> int:
        """Return the bytes that may be sent now; where that is none, `grow` will say when it is worth asking again.

        Args:
            company: others speak on this connection, too.
        """
        with self._lock:
            free = self._free - (self._reserve if company else 0)
            self._hungry = free <= 0
            self._late = self._late and self._hungry
            return max(0, min(free, FLIGHT_TURN) if company else free)

    def take(self, size: int) -> None:
        """So many bytes are sent."""
        with self._lock:
            self._free -= size

    def grow(self, size: int, *, company: bool) -> bool:
        """The host takes so many bytes more; return whether that is worth telling."""
        with self._lock:
            self._free = min(self._free + size, _LAST)
            least = self._reserve + FLIGHT_STEP if company else self._enough
            told = self._hungry and (self._free >= least or self._late)
            self._hungry = self._hungry and not told
            return told

    def lapse(self) -> bool:
        """It has not grown for a while: the host may wait for more before it acknowledges anything.

        Returns:
            Whether something may be sent after all.
        """
        with self._lock:
            self._late = self._hungry
            if not self._hungry or self._free == 0:
                return False
            self._reserve, self._hungry = 0, False
            return True


class ReceiveWindow:
    """What we take.

    Args:
        spare: takes from what all windows of the connection may grow by, together; returns what it gave.
    """

    def __init__(self, spare: Callable[[int], int]) -> None:
        self._spare = spare
        self._lock = threading.Lock()
        self._granted = WINDOW  # bytes that the host may still send
        self._held = 0  # bytes that came and are not delivered
        self._most = WINDOW  # of both together
        self._closed = False

    def take(self, size: int) -> bool:
        """So many bytes have come; return whether they were allowed."""
        with self._lock:
            self._granted -= size
            self._held += size
            return self._granted >= 0

    def deliver(self, size: int) -> int:
        """So many bytes were delivered; return how many more the host is to be allowed, 0 where it is not worth it."""
        with self._lock:
            self._held -= size
            more = 0 if self._closed else self._most - self._granted - self._held
            if more < self._most >> 3:
                return 0
            if self._held == 0 and self._most < WINDOW_MAX:
                growth = self._spare(min(self._most, WINDOW_MAX - self._most))
                self._most += growth
                more += growth
            self._granted += more
            return more

    def close(self) -> None:
        """Nothing more comes: give back what it has grown by."""
        with self._lock:
            self._closed = True
            growth, self._most = self._most - WINDOW, WINDOW
        self._spare(-growth)
