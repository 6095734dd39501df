"""Refuse connections of other users of this computer to our ports, and remember who tried.

One `PeerGuard` belongs to one local port. `refuse` is called by the thread that accepts (the loop of all forwards,
sshtunnel's threads, the API's loop): it queries the kernel once and never blocks. `seen` is called by any thread.
`_lock` guards `refused`, `_last` and `_names`. A name is looked up in a thread of its own, because a directory service
may hang.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time

from jupyman.local import peer

log = logging.getLogger(__name__)

SHOWN = 3600.0  # seconds for which `ps` lists an attempt
KEPT = 8  # users that are remembered: with a user namespace one user has thousands of uids


class PeerGuard:
    """The guard of one local port.

    Args:
        what: describes the port in the log.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.refused = 0
        self._last: dict[int, float] = {}
        self._names: dict[int, str] = {}
        self._lock = threading.Lock()

    def refuse(self, far: peer.End, near: peer.End) -> bool:
        """Return whether a connection that was just accepted must be closed unread.

        Args:
            far: the caller's address and port.
            near: ours.
        """
        uid = peer.stranger(far, near)
        if uid is None:
            return False
        with self._lock:
            self.refused += 1
            if uid == peer.GONE:  # our own port checks look like this too: no user is recorded
                return True
            is_new = uid not in self._last
            self._last.pop(uid, None)
            self._last[uid] = time.time()
            if len(self._last) > KEPT:
                self._last.pop(next(iter(self._last)))
        if is_new:
            with contextlib.suppress(RuntimeError):  # no thread can be started: the name stays unknown
                threading.Thread(target=self._record, args=(uid,), name="stranger", daemon=True).start()
        return True

    def seen(self) -> list[tuple[str, float]]:
        """Return the users that were refused recently, and when last (seconds since the epoch)."""
        since = time.time() - SHOWN
        with self._lock:
            return [
                (self._names.get(uid, f"uid {uid}"), moment) for uid, moment in self._last.items() if moment > since
            ]

    def _record(self, uid: int) -> None:
        name = account(uid)
        with self._lock:
            if uid in self._last:
                self._names = {one: text for one, text in self._names.items() if one in self._last}
                self._names[uid] = name
        log.warning("%s: a connection of %s was refused", self.what, name)


def account(uid: int) -> str:
    """Return a user's name and uid; may wait for a directory service."""
    if sys.platform != "win32":
        import pwd

        try:
            return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
        except (KeyError, OverflowError):
            pass
    return f"uid {uid}"
