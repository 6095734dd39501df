"""Other users of this computer who connect to what is ours: they are refused, and it is remembered who they were.

One `Strangers` belongs to one local port. `refuse` is called by the thread that accepts (the loop of all forwards, one
of sshtunnel's, the API's): it asks the kernel once, and waits for nothing. `seen` is called by whoever shows it.
`_lock` guards `refused`, `_last` and `_names`; a name is looked up in a thread of its own, because a directory service
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

SHOWN = 3600.0  # seconds for which an attempt is worth a line of `ps`
KEPT = 8  # users that are told apart: with a user namespace one person has thousands of uids


class PeerGuard:
    """Who was refused at one local port.

    Args:
        what: the port in words, for the log.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.refused = 0
        self._last: dict[int, float] = {}
        self._names: dict[int, str] = {}
        self._lock = threading.Lock()

    def refuse(self, far: peer.End, near: peer.End) -> bool:
        """Tell whether a connection that was just accepted is to be closed unread.

        Args:
            far: the caller's address and port.
            near: ours.
        """
        uid = peer.stranger(far, near)
        if uid is None:
            return False
        with self._lock:
            self.refused += 1
            if uid == peer.GONE:  # our own looks at who listens come and go so, too: nobody is accused
                return True
            news = uid not in self._last
            self._last.pop(uid, None)
            self._last[uid] = time.time()
            if len(self._last) > KEPT:
                self._last.pop(next(iter(self._last)))
        if news:
            with contextlib.suppress(RuntimeError):  # no thread is left: he is refused without his name
                threading.Thread(target=self._tell, args=(uid,), name="stranger", daemon=True).start()
        return True

    def seen(self) -> list[tuple[str, float]]:
        """Return who was refused of late, in words, and when last (seconds since the epoch)."""
        since = time.time() - SHOWN
        with self._lock:
            return [
                (self._names.get(uid, f"uid {uid}"), moment) for uid, moment in self._last.items() if moment > since
            ]

    def _tell(self, uid: int) -> None:
        name = account(uid)
        with self._lock:
            if uid in self._last:
                self._names = {one: text for one, text in self._names.items() if one in self._last}
                self._names[uid] = name
        log.warning("%s: a connection of %s was refused", self.what, name)


def account(uid: int) -> str:
    """Return a user of this computer in words; may wait for a directory service."""
    if sys.platform != "win32":
        import pwd

        try:
            return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
        except (KeyError, OverflowError):
            pass
    return f"uid {uid}"
