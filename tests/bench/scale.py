"""One daemon with a hundred links, a thousand forwards, two thousand connections: ``python -m tests.bench.scale``."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil

from tests.bed import Cli, Sshd, private_home, wait_until
from tests.bench.host import folder, sshds, target
from tests.bench.report import Report, number
from tests.bench.table import interleave, process
from tests.bench.targets import raise_limit
from tests.bench.traffic import Beside, Wrong

LINKS, FORWARDS, CONNECTIONS = 100, 1000, 2000
AT_ONCE = 4  # commands at the same time, as this machine has two cores
SETTLE, IDLE_TIME = 3.0, 20.0
ROUNDS = 10
MIB = 1 << 20


def measure(report: Report) -> None:
    """Measure and print."""
    raise_limit()
    with folder() as place, sshds(place, LINKS) as hosts, target("echo") as echo, private_home() as home:
        cli = Cli(home, ssh_config(place / "ssh_config", hosts))
        names = [f"host{index}" for index in range(LINKS)]
        ports = free_ports(FORWARDS)
        each = FORWARDS // LINKS
        start = time.monotonic()
        assert cli("daemon", "start").rc == 0

        def tunnel(index: int) -> None:
            specs = [f"{port}:{echo}" for port in ports[index * each : (index + 1) * each]]
            ran = cli("tunnel", *specs, "--host", names[index])
            assert ran.rc == 0, ran

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(tunnel, range(LINKS)))
        rows = [["100 x tunnel, 10 forwards each", number(time.monotonic() - start, 1), "s"]]
        start = time.monotonic()
        assert cli("daemon", "restart").rc == 0
        wait_until(partial(all_up, cli, FORWARDS), 120, "the links after a restart of the daemon")
        rows.append(["daemon restarted, all links up again", number(time.monotonic() - start, 1), "s"])
        daemon = psutil.Process(cli("daemon", "status", "--json").json["pid"])
        time.sleep(SETTLE)
        share, memory = _idle(daemon)
        rows += [
            ["idle: CPU of a core", number(share), "%"],
            ["idle: memory", number(memory, 0), "MiB"],
            ["idle: threads", str(daemon.num_threads()), ""],
        ]
        ratio, shown = _ps(cli)
        rows.append(["ps --json", number(shown, 3), "s"])
        start = time.monotonic()
        with Beside("hold", ports=ports, count=CONNECTIONS) as held:
            rows.append([f"{CONNECTIONS} connections, one after another", number(time.monotonic() - start, 1), "s"])
            opened = sum(one["open"] for one in cli("ps", "--json").json["forwards"])
            if opened != CONNECTIONS:
                raise Wrong(f"ps counts {opened} open connections, there are {CONNECTIONS}")
            busy, full = _idle(daemon)
            rows += [
                [f"{CONNECTIONS} quiet connections: CPU of a core", number(busy), "%"],
                [f"{CONNECTIONS} quiet connections: memory", number(full, 0), "MiB"],
                [f"{CONNECTIONS} quiet connections: file descriptors", str(daemon.num_fds()), ""],
            ]
        if held.result != CONNECTIONS:
            raise Wrong(f"{held.result} of {CONNECTIONS} connections were alive at the end")
    report.table(f"{LINKS} links to {LINKS} sshds, {FORWARDS} forwards, one daemon", ("what", "", ""), rows)
    report.bar("100 links, 1000 forwards idle: CPU %", share, most=2)
    report.bar("100 links, 1000 forwards idle: memory MB", memory * MIB / 1e6, most=250)
    report.bar("100 links, 1000 forwards: ps --json, of python -c pass", ratio, most=12)


def _idle(daemon: psutil.Process) -> tuple[float, float]:
    """Return the share of a core, per cent, and the memory, MiB."""
    before = daemon.cpu_times()
    time.sleep(IDLE_TIME)
    after = daemon.cpu_times()
    used = after.user + after.system - before.user - before.system
    return 100 * used / IDLE_TIME, daemon.memory_info().rss / MIB


def _ps(cli: Cli) -> tuple[float, float]:
    """Return how long `ps --json` takes: against a bare interpreter, and in seconds."""
    python = sys.executable
    cases = {
        "pass": partial(process, [python, "-c", "pass"], cli.environ),
        "ps": partial(process, [python, "-m", "jupyman", "ps", "--json"], cli.environ),
    }
    for case in cases.values():  # warm caches
        case()
    seconds = {name: statistics.median(took) for name, took in interleave(cases, ROUNDS).items()}
    return seconds["ps"] / seconds["pass"], seconds["ps"]


def ssh_config(path: Path, hosts: Sequence[Sshd]) -> Path:
    """Write a configuration in which the sshds are ``host0``, ``host1`` and so on."""
    blocks = []
    for index, sshd in enumerate(hosts):
        text = sshd.ssh_config.read_text()
        blocks.append(
            text[text.index("Host server1 server-*") :].replace("Host server1 server-*", f"Host host{index}", 1)
        )
        blocks.append(f"    User {sshd.users[0].name}\n")
    path.write_text("".join(blocks))
    return path


def free_ports(count: int) -> list[int]:
    """Find ports that are free at this moment, below those that the kernel gives to connections by itself."""
    ports: list[int] = []
    for port in range(11000 + os.getpid() % 10000, 32768):
        if len(ports) == count:
            break
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
    return ports


def all_up(cli: Cli, count: int) -> bool:
    """Whether so many forwards are there, each carried."""
    forwards = cli("ps", "--json").json["forwards"]
    return len(forwards) == count and all(one["state"] == "up" for one in forwards)


if __name__ == "__main__":
    made = Report()
    measure(made)
    made.end()
