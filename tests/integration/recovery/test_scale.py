"""One daemon with many links, forwards and connections, and with more files than the default limit."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil
import pytest

from tests.bed import Cli, Sshd, private_home, wait_until
from tests.bench.host import folder, sshds, target
from tests.bench.scale import all_up, free_ports, ssh_config
from tests.bench.traffic import Beside, call

LINKS, FORWARDS, CONNECTIONS = 20, 200, 400
SOFT = 256  # files, as macOS allows by default; each connection takes one


@dataclass
class Fleet:
    """The hosts, and the command line."""

    cli: Cli
    sshds: list[Sshd]
    echo: int

    def tunnel(self, ports: list[int]) -> None:
        """Forward these ports, in equal parts over all hosts."""
        each = len(ports) // LINKS

        def one(index: int) -> None:
            specs = [f"{port}:{self.echo}" for port in ports[index * each : (index + 1) * each]]
            ran = self.cli("tunnel", *specs, "--host", f"host{index}")
            assert ran.rc == 0, ran

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, range(LINKS)))

    @property
    def daemon(self) -> psutil.Process:
        return psutil.Process(self.cli("daemon", "status", "--json").json["pid"])


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4 * CONNECTIONS:
        pytest.skip(f"a process may have {hard} files here")
    with folder() as place, sshds(place, LINKS) as hosts, target("echo") as echo, private_home() as home:
        # The daemon is started by the first command, and has its limits.
        resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, hard))
        try:
            yield Fleet(Cli(home, ssh_config(place / "ssh_config", hosts)), hosts, echo)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_links_forwards_and_connections(fleet: Fleet) -> None:
    ports = free_ports(FORWARDS)
    fleet.tunnel(ports)
    assert all_up(fleet.cli, FORWARDS)
    daemon = fleet.daemon
    with Beside("hold", ports=ports, count=CONNECTIONS) as held:
        forwards = fleet.cli("ps", "--json").json["forwards"]
        assert sum(one["open"] for one in forwards) == CONNECTIONS
        assert daemon.num_fds() > SOFT
        # And a burst over all of them, while those are open.
        served, _ = call("burst", ports=ports, count=FORWARDS, limit=20.0)
        assert served == FORWARDS
    assert held.result == CONNECTIONS, "some were cut"
    # Two for each host; further ones only for a moment, as after the links' first heartbeats.
    wait_until(lambda: daemon.num_threads() <= 2 * LINKS + 10, what="few threads")
    wait_until(lambda: daemon.num_fds() < SOFT + FORWARDS, what="the end of the connections")

    # All links come back by themselves, whoever they are, after a new start.
    assert fleet.cli("daemon", "restart").rc == 0
    wait_until(lambda: all_up(fleet.cli, FORWARDS), timeout=60, what="all links")
    served, _ = call("burst", ports=ports, count=FORWARDS, limit=20.0)
    assert served == FORWARDS


def test_hosts_that_hang_delay_no_answer(fleet: Fleet) -> None:
    fleet.tunnel(free_ports(LINKS))
    for sshd in fleet.sshds[: LINKS // 2]:
        for process in (sshd.process, *sshd.connections()):
            process.suspend()
    try:
        # `ps` tells from memory what is known: of the others that they are there, of these soon that they are not.
        def told() -> bool:
            forwards = fleet.cli("ps", "--json").json["forwards"]
            states = [one["state"] for one in forwards]
            return len(states) == LINKS and states.count("up") == LINKS - LINKS // 2

        wait_until(told, timeout=30, what="the notice, while they hang")
    finally:
        for sshd in fleet.sshds[: LINKS // 2]:
            for process in (sshd.process, *sshd.connections()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()
    wait_until(lambda: all_up(fleet.cli, LINKS), timeout=60, what="all links")
