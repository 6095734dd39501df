"""The tables that compare forwarders."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.bench import engines
from tests.bench.engines import BASE, GCM, OURS, SHARE, Engine
from tests.bench.host import Host, far_away, loopback
from tests.bench.report import Report, in_turn, number, quantile, ratio
from tests.bench.traffic import Beside, Wrong, call

T = TypeVar("T")

MIB, GIB = 1 << 20, 1 << 30
CHECKED = 8 * MIB  # the first transfer of each engine, compared by SHA-256
PINGS = 1000
LOADED = 2.0  # seconds of pings beside a bulk transfer
SLOW_ROUNDS = 2  # of the slow ones, whose rounds take long
LEAST_PINGS = 20
OPENS = 1.0  # seconds of one connection after another
AT_ONCE, LIMIT = 500, 12.0
IDLE, SETTLE, IDLE_TIME = 200, 3.0, 10.0
DELAY, BUFFERS = 0.025, 64 * MIB  # each way, seconds; bytes
SIDE_ROUNDS = 2  # of what has no bar


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        names: of the engines.
        rounds: how often.
        size: bytes of a bulk transfer.
        far: bytes of a download over the long line.
    """

    names: Sequence[str]
    rounds: int
    size: int
    far: int


@contextlib.contextmanager
def _running(plan: Plan, host: Host, checked: int = CHECKED) -> Iterator[dict[str, Engine]]:
    """Run the engines and let each show that it changes no byte."""
    with engines.running(plan.names, host, [host.bulk, host.echo]) as started:
        for engine in started:
            for direction in ("down", "up"):
                call(direction, prefix=host.prefix, port=engine.ports[0], size=checked, hashed=True)
        yield {engine.name: engine for engine in started}


def _part(name: str, size: int) -> int:
    return int(size * SHARE.get(name, 1))


def bulk(plan: Plan, report: Report) -> None:
    """One stream, as fast as it goes, each way."""
    rates: dict[str, dict[str, list[float]]] = {}
    costs: dict[str, dict[str, float]] = {}
    with loopback() as host, _running(plan, host) as running:
        for direction in ("down", "up"):
            spent: dict[str, float] = dict.fromkeys(plan.names, 0.0)

            def one(name: str, _: int, direction: str = direction, spent: dict[str, float] = spent) -> float:
                size, engine = _part(name, plan.size), running[name]
                before = engine.cpu()
                seconds = call(direction, port=engine.ports[0], size=size)
                spent[name] += engine.cpu() - before
                return float(size / seconds / MIB)

            rates[direction] = in_turn(plan.names, plan.rounds, one)
            costs[direction] = {name: spent[name] / (plan.rounds * _part(name, plan.size)) * GIB for name in plan.names}
            report.ratios[f"bulk {direction}, loopback"] = _ratios(rates[direction])
    rows = [
        [
            name,
            *(
                cell
                for direction in ("down", "up")
                for cell in (
                    number(statistics.median(rates[direction][name]), 0),
                    number(ratio(rates[direction], name, BASE)),
                    number(costs[direction][name]),
                )
            ),
        ]
        for name in plan.names
    ]
    heads = ("engine", "down MiB/s", "ratio", "CPU s/GiB", "up MiB/s", "ratio", "CPU s/GiB")
    size = f"{plan.size // MIB} MiB, {plan.rounds} rounds"
    report.table(f"Bulk, loopback, one stream ({size}; CPU of the forwarding process)", heads, rows)
    for direction, gcm in (("down", 0.85), ("up", 1.0)):
        report.bar(f"bulk {direction}, of ssh -L", ratio(rates[direction], OURS, BASE), least=1.3)
        report.bar(f"bulk {direction}, of ssh -L with GCM", ratio(rates[direction], OURS, GCM), least=gcm)
        mine, theirs = costs[direction].get(OURS), costs[direction].get(BASE)
        share = mine / theirs if mine is not None and theirs else None
        report.bar(f"CPU a GiB {direction}, of ssh -L", share, most=0.6)


