# SPDX-License-Identifier: Apache-2.0
"""What a reading costs: our two services, Debian's collectd and a bare pymodbus loop poll the same simulated meters.

    .venv/bin/python tests/bench/bench_collector.py [--runs 5] [--window 20] [--rates 1 10] [--quick]

32 units with 100 registers each (tests/bench/rig/register_map.py), values walking at the meter's resolution. Ours is
what ships: the zipapp on Debian's Python, both services with their default settings, buffer on a disk, signed batches
over TLS 1.3 to mosquitto, each acknowledged by a stub. collectd has a message for each value, QoS 0, through the same
broker. The pymodbus loop only reads and scales: the floor of a prototype. It runs on the same Python as ours.

The contenders take turns, each started anew for every window, so that all see the same machine; figures are medians.
Arrangements: `one` endpoint with 32 units (a gateway to a field bus: the headline, since it is how so many meters are
wired, and since collectd asks it in one thread without a word on others) and `many`, 32 endpoints of one unit.
CPU is user and system time of all processes of a contender, from its process clocks; points are registers that the
meters have given out in the window. A contender that does not reach 95 % of the rate is shown with what it reached.
Writes build/bench/collector.json, a list of {name, value, unit, against, ratio}, and collector-raw.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "collector"), str(ROOT / "hub")]

from tests.bench.rig import cost
from tests.bench.rig.child import Child
from tests.bench.rig.contenders import Collectd, Contender, Field, Ours, Prototype
from tests.bench.rig.hub import Broker
from tests.ports import free_port

UNITS = 32
# A contender has come to its pace when a second brought so much of what is due; it gets so long for that, and then a
# little more for the first batches. In s.
PACE = 0.9
PATIENCE = 30.0
WARM_UP = 4.0
ENOUGH = 0.95
MEGA = 1e6
MICRO = 1e6


class Window(NamedTuple):
    """One measurement. CPU in s per 10,000 points, memory in MB at the end, `reached` the share of the points due."""

    cpu: float
    each: list[float]
    rss: float
    pss: float
    reached: float
    delivered: float


class Bench:
    """The parts that stay for the whole run."""

    def __init__(self, folder: Path) -> None:
        self.broker = Broker(folder)
        self.stub = Child("hub", folder, self.broker.port)

    def stop(self) -> None:
        """End them."""
        self.stub.stop()
        self.broker.stop()

    def window(self, contender: Contender, field: Field, meters: Child, length: float) -> Window:
        """Start a contender, let it come to its pace, measure, end it."""
        contender.start(field)
        try:
            wait_for_pace(field, meters)
            time.sleep(WARM_UP)
            contender.check()
            started = time.monotonic()
            before = [cost.cpu_seconds(pid) for pid in contender.pids]
            given, had = meters.ask("counts"), self.stub.ask("counts")
            time.sleep(length)
            after = [cost.cpu_seconds(pid) for pid in contender.pids]
            gives, has = meters.ask("counts"), self.stub.ask("counts")
            elapsed = time.monotonic() - started
            rss, pss = cost.total_memory(contender.pids)
            contender.check()
        finally:
            contender.stop()
        points = gives["registers"] - given["registers"]
        if not points:
            raise RuntimeError(f"{contender.name} asked for nothing in {length:g} s")
        each = [(end - begin) / points * 1e4 for begin, end in zip(before, after, strict=True)]
        # collectd sends a message for each value; ours are counted in the batches.
        arrived = has["readings"] - had["readings"] or has["messages"] - had["messages"]
        return Window(
            sum(each), each, rss / MEGA, pss / MEGA, points / (field.rate * elapsed), arrived / points
        )


def wait_for_pace(field: Field, meters: Child) -> None:
    """Until a contender is through with its start. One that never comes to its pace is measured as it is."""
    deadline = time.monotonic() + PATIENCE
    had, before = meters.ask("counts")["registers"], time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(max(1.0, field.interval))
        has, now = meters.ask("counts")["registers"], time.monotonic()
        if has - had >= PACE * field.rate * (now - before):
            return
        had, before = has, now


def measure(
    bench: Bench, contenders: list[Contender], field: Field, options: argparse.Namespace
) -> dict[str, list[Window]]:
    """Windows of all contenders, in turns."""
    arguments = ["--ports", *field.ports, "--units", field.units, "--change", field.interval]
    meters = Child("meters", *arguments)
    found: dict[str, list[Window]] = {one.name: [] for one in contenders}
    try:
        for _ in range(options.runs):
            for one in contenders:
                found[one.name].append(bench.window(one, field, meters, options.window))
    finally:
        meters.stop()
    return found


def median(windows: list[Window], what: str) -> float:
    """The median of one figure."""
    return statistics.median(float(getattr(one, what)) for one in windows)


def results(label: str, found: dict[str, list[Window]]) -> list[dict[str, Any]]:
    """Ours against each of the others."""
    ours = found[Ours.name]
    rows = []
    for name, windows in found.items():
        if name == Ours.name:
            continue
        reached = median(windows, "reached")
        note = "" if reached >= ENOUGH else f", which reached {reached:.0%} of the rate"
        for what, unit in (("cpu", "s per 10,000 points"), ("rss", "MB"), ("pss", "MB")):
            value, against = median(ours, what), median(windows, what)
            rows.append(
                {
                    "name": f"{label}: {what.upper()} against {name}{note}",
                    "value": round(value, 4 if what == "cpu" else 1),
                    "unit": unit,
                    "against": round(against, 4 if what == "cpu" else 1),
                    "ratio": round(value / against, 3),
                }
            )
    return rows


def show(label: str, found: dict[str, list[Window]]) -> None:
    """The table of one setting."""
    print(f"\n{label}, medians of {len(next(iter(found.values())))}")
    heads = (
        ("CPU s/10,000", 13),
        ("ratio", 7),
        ("RSS MB", 8),
        ("PSS MB", 8),
        ("reached", 9),
        ("delivered", 11),
    )
    print(" " * 12 + "".join(f"{text:>{width}}" for text, width in heads) + "  each µs/point")
    ours = median(found[Ours.name], "cpu")
    for name, windows in found.items():
        cpu = median(windows, "cpu")
        parts = [
            statistics.median(parts) * MICRO / 1e4
            for parts in zip(*(one.each for one in windows), strict=True)
        ]
        print(
            f"{name:12}{cpu:13.4f}{ours / cpu:7.2f}{median(windows, 'rss'):8.1f}{median(windows, 'pss'):8.1f}"
            f"{median(windows, 'reached'):9.1%}{median(windows, 'delivered'):11.1%}  "
            + " + ".join(f"{part:.2f}" for part in parts),
            flush=True,
        )


def release() -> Path:
    """The zipapp of this tree."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "build_release.py"), "collector"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"bench_collector: the release cannot be built:\n{done.stderr}")
    return Path(done.stdout.split()[0])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="CPU and memory for a reading, against collectd and pymodbus."
    )
    parser.add_argument("--runs", type=int, default=5, help="windows of each contender (default: 5)")
    parser.add_argument("--window", type=float, default=20, metavar="S", help="their length (default: 20)")
    parser.add_argument("--rates", type=float, nargs="+", default=[1, 10], metavar="HZ", help="default: 1 10")
    parser.add_argument("--arrangements", nargs="+", choices=["one", "many"], default=["one", "many"])
    parser.add_argument("--against", nargs="+", choices=["collectd", "pymodbus"], help="default: both")
    parser.add_argument(
        "--python", default="/usr/bin/python3", help="runs the release (default: /usr/bin/python3)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two short windows: for a look, not for the page"
    )
    options = parser.parse_args(arguments)
    if options.quick:
        options.runs, options.window = 2, 10.0
    return options


