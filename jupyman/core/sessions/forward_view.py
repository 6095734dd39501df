"""How a forward is printed."""

from __future__ import annotations

import time
from datetime import datetime

import msgspec

from jupyman.model import Forward, HostForward, LinkStatus, Problem, TunnelSpec
from jupyman.ssh.forward import connection_limit
from jupyman.ssh.forward.engine import BoundForward

SHOWN = 600.0  # seconds for which refused connections are told


def crowded(listener: BoundForward) -> list[Problem]:
    """Say that connections were refused lately because too many were open at once.

    Args:
        listener: of the forwarder.
    """
    seen = listener.limit
    if seen.last is None or time.monotonic() - seen.last > SHOWN:
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
        up: whether connections are carried now.
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


def strangers(listener: BoundForward, how: str) -> list[Problem]:
    """Say which other users of this computer were refused at a local port of late.

    Args:
        listener: of the forwarder.
        how: what lets them in.
    """
    return [
        Problem(
            code="stranger-refused",
            severity="warning",
            text=f"{who} tried to connect to local port {listener.local_port} and was refused, "
            f"last at {datetime.fromtimestamp(moment).astimezone():%H:%M:%S}",
            fix=f"nothing to do: the forward is yours alone; {how} would open it to every user of this computer",
        )
        for who, moment in listener.peer_guard.seen()
    ]


def host_forward(spec: TunnelSpec, listener: BoundForward | None, link: LinkStatus | None) -> HostForward:
    """Return a forward that belongs to no session as it is printed.

    Args:
        spec: what is wanted.
        listener: None while its local port is not bound.
        link: of its host; None: nothing was ever asked of it.
    """
    if listener is None:
        local, remote = f"127.0.0.1:{spec.local_port}", endpoint((spec.address, spec.port))
        return HostForward(host=spec.host, local=local, remote=remote, state="waiting", link=link)
    shown = forward(listener, up=link is not None and link.state == "up")
    problems = [*strangers(listener, "--share"), *crowded(listener)]
    return HostForward(host=spec.host, link=link, problems=problems or msgspec.UNSET, **msgspec.structs.asdict(shown))


def endpoint(target: tuple[str, int] | str) -> str:
    """Return a remote endpoint as text: ``ADDR:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``."""
    if isinstance(target, str):
        return f"unix:{target}"
    address, port = target
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
