# SPDX-License-Identifier: Apache-2.0
"""The driver's loop: turn after turn until the rollout is over, begun anew after any end."""

from __future__ import annotations

import time
from collections.abc import Callable

from wattfleet.rollout.arm import AnsibleArm
from wattfleet.rollout.driver import Driver
from wattfleet.rollout.engine import Rollout
from wattfleet.rollout.folder import Folder
from wattfleet.rollout.ledger import Ledger
from wattfleet.rollout.states import ACTIVE, RolloutState

# At the latest after so many seconds there is another turn; at once, when something was heard.
TURN = 2.0
WAITS = (RolloutState.HOLDING, RolloutState.PAUSED)


def drive(
    folder: Folder,
    ledger: Ledger,
    name: str,
    arm: AnsibleArm,
    who: str,
    report: Callable[[Rollout], None],
    *,
    stay: bool = True,
) -> Rollout:
    """Drive a rollout until it is over; without `stay` also until nothing goes on without a person.

    Raises BusyError when another process drives it.
    """
    with folder.driving(name):
        driver = Driver(ledger, name, arm, who)
        try:
            while True:
                rollout = driver.turn(int(time.time() * 1000))
                report(rollout)
                if Driver.is_over(rollout) or (not stay and waits_for_a_person(rollout)):
                    return rollout
                arm.wake.wait(TURN)
        finally:
            arm.close()


def waits_for_a_person(rollout: Rollout) -> bool:
    """Whether it is paused or held, and nothing but gates that nobody decides is under way."""
    if rollout.state is RolloutState.PAUSED:
        return not any(rollout.by_state[state] for state in ACTIVE)
    return rollout.state is RolloutState.HOLDING
