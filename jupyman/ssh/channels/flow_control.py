"""How much may be under way in one channel (RFC 4254, section 5.2): to the host, and from it. No I/O, one thread."""

from __future__ import annotations

from collections.abc import Callable

# What the host may send before the local program has taken it. It begins with what sshd itself allows, and grows while
# the program keeps up: a long line carries window / round trip, and 16 MiB are 320 MB/s at 50 ms.
WINDOW = 2 * 1024 * 1024
WINDOW_MAX = 16 * 1024 * 1024
# What one channel may have under way to the host while others send too, because they wait behind it. It must carry any
# speed there is, so it grows with the length of the line.
FLIGHT = 192 * 1024
FLIGHT_RATE = 1 << 30  # bytes per second
FLIGHT_STEP = 64 * 1024  # bytes that are worth another turn then
FLIGHT_TURN = 128 * 1024  # bytes in one turn then: reading and sealing them takes 0.15 ms
ENOUGH = 512 * 1024  # bytes that are worth another turn while nobody else sends
_LAST = (1 << 32) - 1


class SendWindow:
    """What the host takes."""

    def __init__(self) -> None:
        self._free = 0
        self._reserve = 0  # bytes of it that are not used while others send too
        self._enough = 0  # bytes that are worth another turn
        self._starved = False  # `free` returned 0, and `grow` has not returned True since
        self._late = False  # and that was long ago

    def open(self, size: int, round_trip: float) -> None:
        """Begin.

        Args:
            size: bytes that the host takes.
            round_trip: seconds, to it and back.
        """
        self._reserve = max(0, size - max(FLIGHT, int(FLIGHT_RATE * round_trip)))
        self._enough = min(ENOUGH, size // 4)
        self._free = size

    def fits(self, size: int) -> bool:
        """Return whether so many bytes may be sent now, even if others send too."""
        return self._free >= size

    def free(self, *, contended: bool) -> int:
        """Return the bytes that may be sent now; after 0, `grow` returns True when it is worth asking again.

        Args:
            contended: others send on this connection too.
        """
        free = self._free - (self._reserve if contended else 0)
        self._starved = free <= 0
        self._late = self._late and self._starved
        return max(0, min(free, FLIGHT_TURN) if contended else free)

    def take(self, size: int) -> None:
        """So many bytes are sent."""
        self._free -= size

    def grow(self, size: int, *, contended: bool) -> bool:
        """The host takes so many bytes more; return whether the caller of `free` should ask again."""
        self._free = min(self._free + size, _LAST)
        least = self._reserve + FLIGHT_STEP if contended else self._enough
        enough = self._starved and (self._free >= least or self._late)
        self._starved = self._starved and not enough
        return enough

    def lapse(self) -> bool:
        """It has not grown for a while: the host may wait for more before it acknowledges anything.

        Returns:
            Whether something may be sent after all.
        """
        self._late = self._starved
        if not self._starved or self._free == 0:
            return False
        self._reserve, self._starved = 0, False
        return True


class ReceiveWindow:
    """What we take.

    Args:
        reserve: takes bytes from what all windows of the connection may grow by together; returns how many it gave.
    """

    def __init__(self, reserve: Callable[[int], int]) -> None:
        self._reserve = reserve
        self._granted = WINDOW  # bytes that the host may still send
        self._held = 0  # bytes that came and are not delivered
        self._most = WINDOW  # of both together
        self._closed = False

    def take(self, size: int) -> bool:
        """So many bytes have come; return whether they were allowed."""
        self._granted -= size
        self._held += size
        return self._granted >= 0

    def deliver(self, size: int) -> int:
        """So many bytes were delivered; return how many more the host should be allowed, 0 if it is not worth it."""
        self._held -= size
        more = 0 if self._closed else self._most - self._granted - self._held
        if more < self._most >> 3:
            return 0
        if self._held == 0 and self._most < WINDOW_MAX:
            growth = self._reserve(min(self._most, WINDOW_MAX - self._most))
            self._most += growth
            more += growth
        self._granted += more
        return more

    def close(self) -> None:
        """Nothing more comes: give back what it has grown by."""
        self._closed = True
        growth, self._most = self._most - WINDOW, WINDOW
        self._reserve(-growth)
