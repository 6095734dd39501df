"""PURE: one session's state, as a table of events. No thread, no I/O; times and links come with the event.

A state is never changed: `step` returns another one. `SessionRegistry.apply` is its only caller in the daemon.

Rules:
1. A connection goes to the server only while the gate is open: `SessionState.passes`. The server was then proven over
   the very link that is up, the session is not down, and no other user may know its token.
2. `exited` is entered by proof of the end alone (`Absent`); what cannot be determined is `lost`.
3. `down` ends by an `up` alone, and a `down` that comes after the request for an `up` stands. Neither a look at the
   host nor a restart undoes it.
4. A token that another user may know keeps the gate shut until it was changed, or is known to be unchangeable.
5. What a look reports counts only if no `up` began, and no other server was found, since the look began.
6. A killed session ignores every further event. Another session of that name is another session.

The table gives the server's state; `_CHANGES` gives the other fields. docs/architecture.md draws the table;
`python -m jupyman.core.sessions.state` prints it in that form.

Over 300 lines because the state, its events and what each of them changes are one machine, and its rules concern them
all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import msgspec
from msgspec import UNSET, UnsetType

from jupyman import errors
from jupyman.host.servers.liveness import ENDS
from jupyman.model import GpuUse, Problem, Running, ServerState, SessionSpec

# As systemd's StartLimitBurst and StartLimitIntervalSec, with room for Jupyter's slow starts.
RESTARTS = 3
RESTARTS_WITHIN = 600.0  # seconds

# restart  start the server again      release  the host's link may not be wanted any more
# wake     the gate has opened: connections that wait may go on
Effect = Literal["restart", "release", "wake"]


class SessionState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known of one session.

    Attributes:
        spec: what the user wants; it is kept on disk.
        state: of its server.
        before_launch: what `state` returns to if the launch under way fails.
        running: its server, as last seen.
        link: the host's link that is up; compared by identity, and never used.
        proven_over: the link over which the server was last proven.
        bound_port: the local port that is bound for it.
        down: the session is down. Its port stays bound, and leads nowhere.
        downs: how often the user took it down since the daemon's start.
        reopening: whether the `up` under way opens a session that was down: it may, or it did; "no" forbids it.
        token_exposed: another user may know the token, and it was not changed since.
        exposed_port: the local port whose holder `token_exposed` was set for.
        away_since: when the link went away, monotonic seconds; None once the server was proven again.
        seen: when the server was last proven to run, RFC 3339.
        settled: it was looked up since the daemon's start, or need not be.
        refusals: connections to the server that the host has refused so far.
        restarts: when it was restarted, monotonic seconds.
        problems: of the server.
        port_problems: of the local port and its token.
        gpu_use: what its processes hold.
        gpu_problems: of its GPUs.
        killed: it is in the registry no more.
    """

    spec: SessionSpec
    state: ServerState = "lost"
    before_launch: ServerState = "lost"
    running: Running | None = None
    link: object | None = None
    proven_over: object | None = None
    bound_port: int | None = None
    down: bool = False
    downs: int = 0
    reopening: Literal["no", "allowed", "done"] = "no"
    token_exposed: bool = False
    exposed_port: int | None = None
    away_since: float | None = None
    seen: str | None = None
    settled: bool = False
    refusals: int = 0
    restarts: tuple[float, ...] = ()
    problems: tuple[Problem, ...] = ()
    port_problems: tuple[Problem, ...] = ()
    gpu_use: tuple[GpuUse, ...] = ()
    gpu_problems: tuple[Problem, ...] = ()
    killed: bool = False

    @property
    def name(self) -> str:
        """The session's name."""
        return self.spec.name

    @property
    def proven(self) -> bool:
        """Whether the server was proven over the link that is up."""
        return self.proven_over is not None and self.proven_over is self.link

    @property
    def passes(self) -> bool:
        """Whether the gate is open: connections go to the server."""
        return self.proven and not (self.down or self.token_exposed or self.killed)

    @property
    def wants_link(self) -> bool:
        """Whether the host's link is to be kept and restored for it."""
        return self.spec.wanted and self.state != "exited" and not self.killed

    @property
    def url(self) -> str | None:
        """The address with the token; None while nothing is forwarded, and while another user may know that token."""
        if self.running is None or self.bound_port is None or self.state == "exited":
            return None
        if self.down or self.token_exposed or self.killed:
            return None
        page = {"lab": "lab", "notebook": "tree", "server": ""}[self.running.server.app]
        base = self.running.base_url.rstrip("/")
        query = f"?token={self.running.token}" if self.running.token else ""
        return f"http://127.0.0.1:{self.bound_port}{base}/{page}{query}"

    def require_kept(self, downs: int) -> None:
        """Check that the user has not ended the session since an `up` was requested.

        Args:
            downs: what `downs` was then.

        Raises:
            Interrupted: it was killed or taken down.
        """
        if self.killed:
            raise errors.Interrupted(f"session {self.name} was killed meanwhile")
        if self.downs != downs:
            raise errors.Interrupted(f"session {self.name} was taken down meanwhile")

    def recognised(self, running: Running) -> Running:
        """Return a server that was found again as this session had it: launched by it, or taken over."""
        if running.server.pid != self.spec.pid:
            return running
        server = msgspec.structs.replace(running.server, adopted=self.spec.adopted)
        return msgspec.structs.replace(running, server=server)


