"""How long the command line takes with a warm daemon, against a bare interpreter: ``python -m tests.bench.cli``."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from tests.bed import Bed, Cli, private_home
from tests.bench.table import interleave, process, show

ROUNDS = 20


def main() -> None:
    """Measure and print."""
    with Bed() as bed, private_home() as home:
        cli = Cli(home, bed.ssh_config)
        made = cli("up", "server1", "--no-browser")
        assert made.rc == 0, made
        environ = cli.environ
        python = sys.executable
        cases = {"python -c pass": partial(process, [python, "-c", "pass"], environ)}
        for words in (("ps", "--json"), ("ps",), ("url",), ("up", "server1", "--no-browser"), ("--help",)):
            cases[f"jupyman {' '.join(words)}"] = partial(process, [python, "-m", "jupyman", *words], environ)
        for case in cases.values():  # warm caches
            case()
        show(f"Warm command line, median of {ROUNDS}", interleave(cases, ROUNDS), "python -c pass")
        assert cli("kill", "-y", "server1").rc == 0


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}: {error.stderr!r}")
