"""What a benchmark prints: tables for docs/benchmarks.md, and the bars beside the figures. It judges nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

Series = Mapping[str, Sequence[float]]


class Report:
    """Prints tables, and collects the bars and the ratios for the chart.

    Attributes:
        bars: what, the figure, the bar, whether it was met.
        ratios: by chart, by engine: the ratio to the base.
    """

    def __init__(self) -> None:
        self.bars: list[list[str]] = []
        self.ratios: dict[str, dict[str, float]] = {}

    def table(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table in Markdown."""
        print(f"\n### {title}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for row in rows:
            print(f"| {' | '.join(row)} |")
        print(flush=True)

    def bar(self, what: str, value: float | None, *, least: float | None = None, most: float | None = None) -> None:
        """Print a figure beside its bar; None: it could not be measured."""
        limit = f">= {least:g}" if least is not None else f"<= {most:g}"
        met = value is not None and (value >= least if least is not None else value <= (most or 0.0))
        self.bars.append([what, number(value), limit, "met" if met else "MISSED"])
        print(f"- {what}: {number(value)} (bar {limit}): {self.bars[-1][-1]}", flush=True)

    def end(self) -> None:
        """Print all bars once more."""
        met = sum(row[-1] == "met" for row in self.bars)
        self.table(f"{met} of {len(self.bars)} aims met", ("aim", "measured", "bar", ""), self.bars)


def in_turn(names: Sequence[str], rounds: int, measure: Callable[[str, int], T]) -> dict[str, list[T]]:
    """Measure each in turn, round by round; each round begins with another one, because these machines drift.

    Args:
        names: who.
        rounds: how often.
        measure: gets the name and the number of the round.

    Returns:
        The results by name.
    """
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            results[name].append(measure(name, number))
    return results


def ratio(series: Series, name: str, base: str) -> float | None:
    """Return the median of the ratios of each round; None if one of the two was not measured."""
    if not series.get(name) or not series.get(base):
        return None
    return statistics.median(one / other for one, other in zip(series[name], series[base], strict=False))


def number(value: float | None, digits: int = 2) -> str:
    """Write a figure; None is a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def quantile(values: Sequence[float], part: float) -> float:
    """Return the value that this part of all is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
