"""How a forward is printed."""

from __future__ import annotations

import time

from jupyman.model import Forward, Problem
from jupyman.ssh import crowd
from jupyman.ssh.engine import Listening

SHOWN = 600.0  # seconds for which refused connections are told


def crowded(listener: Listening) -> list[Problem]:
    """Say that connections were refused lately because too many were open at once.

    Args:
        listener: of the forwarder.
    """
    seen = listener.crowd
    if seen.last is None or time.monotonic() - seen.last > SHOWN:
        return []
    count = f"{seen.refused} connection{'' if seen.refused == 1 else 's'}"
    return [
        Problem(
            code="forward-full",
            severity="warning",
            text=f"local port {listener.local_port} refused {count}: {crowd.MOST} were open at once",
            fix=f"look which program of this computer connects to port {listener.local_port} so often",
        )
    ]


def forward(listener: Listening, *, up: bool) -> Forward:
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
    )


def endpoint(target: tuple[str, int] | str) -> str:
    """Return a remote endpoint as text: ``ADDR:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``."""
    if isinstance(target, str):
        return f"unix:{target}"
    address, port = target
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
