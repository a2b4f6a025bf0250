# SPDX-License-Identifier: Apache-2.0
"""What the stages between poller and buffer cost, and what statistics save.

    .venv/bin/python tests/bench/bench_stages.py [--meters 32] [--points 100] [--rate 10] [--seconds 30] [--runs 5]

Each meter brings its points in one record a sample: voltages, currents, powers, eight counters, the rest ordinary.
Times are CPU time of the stage alone, medians of the runs, in µs a sample of one point, against what the whole way of
a reading may cost. Bytes are those of a batch's compressed body, with the readings as they come and as
statistics.
Writes build/bench/stages.json, a list of {name, value, unit, against, ratio}.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from energy_collector.batches import batch
from energy_collector.config import MeterConfig
from energy_collector.journal import Faults
from energy_collector.reading import Layout, Record, readings
from energy_collector.stages.counters import Counters
from energy_collector.stages.power_quality import PowerQuality
from energy_collector.stages.stage import Chain, Stage
from energy_collector.stages.statistics import Statistics

ROOT = Path(__file__).parents[2]
START = 1_800_000_000_000
REPORT = 10.0
COUNTERS = 8
# What everything together may cost, from the poll to the broker, in µs a reading.
BUDGET = 6.8


def layout(meter: str, points: int) -> Layout:
    names = ["voltage_l1", "voltage_l2", "voltage_l3", "voltage_l1_l2", "voltage_l2_l3", "voltage_l3_l1"]
    units = ["V"] * 6
    for phase in ("_l1", "_l2", "_l3", ""):
        names += [f"current{phase}", f"active_power{phase}", f"apparent_power{phase}", f"power_factor{phase}"]
        units += ["A", "W", "V.A", "1"]
    names += [f"energy_{number}" for number in range(COUNTERS)]
    units += ["W.h"] * COUNTERS
    while len(names) < points:
        names.append(f"quantity_{len(names)}")
        units.append("Hz")
    return Layout(tuple(f"{meter}/{name}" for name in names[:points]), tuple(units[:points]))


def samples(options: argparse.Namespace) -> list[list[Record]]:
    """One list of records a poll: each meter has its own poll, as the poller gives them."""
    noise = random.Random(1)
    layouts = [layout(f"meter-{number}", options.points) for number in range(options.meters)]
    step = 1000 / options.rate
    polls = []
    for number in range(round(options.seconds * options.rate)):
        for one in layouts:
            values = []
            for unit in one.units:
                if unit == "V":
                    values.append(round(noise.gauss(230, 0.5), 1))
                elif unit == "W.h":
                    values.append(float(1_000_000 + number // 7))
                else:
                    values.append(round(noise.gauss(1000, 20), 1))
            polls.append([Record(one, START + round(number * step), values)])
    return polls


def stages(options: argparse.Namespace) -> dict[str, Callable[[], Stage]]:
    meters = [
        MeterConfig(
            f"meter-{number}", "hall", 1, "any", 1 / options.rate, report=REPORT, nominal_voltage=230.0
        )
        for number in range(options.meters)
    ]
    counters = {
        f"{meter.name}/energy_{number}": 4_294_967_295.0 for meter in meters for number in range(COUNTERS)
    }
    found: dict[str, Callable[[], Stage]] = {
        "counters": lambda: Counters(counters, None, Faults()),
        "power quality": lambda: PowerQuality(meters),
        "statistics": lambda: Statistics(meters, counters),
    }
    parts = list(found.values())
    found["all three"] = lambda: Chain([make() for make in parts])
    found["nothing configured"] = lambda: Chain(
        [Counters({}, None, Faults()), PowerQuality([]), Statistics([])]
    )
    return found


def cost(make: Callable[[], Stage], polls: list[list[Record]], runs: int) -> tuple[float, list[Record]]:
    """CPU seconds, and what came out."""
    times = []
    out: list[Record] = []
    for _ in range(runs):
        stage = make()
        out = []
        started = time.process_time()
        for records in polls:
            out += stage.take(records)
        out += stage.close()
        times.append(time.process_time() - started)
    return statistics.median(times), out


def packed(records: list[Record]) -> int:
    return len(zlib.compress(batch.encode_body("plant-a", batch.collect(readings(records)))))


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the stages between poller and buffer.")
    parser.add_argument("--meters", type=int, default=32)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--rate", type=float, default=10, help="samples a second")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    polls = samples(options)
    count = len(polls) * options.points
    print(f"{options.meters} meters x {options.points} points, {options.rate:g} a second: {count} samples")
    results: list[dict[str, Any]] = []
    made: dict[str, list[Record]] = {}
    for name, make in stages(options).items():
        seconds, made[name] = cost(make, polls, options.runs)
        value = seconds * 1e6 / count
        results.append(
            {
                "name": name,
                "value": round(value, 4),
                "unit": "µs",
                "against": BUDGET,
                "ratio": round(value / BUDGET, 4),
            }
        )
        share = 100 * value * options.meters * options.points * options.rate / 1e6
        print(f"{name:22}{value:8.3f} µs a sample{share:8.2f} % of a CPU")
    raw = [record for records in polls for record in records]
    for name, before, after in (
        ("readings", count, sum(len(record.values) for record in made["statistics"])),
        ("bytes", packed(raw), packed(made["statistics"])),
    ):
        results.append(
            {"name": name, "value": after, "unit": "1", "against": before, "ratio": round(after / before, 4)}
        )
        print(f"{name:22}{before:10} in{after:10} out{before / after:8.1f} to 1")
    target = ROOT / "build" / "bench" / "stages.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"Written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
