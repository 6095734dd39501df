"""Medians, ratios, and a table that can be pasted into docs/benchmarks.md."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence


def interleave(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure the cases in turn, round by round: these machines are shared and drift.

    Args:
        cases: each returns seconds.
        rounds: how often.

    Returns:
        The seconds by case.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            seconds[name].append(case())
    return seconds


def process(words: Sequence[str], environ: Mapping[str, str]) -> float:
    """Run a command and return the seconds it took, from outside."""
    start = time.perf_counter()
    subprocess.run(words, env=dict(environ), check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return time.perf_counter() - start


def show(title: str, seconds: Mapping[str, Sequence[float]], base: str) -> None:
    """Print a table with the ratio of medians to the case `base`."""
    print(f"\n{title}\n\n| case | median s | min | max | ratio to {base} |\n|---|---|---|---|---|")
    reference = statistics.median(seconds[base])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.3f} | {min(values):.3f} | {max(values):.3f} | {median / reference:.2f} |")