def latency(plan: Plan, report: Report) -> None:
    """64 bytes there and back: alone, and beside a bulk transfer through the same tunnel."""
    heads = ("engine", "idle p50", "p99", "while down p50", "p99", "bulk MiB/s", "while up p50", "p99", "bulk MiB/s")
    cells: dict[str, list[str]] = {name: [name] for name in plan.names}
    with loopback() as host, _running(plan, host) as running:

        def alone(name: str, _: int) -> list[float]:
            return list(call("ping", port=running[name].ports[1], count=PINGS))

        series = in_turn(plan.names, plan.rounds, alone)
        _latencies(series, cells)
        median, worst = (_quantiles(series, part) for part in (0.5, 0.99))
        report_bars = [("p50 idle", median, 1.4), ("p99 idle", worst, 3.0)]
        for direction in ("down", "up"):
            rates: dict[str, list[float]] = {name: [] for name in plan.names}

            def loaded(
                name: str, turn: int, direction: str = direction, rates: dict[str, list[float]] = rates
            ) -> list[float] | None:
                if turn >= SLOW_ROUNDS and name in SHARE:
                    return None
                ports = running[name].ports
                with Beside("load", port=ports[0], direction=direction) as load:
                    took = call("ping", port=ports[1], count=10**6, limit=LOADED)
                rates[name].append(load.result / MIB)
                if len(took) < LEAST_PINGS:
                    raise Wrong(f"{name}: {len(took)} pings in {LOADED} s beside a transfer {direction}")
                return list(took)

            series = _done(in_turn(plan.names, plan.rounds, loaded))
            _latencies(series, cells)
            for name in plan.names:
                cells[name].append(number(statistics.median(rates[name]), 0))
            report_bars.append((f"p50 while bulk {direction}", _quantiles(series, 0.5), 1.3))
    times = f"{plan.rounds} x {PINGS} idle, {plan.rounds} x {LOADED:.0f} s beside bulk"
    title = f"64 bytes there and back, ms ({times})"
    report.table(title, heads, list(cells.values()))
    for what, values, limit in report_bars:
        report.bar(f"{what}, of ssh -L", ratio(values, OURS, BASE), most=limit)


def _done(series: Mapping[str, Sequence[T | None]]) -> dict[str, list[T]]:
    return {name: [one for one in rounds if one is not None] for name, rounds in series.items()}


def _quantiles(series: dict[str, list[list[float]]], part: float) -> dict[str, list[float]]:
    return {name: [quantile(took, part) for took in rounds] for name, rounds in series.items()}


def _latencies(series: dict[str, list[list[float]]], cells: dict[str, list[str]]) -> None:
    for part in (0.5, 0.99):
        for name, values in _quantiles(series, part).items():
            cells[name].append(number(1000 * statistics.median(values)))


def connections(plan: Plan, report: Report) -> None:
    """Connections one after another, and many at once."""
    with loopback() as host, _running(plan, host) as running:

        def sequence(name: str, _: int) -> float:
            return float(call("opens", port=running[name].ports[1], seconds=OPENS))

        def together(name: str, turn: int) -> tuple[int, float] | None:
            if turn and name in SHARE:
                return None  # the slow ones do not serve them all, and take the whole limit each time
            served, last = call("burst", ports=[running[name].ports[1]], count=AT_ONCE, limit=LIMIT)
            return served, last

        rates = in_turn(plan.names, plan.rounds, sequence)
        done = _done(in_turn(plan.names, plan.rounds, together))
    times = {
        name: [last for _, last in done[name]] if all(served == AT_ONCE for served, _ in done[name]) else []
        for name in plan.names
    }
    rows = [
        [
            name,
            number(statistics.median(rates[name]), 0),
            number(ratio(rates, name, BASE)),
            str(min(served for served, _ in done[name])),
            number(statistics.median(last for _, last in done[name])),
            number(ratio(times, name, BASE)),
        ]
        for name in plan.names
    ]
    heads = ("engine", "one after another /s", "ratio", f"of {AT_ONCE} at once served", "the last after s", "ratio")
    report.table(f"Connections ({plan.rounds} rounds; each is opened, used and closed)", heads, rows)
    report.bar("connections a second, of ssh -L", ratio(rates, OURS, BASE), least=0.75)
    report.bar(f"{AT_ONCE} at once: time, of ssh -L", ratio(times, OURS, BASE), most=1.0)


