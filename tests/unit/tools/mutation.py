"""Mutations of real answers: most of them are nearly right, which is when parsers fail."""

from __future__ import annotations

import random

MARKER = "jm-0123456789abcdef"
SPITE = [
    "\0", "\x1b]0;owned\x07", "\x1b[2J", "\r", "\u202e", "\ud800", "%", "${x}", "$(touch /tmp/x)", "`id`",
    "../", "'", '"', "-1", "9" * 30, "1e999", "nan", "", " ", "\t", ",", ":", "[", "{", "}", "=", "\u4e2d",
    "\U0001f600", "x" * 3000, MARKER,
]  # fmt: skip


def mutate(text: str, chance: random.Random) -> str:
    """Change a text in one to four places."""
    for _ in range(chance.randint(1, 4)):
        kind = chance.randrange(6)
        at = chance.randrange(len(text) + 1)
        if kind == 0:
            text = text[:at] + chance.choice(SPITE) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + chance.randint(1, 40) :]
        elif kind == 2:
            text = text[:at]
        elif kind == 3 and text:
            text = text[:at] + chr(chance.randrange(256)) + text[at + 1 :]
        elif kind == 4:
            lines = text.split("\n")
            chance.shuffle(lines)
            text = "\n".join(lines)
        else:
            lines = text.split("\n")
            text = "\n".join([*lines, *chance.choices(lines, k=chance.randint(1, 30))])
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")  # as what comes over the link is decoded
