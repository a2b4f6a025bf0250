# SPDX-License-Identifier: Apache-2.0
"""The broker is restarted or killed, and may come back without its memory of sessions and queues."""

from __future__ import annotations

import random
import signal

from tests.fault.report import FaultReport
from tests.fault.rig.eager import EagerAcknowledger
from tests.fault.rig.rig import Rig, pause, say


def run(rounds: int) -> FaultReport:
    """Nothing depends on what a broker has promised to keep."""
    report = FaultReport("restart-broker", rounds)
    ways = [(sign, forgets) for sign in (signal.SIGTERM, signal.SIGKILL) for forgets in (False, True)]
    with Rig() as rig:
        for number in range(rounds):
            pause(0.5, 4)
            sign, forgets = ways[number % len(ways)] if rounds < 2 * len(ways) else random.choice(ways)
            memory = "without its memory" if forgets else "with its memory"
            say(f"round {number + 1} of {rounds}: {sign.name}, back {memory}")
            rig.broker.stop(sign)
            report.faults += 1
            if forgets:
                rig.broker.forget()
            pause(0, 1.5)
            rig.broker.start()
            rig.wait_for_delivery()
        rig.finish(report)
    return report


def control() -> FaultReport:
    """A gateway that takes the broker's receipt for the hub's: its batches die with the broker's memory."""
    report = FaultReport("restart-broker-control", 1)
    with Rig() as rig:
        rig.wait_for_delivery()
        # The ingest is away, so that what the broker has is nowhere else.
        rig.ingest.stop()
        with EagerAcknowledger(rig.broker, rig.ingest):
            pause(4, 4)
        rig.broker.stop(signal.SIGKILL)
        rig.broker.forget()
        report.faults = 1
        rig.broker.start()
        rig.ingest.start()
        rig.wait_for_delivery()
        rig.finish(report, patience=15)
    return report
