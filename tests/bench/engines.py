"""The forwarders that are compared, as this side sees them: started, asked for their costs, ended."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import json
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bed import wait_until
from tests.bench.child import start
from tests.bench.contender import HOST
from tests.bench.host import Host

OURS, BASE, GCM = "jupyman", "ssh -L", "ssh -L, aes128-gcm"
# What each is called in the tables, and by which it is chosen.
NAMES = (BASE, GCM, OURS, "asyncssh, aes128-gcm", "sshtunnel", "fabric")
# Their transfers are cut to this share: they would take minutes.
SHARE = {"sshtunnel": 1 / 4, "fabric": 1 / 32}
START = 60.0  # seconds for all forwards to listen
_far_ports = itertools.count(20001)


@dataclass(frozen=True)
class Engine:
    """A forwarder that runs.

    Attributes:
        name: as in NAMES.
        ports: local ones, one for each target.
        process: it, and no other.
        prefix: goes before a command that is to reach its ports.
    """

    name: str
    ports: list[int]
    process: psutil.Process
    prefix: tuple[str, ...]

    def cpu(self) -> float:
        """Return the seconds of CPU that it has used."""
        used = self.process.cpu_times()
        return float(used.user + used.system)


@contextlib.contextmanager
def running(names: Sequence[str], host: Host, targets: Sequence[int]) -> Iterator[list[Engine]]:
    """Run some forwarders at the same time.

    Args:
        names: of NAMES.
        host: their target.
        targets: ports as the host sees them.

    Yields:
        Them, with every forward listening.
    """
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_running(name, host, targets)) for name in names]


@contextlib.contextmanager
def _running(name: str, host: Host, targets: Sequence[int]) -> Iterator[Engine]:
    # A pid that `ip netns exec` has is the program's own afterwards: it becomes it.
    ports: list[int] = []
    if name in {BASE, GCM}:
        ports = _free(len(targets), host.prefix)
        words = _openssh(name, host, ports, targets)
    else:
        words = [sys.executable, "-m", "tests.bench.contender", name.partition(",")[0]]
    with start([*host.prefix, *words]) as process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        seen = psutil.Process(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        if ports:
            wait_until(lambda: _listening(seen, ports), START, f"the forwards of {name}")
        else:
            process.stdin.write(json.dumps(_asked(host, targets)) + "\n")
            process.stdin.flush()
            ports = json.loads(process.stdout.readline() or "null")
            if ports is None:
                raise RuntimeError(f"{name} does not forward: its reason is above")
        yield Engine(name, ports, seen, host.prefix)


def _openssh(name: str, host: Host, ports: Sequence[int], targets: Sequence[int]) -> list[str]:
    words = ["ssh", "-F", str(host.sshd.ssh_config), "-N", "-o", "ExitOnForwardFailure=yes", "-o", "BatchMode=yes"]
    if name == GCM:
        words += ["-c", "aes128-gcm@openssh.com"]
    for local, remote in zip(ports, targets, strict=True):
        words += ["-L", f"127.0.0.1:{local}:127.0.0.1:{remote}"]
    return [*words, HOST]


def _asked(host: Host, targets: Sequence[int]) -> dict[str, object]:
    sshd = host.sshd
    return {
        "ssh_config": str(sshd.ssh_config),
        "address": sshd.address,
        "port": sshd.port,
        "user": getpass.getuser(),
        "key": str(sshd.client_key),
        "known_hosts": str(sshd.known_hosts),
        "targets": list(targets),
    }


def _free(count: int, prefix: Sequence[str]) -> list[int]:
    """Find ports that are free at this moment."""
    if prefix:  # in a new network namespace all are
        return [next(_far_ports) for _ in range(count)]
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _listening(process: psutil.Process, ports: Sequence[int]) -> bool:
    """Whether all these ports are listened on in the network namespace of the process."""
    if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
        raise RuntimeError("ssh ended: its reason is above")
    rows = [line.split() for line in Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]]
    held = {int(row[1].partition(":")[2], 16) for row in rows if row[3] == "0A"}  # TCP_LISTEN
    return held.issuperset(ports)
