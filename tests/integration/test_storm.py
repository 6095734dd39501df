"""A storm: faults in random order, each healed; after every one the session is the same and nothing is left over.

``JUPYMAN_STORM_ROUNDS=100 pytest -s tests/integration/test_storm.py`` is a long one; ``JUPYMAN_STORM_SEED`` repeats it.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest

from jupyman.demo.cell import Kernel
from tests.bed import Bed, Cli, Network, Sshd, User, private_home, wait_until

ROUNDS = int(os.environ.get("JUPYMAN_STORM_ROUNDS", "7"))
SEED = int(os.environ.get("JUPYMAN_STORM_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)


@dataclass
class Storm:
    """The host, the network and the command line of a storm."""

    cli: Cli
    sshd: Sshd
    network: Network
    user: User
    reconnects: int = 0
    rows: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def session(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cli("ps", "--json").json["sessions"][0]
        return found

    def healthy(self) -> bool:
        one = self.session()
        return bool(one["state"] == "running" and one["link"]["state"] == "up")

    def noticed(self) -> bool:
        """The link is away, or was: it may be back before anybody asks."""
        link = self.session()["link"]
        return bool(link["state"] != "up" or link["reconnects"] > self.reconnects)

    @property
    def daemon(self) -> psutil.Process:
        return psutil.Process(self.cli("daemon", "status", "--json").json["pid"])

    # --- the faults: each returns when it is healed --------------------------------------------------------------

    def packets_vanish(self) -> float:
        with self.network.dropping():
            return self._until_noticed()

    def cable_is_pulled(self) -> float:
        self.network.pull()
        try:
            return self._until_noticed()
        finally:
            self.network.plug()

    def connection_is_killed(self) -> float:
        for one in self.sshd.connections():
            one.kill()
        return 0.0

    def sshd_restarts(self) -> float:
        self.sshd.stop()
        try:
            return self._until_noticed()
        finally:
            self.sshd.start()

    def connection_freezes(self) -> float:
        frozen = self.sshd.connections()
        for one in frozen:
            one.suspend()
        try:
            return self._until_noticed()
        finally:
            for one in frozen:
                one.kill()

    def daemon_is_killed(self) -> float:
        self.daemon.kill()
        return 0.0

    def computer_sleeps(self) -> float:
        daemon = self.daemon
        daemon.suspend()
        with self.network.dropping():
            # Long enough that the daemon sees that it slept; nothing tells when that is.
            time.sleep(4)
            daemon.send_signal(signal.SIGCONT)
        return 0.0

    def _until_noticed(self) -> float:
        start = time.monotonic()
        wait_until(self.noticed, what="the notice of the fault", timeout=30)
        return time.monotonic() - start


@pytest.fixture
def storm(fresh_bed: Bed) -> Iterator[Storm]:
    with Network() as network, fresh_bed.start_sshd(network=network) as sshd, private_home() as home:
        yield Storm(Cli(home, sshd.ssh_config), sshd, network, fresh_bed.user("bash"))


@pytest.mark.timeout(60 + 40 * ROUNDS)
def test_nothing_is_lost_and_nothing_is_left(storm: Storm) -> None:
    made = storm.cli("up", "server1", "--no-browser", "--json")
    assert made.rc == 0, made
    before = made.json
    faults: list[Callable[[], float]] = [
        storm.packets_vanish,
        storm.cable_is_pulled,
        storm.connection_is_killed,
        storm.sshd_restarts,
        storm.connection_freezes,
        storm.daemon_is_killed,
        storm.computer_sleeps,
    ]
    print(f"\nseed {SEED}")
    chance = random.Random(SEED)
    order = [faults[index % len(faults)] for index in range(ROUNDS)]
    chance.shuffle(order)
    with Kernel(before["url"]) as kernel:
        kernel.run("x = 0")
        usual = {process.pid for process in storm.user.processes()}
        for number, fault in enumerate(order, 1):
            storm.reconnects = storm.session()["link"]["reconnects"]
            noticed = fault()
            healed = time.monotonic()
            wait_until(storm.healthy, what=f"the return after {fault.__name__} (seed {SEED})", timeout=40)
            back = time.monotonic() - healed
            storm.rows.setdefault(fault.__name__, []).append((noticed, back))
            after = storm.session()
            assert after["url"] == before["url"], fault.__name__
            assert after["server"]["pid"] == before["server"]["pid"], fault.__name__
            kernel.reconnect()
            assert kernel.run("x += 1; print(x)") == f"{number}\n", fault.__name__
            check_leftovers(storm, usual, fault.__name__)
    show(storm)


def check_leftovers(storm: Storm, usual: set[int], what: str) -> None:
    """One link, no shells of ours on the host, and a daemon that has not grown."""

    def one_link() -> bool:
        return len(storm.sshd.connections()) == 1

    wait_until(one_link, what=f"the end of all links but one after {what}")

    def only_usual() -> bool:
        left = [one for one in storm.user.processes() if one.pid not in usual]
        # sshd's own, for the link that is there now.
        return all(one.name().startswith("sshd") for one in left if one.is_running())

    wait_until(only_usual, what=f"the end of our shells on the host after {what}")
    daemon = storm.daemon
    assert daemon.num_threads() < 25, what
    assert daemon.num_fds() < 80, what
    daemons = [one for one in storm.cli.processes() if "daemon" in one.cmdline()]
    assert len(daemons) == 1, what


def show(storm: Storm) -> None:
    """Print the table of detection and recovery times."""
    print("\n| fault | rounds | noticed, median s | max | back, median s | max |\n|---|---|---|---|---|---|")
    for name, times in sorted(storm.rows.items()):
        noticed, back = [one for one, _ in times], [one for _, one in times]
        cells = [statistics.median(noticed), max(noticed), statistics.median(back), max(back)]
        print(f"| {name.replace('_', ' ')} | {len(times)} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
