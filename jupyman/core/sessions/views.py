"""How sessions and forwards are shown: by `ps`, and by the event stream."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec

from jupyman.core.sessions.state import SessionState
from jupyman.model import Forward, HostForward, LinkStatus, Problem, Session, TunnelSpec
from jupyman.ssh.forward import connection_limit
from jupyman.ssh.forward.engine import BoundForward

REFUSALS_SHOWN = 600.0  # seconds for which refused connections are shown
# A session whose link has been away for this long is `lost`: whether its server runs is not known any more.
LOST_AFTER = 5.0
# The same for a silent host, counted from its last sign of life, which is some seconds before that is noticed.
SILENT_AFTER = 10.0


def session(state: SessionState, listener: BoundForward | None, link: LinkStatus) -> Session:
    """Return a session as `ps` prints it.

    Args:
        state: what is known of it.
        listener: of its local port, if that is bound.
        link: the status of its host's link.
    """
    shown = state.state
    if shown == "running" and _is_unknown(state, link):
        shown = "lost"
    forwards = []
    if listener is not None and not state.down:
        forwards = [forward(listener, up=state.passes and link.state == "up")]
    return Session(
        name=state.name,
        host=state.spec.host,
        state=shown,
        link=link if state.spec.wanted else LinkStatus(state="idle", since=link.since, reconnects=link.reconnects),
        server=state.running.server if state.running is not None else None,
        url=state.url,
        forwards=forwards,
        held=f"127.0.0.1:{listener.local_port}" if listener is not None and state.down else None,
        problems=_problems(state, listener, with_gpus=shown == "running"),
        gpu_use=list(state.gpu_use) if shown == "running" else [],
    )


def _is_unknown(state: SessionState, link: LinkStatus) -> bool:
    """Whether the host has been silent or away for so long that nobody knows whether the server runs."""
    if link.silent_since is not None:
        silent = (datetime.now(UTC) - datetime.fromisoformat(link.silent_since)).total_seconds()
        return silent > SILENT_AFTER
    return state.away_since is not None and time.monotonic() - state.away_since > LOST_AFTER


def _problems(state: SessionState, listener: BoundForward | None, *, with_gpus: bool) -> list[Problem]:
    """Join the problems of the server's record and those that this computer saw; one of each code."""
    recorded = state.running.problems if state.running is not None else []
    codes = {problem.code for problem in recorded}
    seen = [problem for problem in (*state.problems, *state.port_problems) if problem.code not in codes]
    if listener is not None:
        seen += refused_users(listener, "share = true in config.toml")
    codes |= {problem.code for problem in seen}
    on_gpus = [problem for problem in state.gpu_problems if problem.code not in codes] if with_gpus else []
    return [*recorded, *seen, *on_gpus, *(crowded(listener) if listener is not None else [])]


def crowded(listener: BoundForward) -> list[Problem]:
    """Report connections that were refused recently because too many were open.

    Args:
        listener: of the forwarder.
    """
    seen = listener.limit
    if seen.last is None or time.monotonic() - seen.last > REFUSALS_SHOWN:
        return []
    count = f"{seen.refused} connection{'' if seen.refused == 1 else 's'}"
    return [
        Problem(
            code="forward-full",
            severity="warning",
            text=f"local port {listener.local_port} refused {count}: {connection_limit.MOST} were open at once",
            fix=f"look which program of this computer connects to port {listener.local_port} so often",
        )
    ]


def forward(listener: BoundForward, *, up: bool) -> Forward:
    """Return a listener as it is printed.

    Args:
        listener: of the forwarder.
        up: connections are carried now.
    """
    count, bytes_in, bytes_out = listener.stats()
    return Forward(
        local=f"127.0.0.1:{listener.local_port}",
        remote=endpoint(listener.target),
        state="up" if up else "waiting",
        open=count,
        bytes_in=bytes_in,
        bytes_out=bytes_out,
        share=listener.share,
    )


def refused_users(listener: BoundForward, option: str) -> list[Problem]:
    """Report the other users of this computer that were refused at a local port recently.

    Args:
        listener: of the forwarder.
        option: what would accept them.
    """
    return [
        Problem(
            code="stranger-refused",
            severity="warning",
            text=f"{who} tried to connect to local port {listener.local_port} and was refused, "
            f"last at {datetime.fromtimestamp(moment).astimezone():%H:%M:%S}",
            fix=f"nothing to do: the forward is yours alone; {option} would open it to every user of this computer",
        )
        for who, moment in listener.peer_guard.seen()
    ]


def host_forward(spec: TunnelSpec, listener: BoundForward | None, link: LinkStatus | None) -> HostForward:
    """Return a forward that belongs to no session as it is printed.

    Args:
        spec: what is wanted.
        listener: None while its local port is not bound.
        link: of its host; None: it was never used.
    """
    if listener is None:
        local, remote = f"127.0.0.1:{spec.local_port}", endpoint((spec.address, spec.port))
        return HostForward(host=spec.host, local=local, remote=remote, state="waiting", link=link)
    shown = forward(listener, up=link is not None and link.state == "up")
    problems = [*refused_users(listener, "--share"), *crowded(listener)]
    return HostForward(host=spec.host, link=link, problems=problems or msgspec.UNSET, **msgspec.structs.asdict(shown))


def endpoint(target: tuple[str, int] | str) -> str:
    """Return a remote endpoint as text: ``ADDR:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``."""
    if isinstance(target, str):
        return f"unix:{target}"
    address, port = target
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
