"""The base class of all structs that cross the API, go to disk or are printed by ``--json``; errors and problems."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Severity = Literal["info", "warning", "error"]


class Noun(msgspec.Struct, frozen=True, kw_only=True):
    """Immutable and built by keyword.

    Times are RFC 3339 UTC strings, sizes are bytes, ports are integers. An unknown value is None, never 0 or "".
    """


class ErrorInfo(Noun, frozen=True, kw_only=True):
    """An error: see errors.py. `details` holds further facts for people and scripts; no code reads them."""

    code: str
    message: str
    hint: str
    details: dict[str, Any] = {}


class Problem(Noun, frozen=True, kw_only=True):
    """A finding that does not stop the work."""

    code: str
    severity: Severity
    text: str
    fix: str
