"""Make text from a host harmless before it is printed."""

from __future__ import annotations

import unicodedata

# Control characters control a terminal; format characters (bidi overrides) make text look different.
_HOSTILE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_MARK = "\N{REPLACEMENT CHARACTER}"


def clean(text: str, limit: int = 300) -> str:
    """Return one harmless line.

    Args:
        text: any.
        limit: characters; a longer text is cut and ends in an ellipsis.

    Returns:
        The text with each control, format, surrogate or line separator character replaced.
    """
    kept = "".join(_MARK if unicodedata.category(char) in _HOSTILE else char for char in text[: limit + 1])
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


def harmless(text: str) -> bool:
    """Return whether a text has no hostile character, and was valid UTF-8."""
    return _MARK not in text and clean(text, len(text)) == text
