# SPDX-License-Identifier: Apache-2.0
"""The plug of a gateway is pulled while readings flow, and put in again. Nobody does anything else."""

from __future__ import annotations

import random
import time

from tests.fault.kill_services import SETTLE, UNCOMMITTED
from tests.fault.report import FaultReport
from tests.fleet.fleet import Fleet

DARK = 3.0


def run(fleet: Fleet, rounds: int) -> FaultReport:
    """Cut one site a round at a random instant, then count both ends of all sites."""
    report = FaultReport("power-cut", rounds)
    start = time.time()
    excused: dict[str, list[tuple[float, float]]] = {site: [] for site in fleet.sites}
    for number in range(rounds):
        site = random.choice(list(fleet.sites))
        print(f"    round {number + 1} of {rounds}: {site}", flush=True)
        time.sleep(random.uniform(5, 15))
        before = time.time()
        fleet.lab("cut", site)
        excused[site].append((before - UNCOMMITTED, time.time()))
        report.faults += 1
        time.sleep(DARK)
        fleet.lab("start", site)
        time.sleep(20)
        if not fleet.reachable(site):
            report.locked_out += 1
    end = time.time()
    print(f"    waiting {SETTLE:.0f} s for what is still under way", flush=True)
    time.sleep(SETTLE)
    for site in fleet.sites:
        report.add(site, fleet.both_ends(site, start, end, excused[site]))
    return report
