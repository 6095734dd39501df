"""A storm: faults in random order, each healed; after every one the session is the same and nothing is left over.

``JUPYMAN_STORM_ROUNDS=100 pytest -s tests/integration/test_storm.py`` is a long one, in which the network is also away
for up to a minute; ``JUPYMAN_STORM_SEED`` repeats a storm. The table of times is printed.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import psutil
import pytest

from jupyman import errors, paths
from jupyman.api import ClientContext, PsRequest
from jupyman.client import Client
from jupyman.demo.cell import CellKernel
from jupyman.local import daemon_file
from tests.bed import Bed, Cli, Network, Sshd, User, private_home, wait_until
from tests.bed.aftermath import no_traceback
from tests.bed.notebooks import up
from tests.bed.ports import free_ports

ROUNDS = int(os.environ.get("JUPYMAN_STORM_ROUNDS", "7"))
SEED = int(os.environ.get("JUPYMAN_STORM_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
# How long the network stays away once its absence was noticed, seconds; a short storm has no time for it.
OUTAGES = [0.0] if ROUNDS < 50 else [0.0, 5.0, 15.0, 30.0, 55.0]
LOOK = 0.02  # seconds between two looks at the session
# A session that is well is running; while nothing is known of it, it is lost. Its link is up or comes back.
RIGHT = {("running", "up"), ("running", "reconnecting"), ("lost", "reconnecting"), ("lost", "up")}
# What Jupyter and IPython write for themselves, whatever happens to the link.
OWN = ("history.sqlite", ".pyc", ".ipynb_checkpoints", "-journal")
# The fault, seconds until it was noticed (None where there is nothing to notice), outage, seconds until all was well.
Row = tuple[str, float | None, float, float]


class Watch:
    """Asks the daemon for the session all the time, by its API; use as a context manager.

    Attributes:
        last: the session; None while no daemon answers.
        seen: every (session's state, link's state) that was seen.
    """

    def __init__(self, cli: Cli) -> None:
        self._paths = paths.find({"JUPYMAN_HOME": str(cli.home)})
        self._context = ClientContext(ssh_config=str(cli.ssh_config))
        self.last: dict[str, Any] | None = None
        self.seen: set[tuple[str, str]] = set()
        self.urls: set[str] = set()
        self.pids: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def first(self) -> dict[str, Any]:
        """The session, as soon as it was looked at."""
        wait_until(lambda: self.last, what="the first look")
        assert self.last is not None
        return self.last

    def _run(self) -> None:
        while not self._over.wait(LOOK):
            self.last = self._look()

    def _look(self) -> dict[str, Any] | None:
        try:
            result = Client(self._paths, self._context).run(PsRequest(), lambda _: None, start=False)
            one: dict[str, Any] = msgspec.to_builtins(result.sessions[0])
        except errors.JupymanError:  # it was killed, or sleeps
            return None
        self.seen.add((one["state"], one["link"]["state"]))
        if one["url"] is not None:
            self.urls.add(one["url"])
        if one["server"] is not None:
            self.pids.add(one["server"]["pid"])
        return one


@dataclass
class Storm:
    """The host, the network and the command line of a storm.

    Attributes:
        outage: how long the network stays away in this round once that was noticed, seconds.
        rows: what was measured.
    """

    cli: Cli
    sshd: Sshd
    network: Network
    user: User
    watch: Watch
    reconnects: int = 0
    outage: float = 0.0
    rows: list[Row] = field(default_factory=list)

    def healthy(self) -> bool:
        one = self.watch.last
        return one is not None and (one["state"], one["link"]["state"]) == ("running", "up")

    def noticed(self) -> bool:
        """The link is away, or was: it may be back before anybody asks."""
        one = self.watch.last
        return one is not None and (one["link"]["state"] != "up" or one["link"]["reconnects"] > self.reconnects)

    @property
    def daemon(self) -> psutil.Process:
        found = daemon_file.read(self.cli.home / "run" / "daemon.json")
        assert found is not None
        return psutil.Process(found.pid)

    # --- the faults: each returns when it is healed, with how long it was not noticed -----------------------------

    def packets_vanish(self) -> float | None:
        self._let_it_age()
        with self.network.dropping():
            return self._until_noticed()

    def cable_is_pulled(self) -> float | None:
        self._let_it_age()
        self.network.pull()
        try:
            return self._until_noticed()
        finally:
            self.network.plug()

    def connection_is_killed(self) -> float | None:
        for one in self.sshd.connections():
            one.kill()
        self.outage = 0.0
        return self._until_noticed()

    def sshd_restarts(self) -> float | None:
        self.sshd.stop()
        try:
            return self._until_noticed()
        finally:
            self.sshd.start()

    def connection_freezes(self) -> float | None:
        frozen = self.sshd.connections()
        for one in frozen:
            one.suspend()
        self.outage = 0.0
        try:
            return self._until_noticed()
        finally:
            for one in frozen:
                one.kill()

    def daemon_is_killed(self) -> float | None:
        self.outage = 0.0
        self.daemon.kill()
        assert self.cli("ps", "--json").rc == 0  # the next command starts another
        return None

    def computer_sleeps(self) -> float | None:
        self.outage = 0.0
        daemon = self.daemon
        daemon.suspend()
        with self.network.dropping():
            # Long enough that the daemon sees that it slept; nothing tells when that is.
            time.sleep(4)
            daemon.send_signal(signal.SIGCONT)
        return None

    def _let_it_age(self) -> None:
        """Wait until the link has had a heartbeat: from then on its end on the host can be seen to."""

        def aged() -> bool:
            one = self.watch.last
            since = datetime.fromisoformat(one["link"]["since"]) if one is not None else datetime.now(UTC)
            return (datetime.now(UTC) - since).total_seconds() > 5

        wait_until(aged, what="a link of five seconds")

    def _until_noticed(self) -> float:
        start = time.monotonic()
        wait_until(self.noticed, what=f"the notice of the fault (seed {SEED})", timeout=30)
        took = time.monotonic() - start
        time.sleep(self.outage)  # what is tested is that it lasts
        return took


@pytest.fixture
def storm(fresh_bed: Bed) -> Iterator[Storm]:
    with Network() as network, fresh_bed.start_sshd(network=network) as sshd, private_home() as home:
        cli = Cli(home, sshd.ssh_config)
        # A port that nobody takes while the daemon is dead.
        up(cli, "server1", "--no-browser", "--local-port", str(free_ports(1)[0]))
        with Watch(cli) as watch:
            yield Storm(cli, sshd, network, fresh_bed.user("bash"), watch)


@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_nothing_is_lost_and_nothing_is_left(storm: Storm) -> None:
    before = storm.watch.first
    faults: list[Callable[[], float | None]] = [
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
    try:
        with CellKernel(before["url"]) as kernel:
            kernel.run("x = 0")
            left = Leftovers(storm)
            for number, fault in enumerate(order, 1):
                name = f"{fault.__name__} (round {number}, seed {SEED})"
                storm.reconnects = (storm.watch.last or before)["link"]["reconnects"]
                storm.outage = chance.choice(OUTAGES)
                start = time.monotonic()
                noticed = fault()
                healed = time.monotonic() if fault != storm.daemon_is_killed else start
                storm.watch.last = None  # what was seen before it was healed does not count
                wait_until(storm.healthy, what=f"the return after {name}", timeout=60)
                storm.rows.append((fault.__name__, noticed, storm.outage, time.monotonic() - healed))
                kernel.reconnect()
                assert kernel.run("x += 1; print(x)") == f"{number}\n", name
                left.check(name)
                assert storm.watch.seen <= RIGHT, name
                assert storm.watch.urls == {before["url"]}, name
                assert storm.watch.pids == {before["server"]["pid"]}, name
        no_traceback(storm.cli)
    except BaseException:
        print("\n".join(storm.cli("daemon", "logs", "-n", "40").stdout.splitlines()))
        print("\n".join(str(one) for one in [*storm.sshd.process.children(recursive=True), *storm.user.processes()]))
        print(storm.watch.last)
        raise
    finally:
        show(storm.rows)


class Leftovers:
    """What a round must not leave: links, processes, threads, descriptors, files, here and on the host.

    Args:
        storm: well, with the kernel connected.
    """

    def __init__(self, storm: Storm) -> None:
        self._storm = storm
        self._processes = {process.pid for process in storm.user.processes()}
        self._files = self._remote_files()
        self._size: dict[int, tuple[int, int]] = {}  # threads and descriptors of a daemon after its first round

    def check(self, what: str) -> None:
        """Wait until nothing of a round is left."""
        storm = self._storm
        wait_until(lambda: len(storm.sshd.connections()) == 1, what=f"the end of all links but one after {what}")
        wait_until(self._only_usual, what=f"the end of our shells on the host after {what}")
        wait_until(lambda: self._remote_files() == self._files, what=f"the same files on the host after {what}")
        daemons = [one for one in storm.cli.processes() if "daemon" in one.cmdline()]
        assert [one.pid for one in daemons] == [storm.daemon.pid], what
        assert {path.name for path in storm.cli.home.rglob("*") if path.is_file()} <= {
            *("daemon.json", "daemon.lock", "daemon.log", "state.json", "state.json.bak")
        }, what
        daemon = daemons[0]
        carried = [one for one in daemon.net_connections("tcp") if one.raddr and one.raddr.port == storm.sshd.port]
        assert len(carried) == 1, what
        if daemon.pid not in self._size:
            self._size[daemon.pid] = (daemon.num_threads(), daemon.num_fds())
        threads, descriptors = self._size[daemon.pid]

        def no_more() -> bool:
            # The watch asks all the time: a request under way is a thread and a connection more.
            return daemon.num_threads() <= threads and daemon.num_fds() <= descriptors

        wait_until(no_more, what=f"a daemon of {threads} threads and {descriptors} descriptors after {what}")

    def _only_usual(self) -> bool:
        left = [one for one in self._storm.user.processes() if one.pid not in self._processes]
        with suppress(psutil.NoSuchProcess):
            # sshd's own, for the link that is there now.
            return all(one.name().startswith("sshd") for one in left)
        return False

    def _remote_files(self) -> set[Path]:
        user = self._storm.user
        folders = [user.home / name for name in (".local", ".jupyter", ".ipython", ".cache")]
        folders += [one for one in Path("/tmp").glob("jm-*") if one.stat().st_uid == user.uid]
        found = {path for folder in folders for path in folder.rglob("*")}
        return {path for path in found if not any(part in str(path) for part in OWN)}


def show(rows: list[Row]) -> None:
    """Print the table of detection and return, by fault and by the length of the outage."""
    kinds = {name: [row for row in rows if row[0] == name] for name in sorted({row[0] for row in rows})}
    for length in filter(None, OUTAGES):
        kinds[f"away for {length:.0f} s more"] = [row for row in rows if row[2] == length]
    # A host that was silent for less than half a minute goes on over the same connection, when its kernel tries again.
    vanished = [row for row in rows if row[0] == Storm.packets_vanish.__name__]
    kinds["packets vanish, the connection lives"] = [row for row in vanished if row[2] < 20]
    kinds["packets vanish, a new login"] = [row for row in vanished if row[2] >= 30]
    kinds["all"] = rows
    heads = ("fault", "rounds", "noticed p50 s", "p95", "max", "back p50 s", "p95", "max")
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for kind, chosen in kinds.items():
        cells = numbers([row[1] for row in chosen if row[1] is not None]) + numbers([row[3] for row in chosen])
        print(f"| {kind.replace('_', ' ')} | {len(chosen)} | {' | '.join(cells)} |")


def numbers(times: list[float]) -> list[str]:
    """Return median, 95th percentile and maximum as text."""
    if not times:
        return ["-"] * 3
    ordered = sorted(times)
    last = len(ordered) - 1
    return [f"{ordered[min(last, round(share * last))]:.2f}" for share in (0.5, 0.95, 1.0)]
