"""A queue of the bytes that a local program has not taken yet."""

from __future__ import annotations

from collections import deque

PIECE = 32768  # bytes; small messages are joined, or each would cost several times its size


class Backlog:
    """A queue of bytes."""

    def __init__(self) -> None:
        self._pieces: deque[bytearray] = deque()
        self._skip = 0  # bytes of the first piece that are gone

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def __len__(self) -> int:
        return sum(map(len, self._pieces)) - self._skip

    def add(self, views: list[memoryview], skip: int) -> None:
        """Append bytes.

        Args:
            views: copied.
            skip: bytes at their beginning that are left out.
        """
        for view in views:
            if skip < len(view):
                if self._pieces and len(self._pieces[-1]) + len(view) <= PIECE:
                    self._pieces[-1] += view[skip:]
                else:
                    self._pieces.append(bytearray(view[skip:]))
            skip = max(0, skip - len(view))

    def head(self, count: int) -> list[memoryview]:
        """Return the first few pieces, valid until anything is added or dropped."""
        views = [memoryview(self._pieces[index]) for index in range(min(count, len(self._pieces)))]
        views[0] = views[0][self._skip :]
        return views

    def drop(self, size: int) -> None:
        """Remove so many bytes."""
        self._skip += size
        while self._pieces and self._skip >= len(self._pieces[0]):
            self._skip -= len(self._pieces.popleft())

    def clear(self) -> None:
        """Remove everything."""
        self._pieces.clear()
        self._skip = 0
