"""What `ps` shows, and how it changes: for the followers of the event stream.

`mark` notes what may have changed. `_pump` builds what is shown of it, and counts a change if that is not what was
shown before. What changes by time alone (the link of a session has been away for long) is found by a pump over
everything, once a second while there are followers. A follower is only an index: it gets what was counted since then,
each thing once and as it is now, or a snapshot if the ring of recent changes does not reach back that far. So a slow
one costs no memory.

Threads: `mark` and `follow` are called from any, under any lock, and take `_marks` alone, which guards the marks and
the followers; the scheduler's thread and those of requests pump. `_lock` guards all other fields and is taken before
those of the registry and the supervisors.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import msgspec

from jupyman.core.links.hosts import Hosts
from jupyman.core.runtime.scheduler import Scheduler
from jupyman.core.sessions.registry import SessionRegistry
from jupyman.core.sessions.state import SessionState
from jupyman.model import HostForward, LinkStatus, Session
from jupyman.model.event import (
    AnyFeedEvent,
    ForwardChanged,
    ForwardRemoved,
    LinkChanged,
    SessionChanged,
    SessionRemoved,
    Snapshot,
)

RECENT = 1024  # changes that the ring holds
REFRESH = 1.0  # seconds between two pumps over everything

Shown = Session | HostForward | LinkStatus


class Key(NamedTuple):
    """One thing that changes: a session's name, a host with a forward's local endpoint, or a host's link."""

    kind: Literal["session", "forward", "link"]
    name: str
    local: str = ""


@dataclass(frozen=True)
class Batch:
    """What a follower gets: lines, and where it continues from."""

    lines: bytes
    epoch: str
    index: int


