# SPDX-License-Identifier: Apache-2.0
"""kill -9 of both services of the collector at random instants, while readings flow at 10 Hz.

A round is ten kills: 20 rounds are 200.
"""

from __future__ import annotations

import random

from tests.fault.report import FaultReport
from tests.fault.rig.rig import Rig, pause, say

KILLS = 10


def run(rounds: int) -> FaultReport:
    """Kill the one, the other, or both at once; nothing that was committed is lost, nothing is there twice."""
    report = FaultReport("kill-collector", rounds)
    with Rig() as rig:
        begun = 0
        while report.faults < rounds * KILLS:
            if report.faults >= begun * KILLS:
                begun += 1
                say(f"round {begun} of {rounds}: {rig.database.number_of_readings()} readings")
            which = random.choice(("gateway", "persistence", "both", "both"))
            if which != "persistence":
                rig.kill_gateway()
                report.faults += 1
            if which != "gateway" and report.faults < rounds * KILLS:
                rig.persistence.kill()
                report.faults += 1
            for one in (rig.gateway, rig.persistence):
                if not one.alive:
                    one.start()
            rig.wait_for_polls()
            # Kills come before the first commit, between two, and after some.
            pause(0, 1.1)
        rig.finish(report)
    return report


def control() -> FaultReport:
    """A buffer that does not hold what it committed: at the kill it is what it was seconds before."""
    report = FaultReport("kill-collector-control", 1)
    with Rig() as rig:
        rig.wait_for_delivery()
        rig.kill_collector()
        before = rig.keep_buffer()
        rig.start_collector()
        rig.wait_for_polls()
        pause(4, 5)
        rig.kill_collector()
        rig.rewind_buffer(before)
        rig.start_collector()
        rig.wait_for_polls()
        report.faults = 4
        pause(1, 2)
        rig.finish(report, patience=10)
    return report
