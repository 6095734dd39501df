"""How a forward is printed."""

from __future__ import annotations

from jupyman.model import Forward
from jupyman.ssh.engine import Listening


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