def main() -> None:
    options = parse()
    build = ROOT / "build"
    (build / "bench").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-collector-", dir=build))
    if cost.file_system(folder) in ("tmpfs", "ramfs"):
        sys.exit(
            f"bench_collector: {folder} is in memory; a durable commit has to cost what it costs on a disk"
        )
    pyz = release()
    bench = Bench(folder)
    rows: list[dict[str, Any]] = []
    raw: dict[str, Any] = {"machine": cost.machine(), "file_system": cost.file_system(folder)}
    try:
        ours, prototype = Ours(folder, bench.broker), Prototype(folder, bench.broker)
        ours.run_with(options.python, pyz)
        prototype.run_with(options.python, pyz)
        contenders = [ours, Collectd(folder, bench.broker), prototype]
        if options.against:
            contenders = [one for one in contenders if one is ours or one.name in options.against]
        for rate in options.rates:
            for arrangement in options.arrangements:
                endpoints = UNITS if arrangement == "many" else 1
                field = Field([free_port() for _ in range(endpoints)], UNITS // endpoints, 1 / rate)
                label = (
                    f"{rate:g} Hz, {endpoints} endpoint{'s' if endpoints > 1 else ''} x {field.units} units"
                )
                found = measure(bench, contenders, field, options)
                show(label, found)
                rows += results(label, found)
                raw[label] = {name: [one._asdict() for one in windows] for name, windows in found.items()}
    finally:
        bench.stop()
        shutil.rmtree(folder)
    for name, content in (("collector", rows), ("collector-raw", raw)):
        target = build / "bench" / f"{name}.json"
        target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print("\nWritten to build/bench/collector.json and collector-raw.json")


if __name__ == "__main__":
    main()
