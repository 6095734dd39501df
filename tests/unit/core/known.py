"""Sessions in a given state, brought there by events."""

from __future__ import annotations

from pathlib import Path

import msgspec

from jupyman.core.sessions.registry import SessionRegistry, SessionRuntime
from jupyman.core.sessions.state import Absent, Answered, Bound, LinkUp, Proven, UpFailed, Wanted
from jupyman.core.sessions.store import Store
from jupyman.model import LinkStatus, Problem, Running, Server, ServerState, SessionSpec

UP = LinkStatus(state="up", since="2026-01-02T03:04:05Z")
AT = "2026-01-02T03:04:05Z"
ENDED = Problem(code="server-exited", severity="error", text="its process is gone", fix="f")


def server(pid: int = 4121, *, port: int | None = 8888, token: str = "t", gpus: list[int] | None = None) -> Running:
    """Return a server that has answered."""
    facts = Server(pid=pid, port=port, version="2.17.0", app="lab", env=None, root_dir="/home/u", started=AT, gpus=gpus)
    return Running(name="server1", server=facts, token=token, directory="/d", base_url="/", boot_id="b", start_ticks=1)


def registry(where: Path) -> SessionRegistry:
    """Return an empty one."""
    return SessionRegistry(Store(where / "state.json"))


def put(
    sessions: SessionRegistry,
    spec: SessionSpec | None = None,
    state: ServerState = "lost",
    *,
    running: Running | None = None,
    link: object | None = None,
) -> SessionRuntime:
    """Enter a session.

    Args:
        sessions: where.
        spec: what is wanted.
        state: that its server has.
        running: its server.
        link: the host's link is up; with `running`, the server was proven over it.
    """
    spec = spec or SessionSpec(name="server1", host="server1")
    session, fresh = sessions.enter(spec)
    assert fresh, spec.name
    sessions.apply(session, UpFailed(undone=False))
    if link is not None:
        sessions.link_up(spec.host, link)
    if running is not None:
        over = link if link is not None else object()
        sessions.apply(session, LinkUp(link=over))
        sessions.apply(session, Proven(running=running, over=over, at=AT))
        if link is None:
            sessions.link_lost(spec.host)
    if state == "running":
        sessions.apply(session, Answered())
    elif state == "exited":
        sessions.apply(session, Absent(problem=ENDED, running=running, at=0.0, restartable=False))
    assert session.current.state == (state if running is None or state != "lost" else "running")
    return session


def rewish(sessions: SessionRegistry, session: SessionRuntime, spec: SessionSpec) -> None:
    """Let another `up` have succeeded with that spec; the local port that it names is bound."""
    sessions.apply(session, Bound(port=spec.local_port))
    sessions.apply(session, Wanted(spec=msgspec.structs.replace(spec, wanted=True)))
