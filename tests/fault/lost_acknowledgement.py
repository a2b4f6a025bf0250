# SPDX-License-Identifier: Apache-2.0
"""Acknowledgements and PUBACKs are lost, and connections are reset in the middle of a batch.

The hub has then committed what the gateway believes to be under way: it comes again, and is not stored again.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fault.report import FaultReport
from tests.fault.rig.ingest import WITHOUT_IDENTITY
from tests.fault.rig.process import wait_for
from tests.fault.rig.relay import Mode
from tests.fault.rig.rig import PATIENCE, Rig, pause, say


def _broker_drops_acknowledgements(rig: Rig) -> None:
    rig.broker.drop_acknowledgements(True)
    pause(2.5, 4)  # longer than the time after which a batch is sent again
    rig.broker.drop_acknowledgements(False)


def _acknowledgement_is_lost(rig: Rig) -> None:
    rig.relay.mode = Mode.EAT_ACKNOWLEDGEMENTS
    pause(1, 3)
    rig.relay.reset()


def _puback_is_lost(rig: Rig) -> None:
    rig.relay.mode = Mode.EAT
    pause(0.5, 2)
    rig.relay.reset()


def _reset_in_mid_batch(rig: Rig) -> None:
    rig.relay.cut_in(random.randrange(1, 4000))
    wait_for(lambda: rig.relay.cut_is_done, "so many bytes are sent", PATIENCE)


WAYS: dict[str, Callable[[Rig], None]] = {
    "the broker drops acknowledgements": _broker_drops_acknowledgements,
    "an acknowledgement is lost": _acknowledgement_is_lost,
    "PUBACKs are lost": _puback_is_lost,
    "a reset in mid-batch": _reset_in_mid_batch,
}


def run(rounds: int) -> FaultReport:
    """One of the four a round, in turn."""
    report = FaultReport("lost-acknowledgement", rounds)
    with Rig(relayed=True) as rig:
        rig.wait_for_delivery()
        for number in range(rounds):
            what = list(WAYS)[number % len(WAYS)]
            say(f"round {number + 1} of {rounds}: {what}")
            WAYS[what](rig)
            report.faults += 1
            rig.wait_for_delivery()
        report.figures |= {"resets": rig.relay.resets, "records_eaten": rig.relay.eaten}
        rig.finish(report)
    return report


def control() -> FaultReport:
    """A hub that does not know a batch again."""
    report = FaultReport("lost-acknowledgement-control", 1)
    with Rig(relayed=True, ingest=WITHOUT_IDENTITY) as rig:
        rig.wait_for_delivery()
        for what in WAYS.values():
            what(rig)
            report.faults += 1
            rig.wait_for_delivery()
        rig.finish(report, patience=10)
    return report
