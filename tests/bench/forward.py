"""Our forwarder beside `ssh -L`, sshtunnel, fabric and asyncssh: ``python -m tests.bench.forward``.

It starts all that it needs (an sshd of its own, the programs at the far end, a long line between network namespaces)
and ends it again. Each table runs its engines in turn, round by round; ratios are the medians of the rounds' own ratios
to `ssh -L`. Every transfer is counted, and the first of each engine is compared by SHA-256: a wrong byte ends the run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import FrameType

from tests.bench import chart, compare, scale
from tests.bench.engines import NAMES, OURS
from tests.bench.report import Report
from tests.bench.traffic import Wrong

TABLES: dict[str, Callable[[compare.Plan, Report], None]] = {
    "bulk": compare.bulk,
    "latency": compare.latency,
    "connections": compare.connections,
    "idle": compare.idle,
    "wan": compare.wan,
    "scale": lambda _, report: scale.measure(report),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.forward", description=__doc__.splitlines()[0])
    parser.add_argument("--tables", default=",".join(TABLES), help=f"of: {', '.join(TABLES)}")
    parser.add_argument("--engines", default=";".join(NAMES), help=f"of: {'; '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default 5)")
    parser.add_argument("--mib", type=int, default=512, help="size of a bulk transfer, MiB (default 512)")
    parser.add_argument("--wan-mib", type=int, default=128, help="of a download over the long line, MiB (default 128)")
    parser.add_argument("--svg", type=Path, help="write the ratios as a chart")
    asked = parser.parse_args()
    tables, engines = asked.tables.split(","), [name.strip() for name in asked.engines.split(";")]
    for unknown in [one for one in tables if one not in TABLES] + [one for one in engines if one not in NAMES]:
        parser.error(f"{unknown!r} is not known")
    signal.signal(signal.SIGTERM, _end)
    report = Report()
    plan = compare.Plan(engines, asked.rounds, asked.mib << 20, asked.wan_mib << 20)
    print(_where())
    start = time.monotonic()
    for name in tables:
        began = time.monotonic()
        TABLES[name](plan, report)
        print(f"\n({name}: {time.monotonic() - began:.0f} s)", flush=True)
    report.end()
    print(f"\n{time.monotonic() - start:.0f} s in all")
    if asked.svg is not None and report.ratios:
        chart.draw(asked.svg, "Rates as a ratio to ssh -L (the line is 1): longer is faster", report.ratios, OURS)


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def _where() -> str:
    """Say when and on what this runs."""
    ssh = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=False).stderr.strip().split(",")[0]
    system = "?"
    with contextlib.suppress(OSError):
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    packages = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("paramiko", "fabric", "sshtunnel", "asyncssh", "cryptography")
    )
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {system}, Python {platform.python_version()}, {ssh}, "
        f"{packages}; load before the start {load}"
    )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; everything that was started is ended")
    except Wrong as error:
        sys.exit(f"WRONG: {error}")