# --- events -------------------------------------------------------------------------------------------------------


class SessionEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the events."""


class UpStarted(SessionEvent, frozen=True, kw_only=True):
    """An `up` begins its work on this session; there is one at a time.

    Args:
        downs: what `SessionState.downs` was when it was requested: a later `down` stands.
    """

    downs: int


class Launching(SessionEvent, frozen=True):
    """The `up` starts a new server."""


class Listening(SessionEvent, frozen=True, kw_only=True):
    """The process that is being launched was seen to own the listening socket.

    Args:
        over: the link over which it was seen.
    """

    over: object


class Proven(SessionEvent, frozen=True, kw_only=True):
    """The server was proven on the host.

    Args:
        running: the server.
        over: the link over which it was proven.
        at: when, RFC 3339.
        exposed: problems of its kernels.
        before: what `running` was when the look began; UNSET: an `up` has proven it.
    """

    running: Running
    over: object
    at: str
    exposed: tuple[Problem, ...] = ()
    before: Running | UnsetType | None = UNSET


class Answered(SessionEvent, frozen=True):
    """The right server has answered through the forward."""


class LaunchUndone(SessionEvent, frozen=True):
    """The server that was launched is stopped again; another launch follows."""


class UpFailed(SessionEvent, frozen=True, kw_only=True):
    """The `up` has failed.

    Args:
        undone: the server that it launched was stopped again.
    """

    undone: bool


class Wanted(SessionEvent, frozen=True, kw_only=True):
    """The `up` has succeeded.

    Args:
        spec: what is wanted now; the fields that the state maintains itself are not taken from it.
        problems: of the server.
        port_problems: of the local port and its token.
    """

    spec: SessionSpec
    problems: tuple[Problem, ...] = ()
    port_problems: tuple[Problem, ...] = ()


class LinkUp(SessionEvent, frozen=True, kw_only=True):
    """The host's link is up."""

    link: object


class LinkLost(SessionEvent, frozen=True, kw_only=True):
    """The host's link went away.

    Args:
        at: monotonic seconds.
    """

    at: float


class Refused(SessionEvent, frozen=True):
    """The host refused a connection to the server: whoever gets its port next is not the server that was proven."""


class Doubted(SessionEvent, frozen=True):
    """The server is about to be ended by us: its port may be another's then."""


class Absent(SessionEvent, frozen=True, kw_only=True):
    """The server's end is proven.

    Args:
        problem: what became of it.
        running: what is still kept of it.
        at: monotonic seconds.
        restartable: nobody ended it on purpose, and no `up` is about to replace it.
        before: as for `Proven`.
    """

    problem: Problem
    running: Running | None = None
    at: float
    restartable: bool
    before: Running | UnsetType | None = UNSET


class NotUsable(SessionEvent, frozen=True, kw_only=True):
    """The server may run, and cannot be used: it does not listen, its port is another's, or it is on another machine.

    Args:
        problem: what was seen.
        running: what is still kept of it.
        before: as for `Proven`.
    """

    problem: Problem
    running: Running | None = None
    before: Running | UnsetType | None = UNSET


