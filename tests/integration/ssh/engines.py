"""The forwarders that are tested against the same contract, each on a link of ours, and their known failures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import pytest

from jupyman.model.endpoint import Target
from jupyman.ssh.forward import engine
from jupyman.ssh.wire.paramiko_packets import ParamikoPacketizer
from tests.bed.sshd import Sshd
from tests.integration.ssh.fabric_ports import Ports

# "plain" is ours on paramiko's own packetizer, as when a new paramiko does not fit ours.
Name = Literal["native", "plain", "sshtunnel", "fabric"]
NAMES: tuple[Name, ...] = ("native", "plain", "sshtunnel", "fabric")

_BOTH_WAYS_END = "the end of one direction ends the other, and what was still to come is lost"
KNOWN: dict[tuple[str, str], str] = {
    ("sshtunnel", "test_the_local_end_comes_first"): _BOTH_WAYS_END,
    ("sshtunnel", "test_the_hosts_end_comes_first"): _BOTH_WAYS_END,
    ("sshtunnel", "test_a_unix_socket_is_a_target"): "it forwards to ports only",
    ("sshtunnel", "test_the_listener_may_be_on_ipv6"): "ours would not let it: it is given 127.0.0.1",
    ("fabric", "test_the_local_end_comes_first"): _BOTH_WAYS_END,
    ("fabric", "test_the_hosts_end_comes_first"): _BOTH_WAYS_END,
    ("fabric", "test_a_unix_socket_is_a_target"): "it forwards to ports only",
    ("fabric", "test_the_listener_may_be_on_ipv6"): "it binds IPv4 only",
    ("fabric", "test_parted_from_the_host_it_goes_on_listening"): "a listener and its connections are one",
    ("fabric", "test_a_refused_target_then_a_good_one"): "a refused target ends its listener",
}


class Local(Protocol):
    """A local port."""

    @property
    def local_port(self) -> int:
        """Where it listens."""

    gate: Callable[[], bool] | None

    def detach(self) -> None:
        """End its connections, and go on listening."""

    def close(self) -> None:
        """Stop."""


Listen = Callable[..., Local]


@dataclass
class _FabricPort:
    """A forward of fabric's."""

    local_port: int
    gate: Callable[[], bool] | None = None

    def detach(self) -> None:
        raise NotImplementedError("one of its listeners ends as a whole")

    def close(self) -> None:
        """It ends with its connection."""


@contextlib.contextmanager
def listening(name: Name, sshd: Sshd, fabric: Ports) -> Iterator[Listen]:
    """Yield a function that makes a local port: `listen(target, address="127.0.0.1")`."""
    if name == "fabric":
        fabric.reset()

        def other(target: Target, address: str = "127.0.0.1") -> Local:
            assert isinstance(target, tuple), "it forwards to ports only"
            return _FabricPort(fabric.listen(*target, address))

        yield other
        return
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        if name == "plain":
            patch.setattr("jupyman.ssh.channels.self_check.packetizer", lambda: ParamikoPacketizer)
        link = stack.enter_context(contextlib.closing(sshd.open()))
        one = engine.make("test", "sshtunnel" if name == "sshtunnel" else "native")
        one.attach(link)
        stack.callback(one.close)

        def ours(target: Target, address: str = "127.0.0.1") -> Local:
            return one.listen(0, target, address=address)

        yield ours


def expect(request: pytest.FixtureRequest, name: Name) -> None:
    """Mark the test where this engine is known to fail it."""
    test = getattr(request.node, "originalname", "")
    reason = KNOWN.get((name, test))
    if reason is not None:
        request.applymarker(pytest.mark.xfail(reason=f"known: {reason}", strict=True))
