# SPDX-License-Identifier: Apache-2.0
"""The hub's ingest is killed or restarted at random instants, while readings flow at 10 Hz."""

from __future__ import annotations

import random
import signal

from tests.fault.report import FaultReport
from tests.fault.rig.eager import EagerAcknowledger
from tests.fault.rig.rig import Rig, pause, say

AWAY = 3.0


def run(rounds: int) -> FaultReport:
    """What the broker holds for the ingest comes again, from the broker or from the gateway."""
    report = FaultReport("kill-ingest", rounds)
    with Rig() as rig:
        for number in range(rounds):
            # The first batches on a new connection, a commit under way, and the calm between two.
            pause(0, 2.5)
            sign = random.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
            say(f"round {number + 1} of {rounds}: {sign.name}")
            rig.ingest.stop(sign)
            report.faults += 1
            pause(0, AWAY)
            rig.ingest.start()
        rig.finish(report)
    return report


def control() -> FaultReport:
    """Batches are acknowledged before they are committed; the ingest dies, and the broker's queue with it."""
    report = FaultReport("kill-ingest-control", 1)
    with Rig(persistent_broker=False) as rig:
        rig.wait_for_delivery()
        with EagerAcknowledger(rig.broker, rig.ingest):
            rig.ingest.stop(signal.SIGKILL)
            pause(AWAY, AWAY)
        rig.broker.stop(signal.SIGKILL)
        report.faults = 2
        rig.broker.start()
        rig.ingest.start()
        rig.wait_for_delivery()
        rig.finish(report, patience=15)
    return report
