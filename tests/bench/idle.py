"""What a daemon costs that only waits: ``python -m tests.bench.idle``.

Five links with fifty forwards and no connection; then a daemon with one link and 200 forwards, each with a connection
that sends nothing.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import psutil

from tests.bed import Bed, Cli, private_home
from tests.bench.scale import free_ports

SECONDS = 60.0
SETTLE = 5.0  # seconds: the work of the start
KINDS = ("server1", "server-dash", "server-tcsh", "server-fish", "server-zsh")
FORWARDS = 10
MANY = 200


@contextlib.contextmanager
def quiet(ports: list[int], target: socket.socket) -> Iterator[None]:
    """Hold a connection through each port."""
    with contextlib.ExitStack() as stack:
        for port in ports:
            near = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            near.sendall(b"x")
            far, _ = target.accept()
            stack.enter_context(far)
        yield


def measure(bed: Bed, hosts: tuple[str, ...], each: int, *, connected: bool) -> str:
    """Return a row of the table."""
    with private_home() as home, contextlib.ExitStack() as stack:
        target = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=MANY))
        target.settimeout(10)
        cli = Cli(home, bed.ssh_config)
        ports = []
        for host in hosts:
            ports += (asked := free_ports(each))
            ran = cli("tunnel", *(f"{port}:{target.getsockname()[1]}" for port in asked), "--host", host)
            assert ran.rc == 0, ran
        if connected:
            stack.enter_context(quiet(ports, target))
        daemon = psutil.Process(cli("daemon", "status", "--json").json["pid"])
        time.sleep(SETTLE)
        before = daemon.cpu_times()
        time.sleep(SECONDS)
        after = daemon.cpu_times()
        share = 100 * (after.user + after.system - before.user - before.system) / SECONDS
        memory = daemon.memory_info().rss / 1e6
        held = len(ports) if connected else 0
        cells = (len(hosts), len(ports), held, f"{share:.2f} %", f"{memory:.1f} MB", daemon.num_threads())
        return f"| {' | '.join(str(cell) for cell in cells)} |"


def main() -> None:
    """Measure and print."""
    print("\n| links | forwards | connections | CPU of one core | memory | threads |\n|---|---|---|---|---|---|")
    with Bed() as bed:
        print(measure(bed, KINDS, FORWARDS, connected=False), flush=True)
        print(measure(bed, KINDS[:1], MANY, connected=True))


if __name__ == "__main__":
    main()
