"""Where a program on a host listens: the only module that knows how loopback is written."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

LOOPBACK = "127.0.0.1"
# What an SSH server is asked to connect to: address and port (direct-tcpip), or the path of a UNIX socket on its
# machine (direct-streamlocal@openssh.com).
Target: TypeAlias = tuple[str, int] | str


class Endpoint(msgspec.Struct, frozen=True):
    """Where a program listens.

    Attributes:
        node: the machine that it listens on; None: the one that the SSH login reaches.
        address: a TCP port, or the path of a UNIX socket.
        interface: the address of a TCP port, as `node` sees it; another machine's for a tunnel that leads on.
    """

    node: str | None
    address: int | str
    interface: str = LOOPBACK

    @property
    def target(self) -> Target:
        """What the SSH server of `node` is asked to connect to."""
        return self.address if isinstance(self.address, str) else (self.interface, self.address)

    @property
    def port(self) -> int | None:
        """The TCP port; None for a UNIX socket."""
        return self.address if isinstance(self.address, int) else None

    @property
    def text(self) -> str:
        """For people and for JSON: ``ADDRESS:PORT``, ``[IPV6]:PORT`` or ``unix:PATH``."""
        if isinstance(self.address, str):
            return f"unix:{self.address}"
        return f"[{self.interface}]:{self.address}" if ":" in self.interface else f"{self.interface}:{self.address}"
