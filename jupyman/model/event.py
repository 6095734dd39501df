"""The lines of ``GET /v1/events``: a snapshot, then what changes.

Each line is one JSON object whose `event` names its kind. `index` grows with every change; a client that comes back
asks for what came after the last one that it has, and names the `epoch` of the daemon that sent it. If the daemon is
another one, or no longer knows what has changed since then, it sends a snapshot again. Of several changes of one thing
a client may get only the last.
"""

from __future__ import annotations

import msgspec

from jupyman.model import HostForward, LinkStatus, Session


class FeedEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Base of the lines.

    Attributes:
        index: of the last change that this line, and those before it, include.
    """

    index: int


class Snapshot(FeedEvent, tag="snapshot", frozen=True, kw_only=True):
    """Everything, as `ps` shows it; it replaces what the client had.

    Attributes:
        epoch: of the daemon, which counts its changes from zero.
        sessions: all of them.
        forwards: those that belong to no session.
        links: by host, of each host that was used since the daemon's start.
    """

    epoch: str
    sessions: list[Session] = []
    forwards: list[HostForward] = []
    links: dict[str, LinkStatus] = {}


class SessionChanged(FeedEvent, tag="session", frozen=True, kw_only=True):
    """A session is new, or has changed."""

    session: Session


class SessionRemoved(FeedEvent, tag="session-removed", frozen=True, kw_only=True):
    """A session was killed."""

    name: str


class ForwardChanged(FeedEvent, tag="forward", frozen=True, kw_only=True):
    """A forward that belongs to no session is new, or has changed."""

    forward: HostForward


class ForwardRemoved(FeedEvent, tag="forward-removed", frozen=True, kw_only=True):
    """Such a forward was closed; `local` is its local endpoint."""

    host: str
    local: str


class LinkChanged(FeedEvent, tag="link", frozen=True, kw_only=True):
    """The link to a host has changed."""

    host: str
    link: LinkStatus


class Heartbeat(FeedEvent, tag="heartbeat", frozen=True, kw_only=True):
    """Nothing has changed for a while, and the daemon is there."""


AnyFeedEvent = Snapshot | SessionChanged | SessionRemoved | ForwardChanged | ForwardRemoved | LinkChanged | Heartbeat