def idle(plan: Plan, report: Report) -> None:
    """Many forwards, each with one open connection that sends nothing."""
    rows, ours = [], None
    with (
        loopback() as host,
        engines.running(plan.names, host, [host.echo] * IDLE) as started,
        contextlib.ExitStack() as stack,
    ):
        held: dict[str, Beside | None] = {}
        for engine in started:
            with contextlib.suppress(Wrong):
                held[engine.name] = stack.enter_context(Beside("hold", ports=engine.ports, count=IDLE))
        time.sleep(SETTLE)
        before = {engine.name: engine.cpu() for engine in started}
        time.sleep(IDLE_TIME)
        for engine in started:
            share = 100 * (engine.cpu() - before[engine.name]) / IDLE_TIME
            memory, threads = engine.process.memory_info().rss / MIB, engine.process.num_threads()
            if engine.name == OURS:
                ours = (share, memory, threads)
            carried = IDLE if engine.name in held else "not all"
            rows.append([engine.name, str(carried), str(threads), number(memory, 0), number(share)])
    for name, one in held.items():
        if one is None or one.result != IDLE:
            raise Wrong(f"{name}: {one and one.result} of {IDLE} quiet connections were alive at the end")
    heads = ("engine", "connections carried", "threads", "memory MiB", "CPU % of a core")
    report.table(f"{IDLE} forwards with an open connection each that is quiet, for {IDLE_TIME:.0f} s", heads, rows)
    if ours is not None:
        report.bar(f"{IDLE} idle: threads", ours[2], most=5)
        report.bar(f"{IDLE} idle: CPU %", ours[0], most=0.5)
        report.bar(f"{IDLE} idle: memory MB", ours[1] * MIB / 1e6, most=60)


def wan(plan: Plan, report: Report) -> None:
    """Bulk over a line of 50 ms there and back."""
    if os.geteuid() != 0:
        print("\nno long line: only root can lay one")
        return
    downs: dict[str, dict[str, list[float]]] = {}
    ups: dict[str, list[float]] = {}
    for label, buffers in (("64 MB", BUFFERS), ("default", None)):
        with far_away(DELAY, buffers=buffers) as host, _running(plan, host, plan.far // 16) as running:

            def one(
                name: str, direction: str, size: int, host: Host = host, running: dict[str, Engine] = running
            ) -> float:
                size = int(size / (8 if name in SHARE else 1))
                seconds = call(direction, prefix=host.prefix, port=running[name].ports[0], size=size)
                return float(size / seconds / MIB)

            for name in plan.names:  # until congestion control knows the line
                one(name, "down", plan.far // 4)
            rounds = plan.rounds if buffers is not None else min(SIDE_ROUNDS, plan.rounds)
            downs[label] = in_turn(plan.names, rounds, lambda name, _: one(name, "down", plan.far))
            if buffers is not None:
                ups = in_turn(plan.names, min(SIDE_ROUNDS, plan.rounds), lambda name, _: one(name, "up", plan.far // 2))
        report.ratios[f"down, 50 ms, {label} TCP buffers"] = _ratios(downs[label])
    rows = [
        [
            name,
            *(
                cell
                for series in (*downs.values(), ups)
                for cell in (number(statistics.median(series[name]), 0), number(ratio(series, name, BASE)))
            ),
        ]
        for name in plan.names
    ]
    heads = (
        "engine",
        *(f"{one}" for label in downs for one in (f"down, {label} buffers MiB/s", "ratio")),
        "up MiB/s",
        "ratio",
    )
    side = min(SIDE_ROUNDS, plan.rounds)
    sizes = (
        f"{plan.far // MIB} MiB down, {plan.far // MIB // 2} up; {plan.rounds} rounds with 64 MB, {side} of the others"
    )
    title = f"50 ms there and back ({sizes}, {_congestion()})"
    report.table(title, heads, rows)
    report.bar("down at 50 ms with 64 MB buffers, of ssh -L", ratio(downs["64 MB"], OURS, BASE), least=3.0)


def _congestion() -> str:
    return f"TCP {Path('/proc/sys/net/ipv4/tcp_congestion_control').read_text().strip()}"


def _ratios(series: dict[str, list[float]]) -> dict[str, float]:
    found = {name: ratio(series, name, BASE) for name in series}
    return {name: value for name, value in found.items() if value is not None}
