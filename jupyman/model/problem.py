"""Errors and problems as they cross the API."""

from __future__ import annotations

from typing import Any, Literal

from jupyman.model.base import Noun

Severity = Literal["info", "warning", "error"]


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
