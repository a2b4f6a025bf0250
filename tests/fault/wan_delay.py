# SPDX-License-Identifier: Apache-2.0
"""Delivery over a link by satellite: 300 ms each way with jitter, and a modem's rate."""

from __future__ import annotations

import time

from tests.fault.report import FaultReport
from tests.fault.rig.delay import LongLink
from tests.fault.rig.ingest import WITHOUT_IDENTITY
from tests.fault.rig.namespaces import Wan
from tests.fault.rig.rig import PATIENCE, Rig, say
from tests.fault.wan_loss import KEEPS_UP, catch_up

DELAY, JITTER = 0.3, 0.04
RATE = 32_000.0  # bytes a second, each way: 256 kbit/s
AWAY = 5.0
STEADY = 6.0
# Two round trips more than on a short link: one for the batch and its PUBACK, one in reserve.
AGE = KEEPS_UP + 4 * (DELAY + JITTER)


def run(rounds: int) -> FaultReport:
    """The delivery keeps up, and catches up after the link was away."""
    report = FaultReport("wan-delay", rounds)
    with Wan(joined=False) as wan, _long_link(wan), Rig(wan=wan) as rig:
        rig.wait_for_delivery()
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: a round trip takes {2 * DELAY:g} s")
            ages = []
            end = time.monotonic() + STEADY
            while time.monotonic() < end:
                ages.append(time.time() - (rig.database.newest() or 0))
                time.sleep(0.5)
            report.figures["age_s"] = round(sorted(ages)[len(ages) // 2], 2)
            if report.figures["age_s"] > AGE:
                report.late += 1
                report.findings.append(f"the newest reading is {report.figures['age_s']} s old in the middle")
            say(f"round {number + 1} of {rounds}: the link is away")
            wan.switch(False)
            time.sleep(AWAY)
            wan.switch(True)
            report.faults += 1
            report.figures["catch_up_s"] = round(catch_up(rig), 1)
            if report.figures["catch_up_s"] >= PATIENCE:
                report.late += 1
                report.findings.append("the delivery does not catch up after the link was away")
        rig.finish(report)
    return report


def _long_link(wan: Wan) -> LongLink:
    return LongLink(wan, delay=DELAY, jitter=JITTER, rate=RATE)


def control() -> FaultReport:
    """Batches are sent again while their acknowledgement is on its way, and the hub does not know them again."""
    report = FaultReport("wan-delay-control", 1)
    with (
        Wan(joined=False) as wan,
        LongLink(wan, delay=3 * DELAY) as _,
        Rig(wan=wan, ingest=WITHOUT_IDENTITY) as rig,
    ):
        for _ in range(3):
            # Acknowledgements are 0.9 s on their way: what the database has last is still under way for the gateway.
            rig.wait_for_delivery()
            rig.persistence.kill()
            rig.persistence.start()
            report.faults += 1
        rig.wait_for_delivery()
        rig.finish(report, patience=10)
    return report
