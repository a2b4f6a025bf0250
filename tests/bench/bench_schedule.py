# SPDX-License-Identifier: Apache-2.0
"""Whether every sample is taken, and when: our gateway and two peers, by the instants at which the meters were asked.

    .venv/bin/python tests/bench/bench_schedule.py [--runs 5] [--seconds 60] [--quick]

fast   32 units on one Modbus TCP endpoint at 10 Hz, answering at once
slow   2 units on one endpoint at 1 Hz that answer after 150 to 400 ms
dead   32 units on one RTU-over-TCP endpoint at 1 Hz, one of them silent from the start

Peers use pymodbus's client with its defaults (3 s, three retries). One sleeps the interval after each round, one counts
it from the beginning of the round, and in `dead` the peer keeps a fixed grid, which is the best it can do.
The contenders run at the same time, each with meters of its own, in `fast` in turns; the figures are medians of the
runs. Everything is taken at the meters' side, by unit and without the dead one:
due       instants of the grid (the interval) from the contender's first request to the end
missed    those without a request of their own, be it late by less than an interval
jitter    distance of a request from the unit's grid, whose phase is the median of its first ten requests
drift     by how much the last request comes later than as many intervals after the first
Writes build/bench/schedule.json, a list of {name, value, unit, against, ratio}.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "collector"), str(ROOT / "hub")]

from tests.bench.rig.child import Child
from tests.bench.rig.contenders import Contender, Field, GatewayOnly, Peer
from tests.bench.rig.hub import Broker
from tests.ports import free_port

DEAD_UNIT = 7
FIRST = 10
FIGURES = ("share", "%"), ("share_late", "%"), ("jitter_p50", "ms"), ("jitter_p99", "ms"), ("drift", "ms")
LABELS = {"share": "samples missed", "share_late": "samples missed in the second half"}
MILLI = 1000.0


class Scenario(NamedTuple):
    """What is polled, and by whom beside us (name, kind of the peer)."""

    name: str
    units: int
    interval: float
    framing: str
    meters: tuple[object, ...]
    peers: tuple[tuple[str, str], ...]
    # One after the other: together they would not leave each other a core.
    apart: bool = False


LOOPS = (("sleep after each read", "sleep"), ("now + interval", "rearm"))
SCENARIOS = (
    Scenario("fast", 32, 0.1, "tcp", (), LOOPS, apart=True),
    Scenario("slow", 2, 1.0, "tcp", ("--latency", 0.15, 0.4), LOOPS),
    Scenario("dead", 32, 1.0, "rtu", ("--dead", DEAD_UNIT), (("pymodbus, fixed grid", "absolute"),)),
)


class Kept(NamedTuple):
    """How the grid was kept, over all units; jitter and drift in ms."""

    due: int
    missed: int
    missed_late: int
    jitter_p50: float
    jitter_p99: float
    drift: float

    @property
    def share(self) -> float:
        """The share of samples missed."""
        return self.missed / self.due

    @property
    def share_late(self) -> float:
        """The same of the second half, when the start is over."""
        return self.missed_late * 2 / self.due


def match(found: Sequence[float], start: float, interval: float, slots: int) -> dict[int, float]:
    """Which request serves which slot of the grid, and its distance from it in s.

    A request serves the earliest slot that is still to be served and less than an interval ago. So one that is late
    takes nothing from its successor.
    """
    taken: dict[int, float] = {}
    following = 0
    for one in found:
        slot = max(following, math.floor((one - start) / interval - 1) + 1)
        if slot >= slots:
            break
        distance = one - start - slot * interval
        if distance < -interval / 2:
            # More often than asked for.
            continue
        taken[slot] = distance
        following = slot + 1
    return taken


def judge(arrivals: dict[str, Sequence[float]], interval: float, end: float) -> Kept:
    """Hold the requests of each unit against its grid. `missed_late` are those of the second half."""
    due = missed = missed_late = 0
    jitters: list[float] = []
    drifts: list[float] = []
    begin = min(found[0] for found in arrivals.values())
    for found in arrivals.values():
        first = found[0]
        phases = [(one - first + interval / 2) % interval - interval / 2 for one in found[:FIRST]]
        start = first + statistics.median(phases)
        # A unit that was kept waiting at the beginning has missed samples too.
        start -= max(math.floor((start - begin) / interval), 0) * interval
        slots = int((end - start) / interval)
        taken = match(found, start, interval, slots)
        due += slots
        missed += slots - len(taken)
        missed_late += sum(slot not in taken for slot in range(slots // 2, slots))
        jitters += map(abs, taken.values())
        drifts.append(found[-1] - first - (len(found) - 1) * interval)
    jitters.sort()
    return Kept(
        due,
        missed,
        missed_late,
        statistics.median(jitters) * MILLI,
        jitters[int(len(jitters) * 0.99)] * MILLI,
        statistics.median(drifts) * MILLI,
    )


def run(scenario: Scenario, folder: Path, broker: Broker, seconds: float) -> dict[str, Kept]:
    """All contenders of a scenario."""
    names = (("wattfleet", ""), *scenario.peers)
    if not scenario.apart:
        return run_together(scenario, names, folder, broker, seconds)
    found: dict[str, Kept] = {}
    for name in names:
        found |= run_together(scenario, (name,), folder, broker, seconds)
    return found


def run_together(
    scenario: Scenario, names: Sequence[tuple[str, str]], folder: Path, broker: Broker, seconds: float
) -> dict[str, Kept]:
    """Some of them, at the same time."""
    running: list[tuple[str, Contender, Child]] = []
    found: dict[str, Kept] = {}
    try:
        for name, kind in names:
            field = Field([free_port()], scenario.units, scenario.interval, scenario.framing)
            meters = Child(
                "meters", "--ports", field.ports[0], "--units", field.units, "--change", field.interval,
                "--framing", field.framing, "--record", *scenario.meters,
            )  # fmt: skip
            contender: Contender = Peer(folder, broker, name, kind) if kind else GatewayOnly(folder, broker)
            running.append((name, contender, meters))
            contender.start(field)
        time.sleep(seconds)
        for name, contender, meters in running:
            contender.check()
            end = time.monotonic() - scenario.interval
            arrivals = meters.ask("arrivals")
            dead = f"/{DEAD_UNIT}" if "--dead" in scenario.meters else "none"
            found[name] = judge(
                {unit: times for unit, times in arrivals.items() if not unit.endswith(dead)},
                scenario.interval,
                end,
            )
    finally:
        for _, contender, meters in running:
            contender.stop()
            meters.stop()
    return found


def results(scenario: Scenario, kept: dict[str, list[Kept]]) -> list[dict[str, Any]]:
    """Ours against each peer."""
    rows = []

    def middle(name: str, what: str) -> float:
        return statistics.median(float(getattr(one, what)) for one in kept[name])

    for peer, _ in scenario.peers:
        for what, unit in FIGURES:
            factor = 100.0 if unit == "%" else 1.0
            value, against = (middle(name, what) * factor for name in ("wattfleet", peer))
            label = LABELS.get(what, what.replace("_", " "))
            rows.append(
                {
                    "name": f"{scenario.name}: {label} against {peer}",
                    "value": round(value, 3),
                    "unit": unit,
                    "against": round(against, 3),
                    "ratio": round(value / against, 4) if against else None,
                }
            )
    return rows


def show(scenario: Scenario, kept: dict[str, list[Kept]], seconds: float) -> None:
    """The table of a scenario."""
    rate = f"{1 / scenario.interval:g} Hz, {scenario.units} units, {seconds:g} s"
    print(f"\n{scenario.name}: {rate}, medians of {len(next(iter(kept.values())))}")
    print(
        f"{'':24}{'due':>7}{'missed':>8}{'':>8}{'2nd half':>9}{'jitter p50':>12}{'p99':>9}{'drift':>10}   ms"
    )
    for name, runs in kept.items():
        one = Kept(*(statistics.median(values) for values in zip(*runs, strict=True)))
        print(
            f"{name:24}{one.due:7.0f}{one.missed:8.0f}{one.share:8.1%}{one.missed_late:9.0f}"
            f"{one.jitter_p50:12.2f}{one.jitter_p99:9.2f}{one.drift:10.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Samples due, taken and missed, jitter and drift, against two peers."
    )
    parser.add_argument("--runs", type=int, default=5, help="runs of each scenario (default: 5)")
    parser.add_argument("--seconds", type=float, default=60, help="length of a run (default: 60)")
    parser.add_argument(
        "--scenarios", nargs="+", choices=[one.name for one in SCENARIOS], help="default: all"
    )
    parser.add_argument("--quick", action="store_true", help="one run of 20 s: for a look, not for the page")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.seconds = 1, 20.0
    build = ROOT / "build"
    (build / "bench").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-schedule-", dir=build))
    broker = Broker(folder)
    rows: list[dict[str, Any]] = []
    try:
        for scenario in SCENARIOS:
            if options.scenarios and scenario.name not in options.scenarios:
                continue
            runs = [run(scenario, folder, broker, options.seconds) for _ in range(options.runs)]
            kept = {name: [one[name] for one in runs] for name in runs[0]}
            show(scenario, kept, options.seconds)
            rows += results(scenario, kept)
    finally:
        broker.stop()
        shutil.rmtree(folder)
    target = build / "bench" / "schedule.json"
    target.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(f"\nWritten to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
