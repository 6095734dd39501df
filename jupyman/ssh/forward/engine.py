"""Which forwarder a host uses: ours, or sshtunnel's if the configuration has ``engine = "sshtunnel"``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from jupyman.local.peer_guard import PeerGuard
from jupyman.model.endpoint import LOOPBACK, Target
from jupyman.ssh.forward.connection_limit import ConnectionLimit
from jupyman.ssh.link import Link
from jupyman.ssh.streams.origin import Respond

EngineName = Literal["native", "sshtunnel"]


class BoundForward(Protocol):
    """A local port that leads to an address on a host."""

    gate: Callable[[], bool] | None
    respond: Respond | None
    on_refused: Callable[[], None] | None
    share: bool
    peer_guard: PeerGuard
    holder_text: str
    limit: ConnectionLimit

    @property
    def local_port(self) -> int:
        """Where it listens."""

    @property
    def target(self) -> Target:
        """Where it leads."""

    def retarget(self, target: Target) -> None:
        """Lead new connections elsewhere."""

    def stats(self) -> tuple[int, int, int]:
        """Return open connections, bytes that came from the host, bytes that went to it."""

    def detach(self) -> None:
        """End or answer its connections, and go on listening if the engine can; close the gate before."""

    def close(self) -> None:
        """Stop listening and end its connections."""


class Engine(Protocol):
    """All listeners of one host."""

    def listen(
        self,
        local_port: int,
        target: Target,
        *,
        strict: bool = False,
        address: str = LOOPBACK,
        gate: Callable[[], bool] | None = None,
    ) -> BoundForward:
        """Bind a local port; see `Forwarder.listen`."""

    def attach(self, link: Link) -> None:
        """Carry connections over this link from now on."""

    def detach(self) -> None:
        """The link is gone: detach its connections."""

    def hold(self) -> None:
        """The host is silent: open connections stay; see `Forwarder.hold`."""

    def resume(self) -> None:
        """The host has answered."""

    def wake(self) -> None:
        """Look again at the connections that wait."""

    def close(self) -> None:
        """Close everything."""


def make(name: str, engine: EngineName = "native") -> Engine:
    """Return a new forwarder for a host.

    Args:
        name: the host.
        engine: its entry in config.toml.
    """
    if engine == "sshtunnel":
        from jupyman.ssh.forward.sshtunnel_engine import TunnelForwarder

        return TunnelForwarder(name)
    from jupyman.ssh.forward.forwarder import Forwarder

    return Forwarder(name)