class Down(SessionEvent, frozen=True, kw_only=True):
    """The user takes the session down.

    Args:
        release: its local port is given up, too.
    """

    release: bool = False


class Reopened(SessionEvent, frozen=True):
    """The `up` under way uses the port of a session that was down."""


class Bound(SessionEvent, frozen=True, kw_only=True):
    """Its local port was bound, or let go of (None)."""

    port: int | None


class PortExposed(SessionEvent, frozen=True, kw_only=True):
    """Another user has a local port to which open tabs may send the token."""

    port: int


class TokenRenewed(SessionEvent, frozen=True, kw_only=True):
    """The server was asked to change its token.

    Args:
        running: the server that was asked.
        token: the new one; None: this server cannot change it.
    """

    running: Running
    token: str | None


class PortProblems(SessionEvent, frozen=True, kw_only=True):
    """What is now known of the local port and its token; replaces what was known."""

    problems: tuple[Problem, ...]


class ProblemSeen(SessionEvent, frozen=True, kw_only=True):
    """One more problem of the server."""

    problem: Problem


class GpusSeen(SessionEvent, frozen=True, kw_only=True):
    """The GPUs of its host were looked at.

    Args:
        pid: of the server whose processes `use` belongs to.
        use: what they hold.
        problems: of the GPUs.
    """

    pid: int
    use: tuple[GpuUse, ...]
    problems: tuple[Problem, ...]


class Settled(SessionEvent, frozen=True):
    """Nothing more is to be found out of it now."""


class Killed(SessionEvent, frozen=True):
    """It was removed from the registry."""


EVENTS: tuple[type[SessionEvent], ...] = tuple(SessionEvent.__subclasses__())
STATES: tuple[ServerState, ...] = get_args(ServerState)


class Transition(NamedTuple):
    """What an event has led to: the state, and what its owner must do."""

    state: SessionState
    effects: tuple[Effect, ...] = ()


# --- the server's state -------------------------------------------------------------------------------------------

# (state, event) -> the next state; "before launch" is `SessionState.before_launch`. Every pair has a row: those that
# are not written here leave the state as it is.
_Next = ServerState | Literal["before launch"]
TABLE: dict[tuple[ServerState, type[SessionEvent]], _Next] = {
    **{(state, event): state for state in STATES for event in EVENTS},
    ("queued", Launching): "starting",
    ("running", Launching): "starting",
    ("lost", Launching): "starting",
    ("exited", Launching): "starting",
    # While it is being launched, only an answer through the forward makes it run.
    ("queued", Proven): "running",
    ("lost", Proven): "running",
    ("exited", Proven): "running",
    ("queued", Answered): "running",
    ("starting", Answered): "running",
    ("lost", Answered): "running",
    ("exited", Answered): "running",
    ("starting", UpFailed): "before launch",
    ("queued", Absent): "exited",
    ("starting", Absent): "exited",
    ("running", Absent): "exited",
    ("lost", Absent): "exited",
    ("queued", NotUsable): "lost",
    ("starting", NotUsable): "lost",
    ("running", NotUsable): "lost",
    ("exited", NotUsable): "lost",
}

# --- the other fields ---------------------------------------------------------------------------------------------

_Fields = dict[str, Any]


def _always(**fields: Any) -> Callable[[SessionState, Any], _Fields]:
    return lambda state, event: fields.copy()  # noqa: ARG005 - whatever they are


def _up_started(state: SessionState, event: UpStarted) -> _Fields:
    # What could not be changed before: it may be another server now.
    exposed = state.token_exposed or state.spec.heard
    reopens = state.down and state.downs == event.downs
    return {"token_exposed": exposed, "reopening": "allowed" if reopens else "no"}


def _launching(state: SessionState, event: Launching) -> _Fields:
    del event
    return {"before_launch": state.before_launch if state.state == "starting" else state.state}


def _listening(state: SessionState, event: Listening) -> _Fields:
    return {"proven_over": event.over} if event.over is state.link else {}


def _proven(state: SessionState, event: Proven) -> _Fields:
    running = event.running
    kept = [one for one in state.problems if one.code not in {*ENDS, "kernels-exposed"}]
    fields: _Fields = {
        "running": running,
        "problems": (*kept, *event.exposed),  # what was said while it could not be found is over
        "proven_over": event.over,
        "away_since": None,
        "seen": event.at,
    }
    if state.running is None or state.running.server.pid != running.server.pid:
        fields |= {"gpu_use": (), "gpu_problems": ()}
    if event.before is not UNSET:
        fields |= {"spec": _with_server(state.spec, running), "settled": True}
    return fields


