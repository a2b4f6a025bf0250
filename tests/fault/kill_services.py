# SPDX-License-Identifier: Apache-2.0
"""kill -9 of both gateway services and of the ingest, at random instants, while readings flow.

Nothing that was committed to a buffer may be lost, and nothing may be stored twice.
"""

from __future__ import annotations

import random
import time

from tests.fault.report import FaultReport
from tests.fleet.fleet import Fleet

# s, after which the hub has what was read before: a batch, its repetition when it was lost, its commit.
SETTLE = 60.0
# s; between the meter's answer and the commit to the buffer a reading is in the polling service's memory only.
UNCOMMITTED = 1.5


def run(fleet: Fleet, rounds: int) -> FaultReport:
    """Kill all three services of every site once a round, then count both ends."""
    report = FaultReport("kill-services", rounds)
    start = time.time()
    excused: dict[str, list[tuple[float, float]]] = {site: [] for site in fleet.sites}
    for number in range(rounds):
        print(f"    round {number + 1} of {rounds}", flush=True)
        for site in fleet.sites:
            before = fleet.kill(site, "energy-gateway.service")
            excused[site].append((before - UNCOMMITTED, time.time()))
            fleet.kill(site, "energy-persistence.service")
            report.faults += 2
        fleet.kill("hub", "energy-ingest.service")
        report.faults += 1
        time.sleep(random.uniform(10, 16))
    end = time.time()
    print(f"    waiting {SETTLE:.0f} s for what is still under way", flush=True)
    time.sleep(SETTLE)
    for site in fleet.sites:
        report.add(site, fleet.both_ends(site, start, end, excused[site]))
    return report
