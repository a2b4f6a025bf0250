# SPDX-License-Identifier: Apache-2.0
"""The WAN loses 5, 20 and 40 % of its packets both ways, and is away altogether for a time.

The delivering service is in one network namespace, broker and ingest are in another.
"""

from __future__ import annotations

import time

from tests.fault.report import FaultReport
from tests.fault.rig.ingest import WITHOUT_IDENTITY
from tests.fault.rig.namespaces import Wan
from tests.fault.rig.rig import PATIENCE, Rig, pause, say

LOSSES = (5.0, 20.0, 40.0)
SECONDS = 5.0
AWAY = 6.0
# The newest reading in the database is at most so old when the delivery keeps up: a batch spans 1 s, and is sealed,
# sent and committed within one more. Twice that for a busy machine.
KEEPS_UP = 4.0


def catch_up(rig: Rig) -> float:
    """Seconds until what is measured from now on is committed, and no later than usual; it has `PATIENCE` for it."""
    start = time.time()
    while time.time() - start < PATIENCE:
        newest = rig.database.newest() or 0
        if newest > start and time.time() - newest < KEEPS_UP:
            break
        time.sleep(0.2)
    return time.time() - start


def run(rounds: int) -> FaultReport:
    """All three losses and one absence a round; then the delivery has to keep up again."""
    report = FaultReport("wan-loss", rounds)
    with Wan() as wan, Rig(wan=wan) as rig:
        rig.wait_for_delivery()
        for number in range(rounds):
            for loss in LOSSES:
                say(f"round {number + 1} of {rounds}: {loss:g} % lost")
                wan.lose(loss)
                before = rig.database.number_of_readings()
                time.sleep(SECONDS)
                rate = (rig.database.number_of_readings() - before) / SECONDS
                report.figures[f"readings_per_s_at_{loss:g}"] = round(rate, 1)
                report.faults += 1
            wan.lose(0)
            say(f"round {number + 1} of {rounds}: the WAN is away")
            wan.switch(False)
            pause(AWAY / 2, AWAY)
            wan.switch(True)
            report.faults += 1
            took = catch_up(rig)
            report.figures["catch_up_s"] = max(report.figures.get("catch_up_s", 0), round(took, 1))
            if took >= PATIENCE:
                report.late += 1
                report.findings.append(
                    f"the delivery does not keep up {PATIENCE:g} s after the WAN has come back"
                )
        rig.finish(report)
    return report


def control() -> FaultReport:
    """Acknowledgements do not get through for a while, and the hub does not know a batch again."""
    report = FaultReport("wan-loss-control", 1)
    with Wan() as wan, Rig(wan=wan, ingest=WITHOUT_IDENTITY) as rig:
        rig.wait_for_delivery()
        wan.lose(100, to_hub=False)
        # So long that TCP gives nothing up yet, and batches become due again.
        time.sleep(5)
        wan.switch(False)
        rig.persistence.kill()
        wan.lose(0)
        wan.switch(True)
        rig.persistence.start()
        report.faults = 1
        rig.wait_for_delivery()
        rig.finish(report, patience=10)
    return report
