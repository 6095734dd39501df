"""One-time codes: what a browser is sent with instead of a session's token."""

from __future__ import annotations

import secrets
import threading
import time

LIFE = 60.0  # seconds


class OneTimeCodes:
    """Issues codes for sessions; each is good once, for `LIFE` seconds. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._codes: dict[str, tuple[str, float]] = {}  # the session, and when the code expires (monotonic)

    def issue(self, session: str) -> str:
        """Return a new code for a session."""
        code = secrets.token_urlsafe(24)
        with self._lock:
            now = time.monotonic()
            self._codes = {key: entry for key, entry in self._codes.items() if entry[1] > now}
            self._codes[code] = (session, now + LIFE)
        return code

    def redeem(self, code: str) -> str | None:
        """Return the session of a code and void the code; None when it is unknown, used or expired."""
        with self._lock:
            session, expires = self._codes.pop(code, (None, 0.0))
        return session if time.monotonic() <= expires else None