def _up_failed(state: SessionState, event: UpFailed) -> _Fields:
    fields: _Fields = {"reopening": "no", "down": state.down or state.reopening == "done"}
    if event.undone:
        fields["running"] = None
    if event.undone or state.state == "starting":
        fields["proven_over"] = None
    return fields


def _wanted(state: SessionState, event: Wanted) -> _Fields:
    spec = msgspec.structs.replace(
        event.spec, wanted=not state.down, heard=state.spec.heard, local_port=state.bound_port
    )
    return {
        "spec": spec if state.running is None else _with_server(spec, state.running),
        "problems": event.problems,
        "port_problems": event.port_problems,
        "settled": True,
        "reopening": "no",
    }


def _link_up(state: SessionState, event: LinkUp) -> _Fields:
    return {} if event.link is state.link else {"link": event.link, "proven_over": None}


def _link_lost(state: SessionState, event: LinkLost) -> _Fields:
    away = event.at if state.away_since is None else state.away_since
    return {"link": None, "proven_over": None, "away_since": away}


def _refused(state: SessionState, event: Refused) -> _Fields:
    del event
    return {"proven_over": None, "refusals": state.refusals + 1}


def _absent(state: SessionState, event: Absent) -> _Fields:
    fields: _Fields = {
        "running": event.running,
        "proven_over": None,
        "problems": (event.problem,),
        "settled": True,
    }
    if _to_be_restarted(state, event):
        if may_restart(state.restarts, event.at):
            fields["restarts"] = (*state.restarts, event.at)
        else:
            text = f"not restarted: it ended {RESTARTS} times in {RESTARTS_WITHIN / 60:.0f} minutes"
            limit = Problem(code="restart-limit", severity="error", text=text, fix=event.problem.fix)
            fields["problems"] = (event.problem, limit)
    return fields


def _not_usable(state: SessionState, event: NotUsable) -> _Fields:
    del state
    return {"running": event.running, "proven_over": None, "problems": (event.problem,), "settled": True}


def _down(state: SessionState, event: Down) -> _Fields:
    spec = msgspec.structs.replace(state.spec, wanted=False, released=state.spec.released or event.release)
    fields: _Fields = {"spec": spec, "down": True, "downs": state.downs + 1, "reopening": "no"}
    fields |= {"proven_over": None, "settled": True}
    if event.release:
        fields |= {"bound_port": None, "port_problems": ()}
    return fields


def _reopened(state: SessionState, event: Reopened) -> _Fields:
    del event
    return {"down": False, "reopening": "done"} if state.reopening == "allowed" else {}


def _port_exposed(state: SessionState, event: PortExposed) -> _Fields:
    if state.exposed_port == event.port:
        return {}  # the token was changed since, and no tab has sent the new one there
    spec = msgspec.structs.replace(state.spec, heard=True)
    return {"exposed_port": event.port, "spec": spec, "token_exposed": True}


def _token_renewed(state: SessionState, event: TokenRenewed) -> _Fields:
    fields: _Fields = {"token_exposed": False}
    if event.token is not None:
        fields["spec"] = msgspec.structs.replace(state.spec, heard=False)
        if state.running is not None and state.running.server.pid == event.running.server.pid:
            fields["running"] = msgspec.structs.replace(state.running, token=event.token)
    return fields


def _gpus_seen(state: SessionState, event: GpusSeen) -> _Fields:
    if state.running is None or state.running.server.pid != event.pid:
        return {}
    return {"gpu_use": event.use, "gpu_problems": event.problems}


def _killed(state: SessionState, event: Killed) -> _Fields:
    del event
    spec = msgspec.structs.replace(state.spec, wanted=False)
    return {"killed": True, "spec": spec, "bound_port": None, "proven_over": None, "link": None, "settled": True}


