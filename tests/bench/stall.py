"""What a stall of the network costs: a cell prints a line each 0.2 s, and all packets vanish for some seconds.

``python -m tests.bench.stall [SECONDS...]`` compares `jupyman up` with a plain `jupyter lab` behind
`ssh -L` with ServerAliveInterval 15, in the same outage. Both clients connect again with the same session id when their
websocket is closed, as a page of JupyterLab does. Needs root.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.bed import Bed, Cli, Network, Sshd, private_home, wait_until
from tests.bed.ports import free_ports
from tests.bed.tab import Tab

LINES = 150
GAP = 0.2  # seconds between two lines
BEFORE = 5.0  # seconds before the packets vanish
ROUNDS = int(os.environ.get("JUPYMAN_STALL_ROUNDS", "5"))
CELL = f"import time\nfor i in range({LINES}):\n    print('line', i, flush=True); time.sleep({GAP})"


@contextlib.contextmanager
def by_hand(bed: Bed, sshd: Sshd) -> Iterator[str]:
    """Start `jupyter lab` and `ssh -L` as people do it by hand; yields the address."""
    there, here = free_ports(2)
    lab = str(bed.user().home / "miniconda3" / "envs" / "lab" / "bin" / "jupyter-lab")
    start = (
        f"nohup {lab} --no-browser --port={there} --ip=127.0.0.1 --IdentityProvider.token=x >lab.log 2>&1 </dev/null &"
    )
    bed.ssh("bash", start, sshd=sshd)
    words = ["ssh", "-F", str(sshd.ssh_config), "-N", "-o", "ServerAliveInterval=15", "-o", "ExitOnForwardFailure=yes"]
    words += ["-L", f"127.0.0.1:{here}:127.0.0.1:{there}", "server1"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as forward:
        try:
            wait_until(lambda: _answers(here), what="jupyter lab by hand", timeout=60)
            yield f"http://127.0.0.1:{here}/lab?token=x"
        finally:
            forward.terminate()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/api/status", headers={"Authorization": "token x"})
        return connection.getresponse().status == 200
    return False


def main() -> None:
    """Measure and print."""
    stalls = [float(word) for word in sys.argv[1:]] or [1.0, 3.0, 5.0, 7.0, 10.0, 15.0]
    heads = ("stall s", "engine", "lines, each run", "websocket closed", "first message after the network, s", "median")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    with Bed() as bed, Network() as network, bed.start_sshd(network=network) as sshd, private_home() as home:
        cli = Cli(home, sshd.ssh_config)
        ran = cli("up", "server1", "--no-browser", "--json")
        assert ran.rc == 0, ran
        with by_hand(bed, sshd) as plain:
            urls = {"jupyman": ran.json["url"], "ssh -L": plain}
            for stall in stalls:
                found: dict[str, list[tuple[int, int, float]]] = {name: [] for name in urls}
                for _ in range(ROUNDS):
                    for name, row in one(urls, network, stall).items():
                        found[name].append(row)
                for name, rows in found.items():
                    lines = ", ".join(str(row[0]) for row in rows)
                    closed = ", ".join(str(row[1]) for row in rows)
                    back = ", ".join(f"{row[2]:.1f}" for row in rows)
                    median = statistics.median(row[2] for row in rows)
                    print(f"| {stall:g} | {name} | {lines} | {closed} | {back} | {median:.1f} |", flush=True)


def one(urls: dict[str, str], network: Network, stall: float) -> dict[str, tuple[int, int, float]]:
    """Run one stall; return for each engine the lines that came, the websockets that were closed, and the wait."""
    tabs = {name: Tab(url) for name, url in urls.items()}
    try:
        for tab in tabs.values():
            tab.start(CELL)
        time.sleep(BEFORE)
        with network.dropping():
            time.sleep(stall)
        healed = time.monotonic()
        after: dict[str, float] = {}
        end = healed + 120
        while time.monotonic() < end and not all(tab.over.is_set() for tab in tabs.values()):
            for name, tab in tabs.items():
                if name not in after and tab.heard > healed:
                    after[name] = tab.heard - healed
            time.sleep(0.02)
        return {name: (tab.lines, tab.closed, after.get(name, float("nan"))) for name, tab in tabs.items()}
    finally:
        for tab in tabs.values():
            tab.close()


if __name__ == "__main__":
    main()
