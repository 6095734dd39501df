"""Text for terminals: progress lines, tables, and no control characters from hosts."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Sequence
from typing import TextIO

from jupyman.api import Step

_MARKS = {"done": ("✓", "32"), "warn": ("!", "33"), "skip": ("-", "2"), "run": ("…", "2")}
_WIDTH = 78
# Control, format (bidirectional overrides, zero-width) and surrogate characters change what a terminal shows.
_UNSAFE = frozenset({"Cc", "Cf", "Cs"})


def printable(text: str, stream: TextIO) -> str:
    """Make text safe for a stream: control characters escaped, and what its encoding lacks replaced.

    Args:
        text: may come from a host; line breaks and tabs are kept.
        stream: where it goes.
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if c in "\n\t" or unicodedata.category(c) not in _UNSAFE else _escape(c) for c in text)
    encoding = _encoding(stream)
    return text.encode(encoding, "replace").decode(encoding, "replace")


def safe_json(text: str, stream: TextIO) -> str:
    r"""Make JSON safe for a stream without changing its value: characters become ``\uXXXX``.

    Args:
        text: JSON, in which control characters below 32 are escaped already.
        stream: where it goes.
    """
    if text.isascii() and "\x7f" not in text:
        return text
    # In another encoding than UTF-8, which RFC 8259 requires, only ASCII is safe.
    unicode = _encoding(stream).lower().replace("_", "-") in {"utf-8", "utf8"}
    return "".join(
        c if (unicode or c.isascii()) and unicodedata.category(c) not in _UNSAFE else _unicode_escape(c) for c in text
    )


def _unicode_escape(character: str) -> str:
    # JSON has 16-bit units only (RFC 8259, section 7).
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))


def _encoding(stream: TextIO) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def _escape(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


class Progress:
    """Shows steps: on a terminal in a line that is rewritten, elsewhere in one line for each finished step.

    Args:
        stream: stderr.
        colour: whether it shows colours.
        dumb: a terminal that cannot erase a line.
    """

    def __init__(self, stream: TextIO, *, colour: bool, dumb: bool = False) -> None:
        self._stream = stream
        self._colour = colour
        self._live = stream.isatty() and not dumb
        self._open = False

    def show(self, step: Step) -> None:
        """Show a step."""
        mark, code = _MARKS[step.state]
        mark = printable(mark, self._stream)
        if self._colour:
            mark = f"\x1b[{code}m{mark}\x1b[0m"
        text = " ".join(printable(step.text, self._stream).split())
        if step.state == "run":
            if self._live:
                # A line that wraps could not be erased.
                self._write(f"\r\x1b[2K{mark} {text[: self._columns() - 3]}")
                self._open = True
            return
        self.clear()
        seconds = f"{step.seconds:6.1f} s" if step.seconds is not None else ""
        self._write(f"{mark} {text:<{_WIDTH - 2}} {seconds}".rstrip() + "\n")

    def clear(self) -> None:
        """Erase the unfinished line."""
        if self._open:
            self._write("\r\x1b[2K")
            self._open = False

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or _WIDTH
        except (OSError, ValueError):  # not a file
            return _WIDTH

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            self._stream.write(text)
            self._stream.flush()


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table as `ps` does: columns as wide as their widest cell, no lines.

    Args:
        heads: of the columns.
        rows: their cells; a line break in a cell is escaped.
    """
    cells = [[cell.replace("\n", "\\n").replace("\t", "\\t") for cell in row] for row in (heads, *rows)]
    widths = [max(_columns(row[index]) for row in cells) for index in range(len(heads))]
    lines = []
    for row in cells:
        padded = [cell + " " * (width - _columns(cell)) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _columns(text: str) -> int:
    """Return the width on a terminal: East Asian wide characters take two columns, combining ones none."""
    wide = sum(1 for c in text if unicodedata.east_asian_width(c) in "WF")
    return len(text) + wide - sum(1 for c in text if unicodedata.combining(c))


def duration(seconds: float) -> str:
    """Format a time span: its two largest units."""
    count = max(0, int(seconds))
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    for index, (unit, length) in enumerate(units):
        if count >= length or unit == "s":
            below = units[index + 1 : index + 2]
            rest = "".join(f" {count % length // part}{name}" for name, part in below)
            return f"{count // length}{unit}{rest}"
    return "0s"