class EventFeed:
    """The one source of `ps` and the event stream.

    Args:
        sessions: the registry; its changes are marked here.
        hosts: their links.
        scheduler: calls the pump.
    """

    def __init__(self, sessions: SessionRegistry, hosts: Hosts, scheduler: Scheduler) -> None:
        self.epoch = secrets.token_hex(8)
        self._sessions = sessions
        self._hosts = hosts
        self._lock = threading.Lock()
        self._marks = threading.Lock()
        self._marked: set[Key] = set()
        self._index = 0
        self._recent: deque[Key] = deque(maxlen=RECENT)  # what the changes up to `_index` were of
        self._lines: dict[Key, bytes] = {}  # the last change of each of these
        self._shown: dict[Key, Shown] = {}  # as of the last pump, without the counters
        self._snapshot: Batch | None = None  # as of `_index`
        self._followers: set[Callable[[], None]] = set()
        self._unmarked = True  # changes may have gone unmarked, because there was no follower
        self._full_at = float("-inf")  # monotonic
        self._soon = scheduler.every(REFRESH, self._tick)
        sessions.on_session = lambda name: self.mark(Key("session", name))
        sessions.on_forward = lambda host, port: self.mark(Key("forward", host, f"127.0.0.1:{port}"))

    def snapshot(self) -> Snapshot:
        """Return everything as it is now."""
        with self._lock:
            return self._everything()

    def mark(self, *keys: Key) -> None:
        """Note what may have changed; never waits."""
        with self._marks:
            if not self._followers:
                return  # the first one begins with a pump over everything
            self._marked.update(keys)
        self._soon()

    def mark_host(self, host: str) -> None:
        """Note that a link's status may have changed: it is shown with all that uses the link; never waits."""
        sessions = [Key("session", one.name) for one in self._sessions.on(host)]
        forwards = [Key("forward", host, f"127.0.0.1:{spec.local_port}") for spec, _ in self._sessions.forwards(host)]
        self.mark(Key("link", host), *sessions, *forwards)

    def follow(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Begin to follow; what has changed until now is for `read`. Never waits.

        Args:
            changed: called after changes were counted; must not wait.

        Returns:
            What ends it, and never waits.
        """
        with self._marks:
            self._unmarked = self._unmarked or not self._followers
            self._followers.add(changed)

        def leave() -> None:
            with self._marks:
                self._followers.discard(changed)

        return leave

    def read(self, epoch: str | None, since: int) -> Batch:
        """Return what has changed.

        Args:
            epoch: of the daemon that the follower had the last line from; None: it has none.
            since: the index of that line.

        Returns:
            A snapshot if `epoch` is not ours or `since` is too long ago; else each thing that has changed, once.
        """
        with self._lock:
            self._pump()
            missed = self._index - since
            if epoch != self.epoch or not 0 <= missed <= len(self._recent):
                return self._encoded_snapshot()
            newest_first = dict.fromkeys(islice(reversed(self._recent), missed))
            lines = b"".join(self._lines[key] for key in reversed(newest_first))
            return Batch(lines, self.epoch, self._index)

    def _tick(self) -> None:
        with self._lock:
            if self._followers:
                self._pump()

    def _pump(self) -> None:
        """Count what has changed, and notify the followers; `_lock` is held."""
        with self._marks:
            marked, self._marked = self._marked, set()
            followers = list(self._followers)
            unmarked, self._unmarked = self._unmarked, False
        before = self._index
        if unmarked or time.monotonic() - self._full_at >= REFRESH:
            self._full_at = time.monotonic()
            now: dict[Key, Shown | None] = {**dict.fromkeys(self._shown), **_by_key(self._everything())}
        else:
            now = {key: self._view(key) for key in marked}
        for key, view in now.items():
            self._compare(key, view)
        if self._index != before:
            self._snapshot = None
            for changed in followers:
                changed()

    def _compare(self, key: Key, view: Shown | None) -> None:
        quiet = _without_counters(view)
        if quiet == self._shown.get(key):
            return
        if quiet is None:
            del self._shown[key]
        else:
            self._shown[key] = quiet
        self._index += 1
        oldest = self._recent[0] if len(self._recent) == RECENT else None
        self._recent.append(key)
        self._lines[key] = encode(_line(self._index, key, view))
        if oldest is not None and oldest not in self._recent:
            del self._lines[oldest]

    def _view(self, key: Key) -> Shown | None:
        if key.kind == "link":
            supervisor = self._hosts.known(key.name)
            return supervisor.status if supervisor is not None else None
        if key.kind == "session":
            state = self._sessions.find(key.name)
            return self._session(state) if state is not None else None
        views = self._sessions.tunnel_views(self._hosts, key.name)
        return next((one for one in views if one.local == key.local), None)

    def _session(self, state: SessionState) -> Session:
        supervisor = self._hosts.known(state.spec.host)
        return self._sessions.view(state, supervisor.status if supervisor is not None else LinkStatus())

    def _everything(self) -> Snapshot:
        return Snapshot(
            index=self._index,
            epoch=self.epoch,
            sessions=[self._session(state) for state in self._sessions.all()],
            forwards=self._sessions.tunnel_views(self._hosts),
            links={host: supervisor.status for host, supervisor in self._hosts.all().items()},
        )

    def _encoded_snapshot(self) -> Batch:
        if self._snapshot is None:
            self._snapshot = Batch(encode(self._everything()), self.epoch, self._index)
        return self._snapshot


def encode(event: AnyFeedEvent) -> bytes:
    """Return an event as a line."""
    return msgspec.json.encode(event) + b"\n"


def _by_key(snapshot: Snapshot) -> dict[Key, Shown]:
    return {
        **{Key("session", one.name): one for one in snapshot.sessions},
        **{Key("forward", one.host, one.local): one for one in snapshot.forwards},
        **{Key("link", host): one for host, one in snapshot.links.items()},
    }


def _without_counters(view: Shown | None) -> Shown | None:
    """Return what is shown without what changes with every byte: that alone is no change."""
    if isinstance(view, HostForward):
        return msgspec.structs.replace(view, **_NO_COUNT)
    if isinstance(view, Session):
        return msgspec.structs.replace(
            view, forwards=[msgspec.structs.replace(one, **_NO_COUNT) for one in view.forwards]
        )
    return view


_NO_COUNT = {"open": 0, "bytes_in": 0, "bytes_out": 0}


def _line(index: int, key: Key, view: Shown | None) -> AnyFeedEvent:
    if isinstance(view, Session):
        return SessionChanged(index=index, session=view)
    if isinstance(view, HostForward):
        return ForwardChanged(index=index, forward=view)
    if isinstance(view, LinkStatus):
        return LinkChanged(index=index, host=key.name, link=view)
    if key.kind == "session":
        return SessionRemoved(index=index, name=key.name)
    return ForwardRemoved(index=index, host=key.name, local=key.local)
