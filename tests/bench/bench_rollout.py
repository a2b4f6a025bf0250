# SPDX-License-Identifier: Apache-2.0
"""What a rollout's ledger costs for a site, how long a killed controller takes to go on, and what it keeps in memory.

    .venv/bin/python tests/bench/bench_rollout.py [--sites 5000] [--runs 3]

The engine and the ledger are the real ones, the fleet is simulated in virtual time. A site's work is the time of this
process over the whole rollout, without what the simulation itself takes, divided by the sites: by the clock, waiting
for the disk included, and by the CPU, which a loaded machine does not lengthen;
`against` is what as many bare transactions of one row with `synchronous=FULL` as there were turns take on the same disk
in the same run. The resume is a driver that knows nothing, until its first turn has ended. Memory is that of this
process, the simulated fleet included: with more sites it holds more of them, and within a rollout it must not grow.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from wattfleet.paths import BUILD
from wattfleet.rollout.driver import Driver
from wattfleet.rollout.ledger import Ledger
from wattfleet.rollout.model import Settings

from tests.unit.controller.rollout.support import NAME, START, TURN, fleet_of, planned, some

SETTINGS = Settings(
    max_offline=200, soak=60, growth=3, install_deadline=300, reboot_deadline=300, transfer_deadline=3600
)


class Timed:
    """The simulated fleet, and the seconds that were spent in it."""

    def __init__(self, fleet: object) -> None:
        self.fleet = fleet
        self.seconds = 0.0
        self.cpu = 0.0

    def __getattr__(self, name: str) -> object:
        method = getattr(self.fleet, name)

        def timed(*arguments: object) -> object:
            started, busy = time.perf_counter(), time.process_time()
            try:
                return method(*arguments)
            finally:
                self.seconds += time.perf_counter() - started
                self.cpu += time.process_time() - busy

        return timed


def whole(folder: Path, count: int) -> dict[str, float]:
    """One rollout over `count` sites."""
    sites = some(count)
    fleet = fleet_of(sites)
    ledger = Ledger(folder / "ledger.db")
    started, busy = time.perf_counter(), time.process_time()
    planned(ledger, sites, SETTINGS)
    arm = Timed(fleet)
    driver = Driver(ledger, NAME, arm, "bench")  # type: ignore[arg-type]  # a simulated arm
    fleet.now = START
    turns, resumed, halfway, begun, most = 0, 0.0, False, 0.0, 0.0
    while True:
        fleet.now += TURN
        rollout = driver.turn(fleet.now)
        turns += 1
        begun = begun or resident()
        most = max(most, resident())
        if Driver.is_over(rollout):
            break
        if not halfway and rollout.wave >= len(rollout.waves) // 2:
            halfway = True
            before = time.perf_counter()
            again = Ledger(folder / "ledger.db")
            Driver(again, NAME, arm, "bench").turn(fleet.now)  # type: ignore[arg-type]  # a simulated arm
            again.close()
            resumed = time.perf_counter() - before
    seconds = time.perf_counter() - started - arm.seconds
    cpu = time.process_time() - busy - arm.cpu
    entries = int(ledger.head().split(":")[0])
    before = time.perf_counter()
    assert ledger.verify() == []
    verified = time.perf_counter() - before
    assert rollout.state.value == "done"
    return {
        "seconds": seconds,
        "cpu": cpu,
        "entries": entries,
        "turns": turns,
        "resume": resumed,
        "begun": begun,
        "most": most,
        "verify": verified,
        "bytes": sum(file.stat().st_size for file in folder.glob("ledger.db*")),
    }


def resident() -> float:
    """MiB of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def bare(folder: Path, count: int) -> float:
    """Seconds for `count` transactions of one row."""
    database = sqlite3.connect(folder / "bare.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE one (text TEXT)")
    started = time.perf_counter()
    for number in range(count):
        database.execute("INSERT INTO one VALUES (?)", (f"{number:0200}",))
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description="What a rollout's ledger costs.")
    parser.add_argument("--sites", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    results = []
    memory = []
    BUILD.mkdir(exist_ok=True)
    for size in (options.sites // 10, options.sites):
        for _ in range(options.runs if size == options.sites else 1):
            with tempfile.TemporaryDirectory(dir=BUILD) as folder:
                one = whole(Path(folder), size)
                one["bare"] = bare(Path(folder), int(one["turns"]))
                one["sites"] = size
                results.append(one)
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    full = [one for one in results if one["sites"] == options.sites]

    def median(key: str) -> float:
        return statistics.median(one[key] for one in full)

    per_site = 1000 * median("seconds") / options.sites
    rows = [
        ("ledger work a site", per_site, "ms", 1000 * median("bare") / options.sites),
        ("of it CPU", 1000 * median("cpu") / options.sites, "ms", None),
        ("resume after a kill", median("resume"), "s", None),
        ("verification of the whole ledger", median("verify"), "s", None),
        ("entries a site", median("entries") / options.sites, "", None),
        ("size of the ledger a site", median("bytes") / options.sites / 1024, "KiB", None),
        (f"memory at {options.sites // 10} sites", memory[0], "MiB", None),
        (f"memory at {options.sites} sites", memory[1], "MiB", memory[0]),
        ("most in a rollout against its first turn", full[0]["most"], "MiB", full[0]["begun"]),
    ]
    written = []
    for name, value, unit, against in rows:
        ratio = value / against if against else None
        written.append({"name": name, "value": value, "unit": unit, "against": against, "ratio": ratio})
        print(f"{name:40} {value:10.3f} {unit:4}" + (f"  {ratio:6.2f} times {against:.3f}" if ratio else ""))
    output = BUILD / "bench" / "rollout.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(written, indent=2) + "\n")
    print(f"Written to {output.relative_to(BUILD.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
