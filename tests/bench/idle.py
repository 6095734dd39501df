"""What a daemon costs that only waits: ``python -m tests.bench.idle``. Five links, fifty forwards, nobody connected."""

from __future__ import annotations

import socket
import time

import psutil

from tests.bed import Bed, Cli, private_home

SECONDS = 60.0
KINDS = ("server1", "server-dash", "server-tcsh", "server-fish", "server-zsh")
FORWARDS = 10


def free_ports(count: int) -> list[int]:
    """Find ports that are free at this moment."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def main() -> None:
    """Measure and print."""
    with Bed() as bed, private_home() as home:
        cli = Cli(home, bed.ssh_config)
        for host in KINDS:
            ran = cli("tunnel", *(f"{port}:1" for port in free_ports(FORWARDS)), "--host", host)
            assert ran.rc == 0, ran
        daemon = psutil.Process(cli("daemon", "status", "--json").json["pid"])
        time.sleep(5)  # the work of the start
        before = daemon.cpu_times()
        time.sleep(SECONDS)
        after = daemon.cpu_times()
        used = after.user + after.system - before.user - before.system
        print("\n| links | forwards | CPU of one core | memory | threads |\n|---|---|---|---|---|")
        memory = daemon.memory_info().rss / 1024 / 1024
        share = 100 * used / SECONDS
        print(f"| {len(KINDS)} | {len(KINDS) * FORWARDS} | {share:.2f} % | {memory:.0f} MiB | {daemon.num_threads()} |")


if __name__ == "__main__":
    main()
