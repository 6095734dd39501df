"""What a terminal sees: progress lines, tables, and nothing that a hostile host could smuggle in."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TextIO

from jupyman.api import Step

_MARKS = {"done": ("✓", "32"), "warn": ("!", "33"), "skip": ("-", "2"), "run": ("…", "2")}
_WIDTH = 78


def printable(text: str, stream: TextIO) -> str:
    """Make text safe for a stream: control characters escaped, and what its encoding lacks replaced.

    Args:
        text: may come from a host; line breaks and tabs stay.
        stream: where it goes.
    """
    if any(ord(c) < 32 or 126 < ord(c) < 160 or unicodedata.category(c) in {"Cf", "Cs"} for c in text):
        text = "".join(c if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cf", "Cs"} else _escape(c) for c in text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding, "replace")


def _escape(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


class Progress:
    """Steps as they happen: on a terminal a line that is rewritten, elsewhere one line for each finished step.

    Args:
        stream: stderr.
        colour: whether it takes colours.
    """

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        self._stream = stream
        self._colour = colour
        self._live = stream.isatty()
        self._open = False

    def show(self, step: Step) -> None:
        """Show a step."""
        mark, code = _MARKS[step.state]
        mark = printable(mark, self._stream)
        if self._colour:
            mark = f"\x1b[{code}m{mark}\x1b[0m"
        text = " ".join(printable(step.text, self._stream).split("\n"))
        if step.state == "run":
            if self._live:
                self._write(f"\r\x1b[2K{mark} {text[:_WIDTH]}")
                self._open = True
            return
        self.clear()
        seconds = f"{step.seconds:6.1f} s" if step.seconds is not None else ""
        self._write(f"{mark} {text:<{_WIDTH - 2}} {seconds}".rstrip() + "\n")

    def clear(self) -> None:
        """Take the unfinished line away."""
        if self._open:
            self._write("\r\x1b[2K")
            self._open = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table as `ps` does: columns by their widest cell, no lines."""
    cells = [list(heads), *(list(row) for row in rows)]
    widths = [max(_columns(row[index]) for row in cells) for index in range(len(heads))]
    lines = []
    for row in cells:
        padded = [cell + " " * (width - _columns(cell)) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _columns(text: str) -> int:
    """Width on a terminal: East Asian wide characters take two columns."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def size(count: int | None) -> str:
    """Return bytes for people; "?" where not known."""
    if count is None:
        return "?"
    amount = float(count)
    for unit in ("B", "kiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return "?"