_CHANGES: dict[type[SessionEvent], Callable[[SessionState, Any], _Fields]] = {
    UpStarted: _up_started,
    Launching: _launching,
    Listening: _listening,
    Proven: _proven,
    Answered: _always(),
    LaunchUndone: _always(running=None, proven_over=None),
    UpFailed: _up_failed,
    Wanted: _wanted,
    LinkUp: _link_up,
    LinkLost: _link_lost,
    Refused: _refused,
    Doubted: _always(proven_over=None),
    Absent: _absent,
    NotUsable: _not_usable,
    Down: _down,
    Reopened: _reopened,
    Bound: lambda _, event: {"bound_port": event.port},
    PortExposed: _port_exposed,
    TokenRenewed: _token_renewed,
    PortProblems: lambda _, event: {"port_problems": event.problems},
    ProblemSeen: lambda state, event: {"problems": (*state.problems, event.problem)},
    GpusSeen: _gpus_seen,
    Settled: _always(settled=True),
    Killed: _killed,
}


# --- the machine --------------------------------------------------------------------------------------------------


def restored(spec: SessionSpec, link: object | None = None) -> SessionState:
    """Return the state of a session that is read from disk.

    Args:
        spec: what is wanted.
        link: of its host, if it is up.
    """
    return SessionState(spec=spec, link=link, down=not spec.wanted, token_exposed=spec.heard)


def entered(spec: SessionSpec, link: object | None = None) -> SessionState:
    """Return the state of a session that an `up` has just made; arguments as `restored`."""
    return SessionState(spec=spec, state="starting", link=link)


def step(state: SessionState, event: SessionEvent) -> Transition:
    """Apply one event.

    Args:
        state: the present state.
        event: what happened.

    Returns:
        The next state, which is `state` itself if nothing changes, and what is to be done, in order.
    """
    if state.killed or _is_stale(state, event):
        return Transition(state)
    following = TABLE[state.state, type(event)]
    fields = _CHANGES[type(event)](state, event)
    fields["state"] = state.before_launch if following == "before launch" else following
    if all(getattr(state, name) == value for name, value in fields.items()):
        return Transition(state)
    after = msgspec.structs.replace(state, **fields)
    effects: list[Effect] = []
    if isinstance(event, (Absent, NotUsable)):
        effects.append("restart" if len(after.restarts) > len(state.restarts) else "release")
    if after.passes and not state.passes:
        effects.append("wake")
    return Transition(after, tuple(effects))


def may_restart(times: Sequence[float], instant: float) -> bool:
    """Tell whether one more restart is allowed.

    Args:
        times: when it was restarted before, monotonic seconds.
        instant: now, on the same clock.
    """
    return sum(instant - moment < RESTARTS_WITHIN for moment in times) < RESTARTS


def _is_stale(state: SessionState, event: SessionEvent) -> bool:
    """Whether an event reports what is true no more: see rules 1 and 5."""
    if isinstance(event, Proven) and event.over is not state.link:
        return True
    if isinstance(event, (Proven, Absent, NotUsable)) and event.before is not UNSET:
        return overtaken(state, event.before)
    return False


def overtaken(state: SessionState, before: Running | None) -> bool:
    """Whether an `up` has begun, or another server was found, since a look began.

    Args:
        state: the present one.
        before: what `running` was when the look began.
    """
    return state.state == "starting" or state.running is not before


def _to_be_restarted(state: SessionState, event: Absent) -> bool:
    return event.restartable and state.spec.restart == "always" and state.spec.wanted


def _with_server(spec: SessionSpec, running: Running) -> SessionSpec:
    """Return what is wanted with the server noted: for a daemon that comes after this one."""
    server = running.server
    return msgspec.structs.replace(spec, pid=server.pid, node=server.node, adopted=server.adopted)


def diagram() -> Iterator[str]:
    """Yield the table as the lines of a Mermaid state diagram, without the rows that change nothing."""
    yield "stateDiagram-v2"
    yield "    [*] --> starting: a new session"
    yield "    [*] --> lost: read from disk"
    for (state, event), following in TABLE.items():
        if following == "before launch":
            for before in STATES:
                if before != state:
                    yield f"    {state} --> {before}: {event.__name__} [was {before}]"
        elif following != state:
            yield f"    {state} --> {following}: {event.__name__}"


if __name__ == "__main__":
    print("\n".join(diagram()))  # noqa: T201 - this module's one output is the drawing for the docs
