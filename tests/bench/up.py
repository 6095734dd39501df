"""How long `jupyman up` takes to a forwarded address that answers, above Jupyter's own start on the same host.

``python -m tests.bench.up`` runs, in turn: `jupyter lab` started on the host and asked there until it answers; `up`
with a daemon whose link is up; `up` with neither daemon nor link.
"""

from __future__ import annotations

import http.client
import socket
import statistics
import time

from tests.bed import Bed, Cli, private_home
from tests.bench.table import interleave, show

ROUNDS = 7
LOOK = 0.01  # seconds between two questions


def main() -> None:
    """Measure and print."""
    with Bed() as bed, private_home() as home:
        cli = Cli(home, bed.ssh_config)

        def plain() -> float:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            user = bed.user()
            lab = str(user.home / "miniconda3" / "envs" / "lab" / "bin" / "jupyter-lab")
            start = time.perf_counter()
            words = [lab, "--no-browser", f"--port={port}", "--ip=127.0.0.1", "--IdentityProvider.token=x"]
            with (user.home / "log").open("w") as log, user.start(*words, stdout=log, stderr=log) as process:
                while not _answers(port):
                    time.sleep(LOOK)
                seconds = time.perf_counter() - start
                process.terminate()
            return seconds

        def up() -> float:
            start = time.perf_counter()
            ran = cli("up", "server1", "--no-browser", "--json")
            seconds = time.perf_counter() - start
            assert ran.rc == 0, ran
            assert cli("kill", "-y", "server1").rc == 0
            return seconds

        def cold() -> float:
            assert cli("daemon", "stop").rc == 0
            return up()

        up()  # warm caches
        plain()
        cases = {"jupyter lab itself": plain, "up, daemon and link warm": up, "up, no daemon, no link": cold}
        seconds = interleave(cases, ROUNDS)
        show(f"To an address that answers, {ROUNDS} interleaved rounds", seconds, "jupyter lab itself")
        base = statistics.median(seconds["jupyter lab itself"])
        for name in list(cases)[1:]:
            print(f"{name}: {statistics.median(seconds[name]) - base:+.2f} s")


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/api/status", headers={"Authorization": "token x"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
