# SPDX-License-Identifier: Apache-2.0
"""The driver's loop: turn after turn until the rollout is over, begun anew after any end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from wattfleet.rollout.driver import Arm, Driver
from wattfleet.rollout.engine import Rollout
from wattfleet.rollout.folder import Folder
from wattfleet.rollout.ledger import Ledger
from wattfleet.rollout.states import ACTIVE, RolloutState

# At the latest after so many seconds there is another turn; at once, when something was heard.
TURN = 2.0
WAITS = (RolloutState.HOLDING, RolloutState.PAUSED)


class DrivenArm(Arm, Protocol):
    """An arm that tells when there is something new."""

    def wait(self, seconds: float) -> None:
        """Until something was heard, at most so long."""

    def close(self) -> None:
        """End what is under way."""


def now_ms() -> int:
    """ms UTC."""
    return int(time.time() * 1000)


def drive(
    folder: Folder,
    ledger: Ledger,
    name: str,
    arm: DrivenArm,
    who: str,
    report: Callable[[Rollout], None],
    *,
    stay: bool = True,
    now: Callable[[], int] = now_ms,
) -> Rollout:
    """Drive a rollout until it is over; without `stay` also until nothing goes on without a person.

    Raises BusyError when another process drives it.
    """
    with folder.driving(name):
        driver = Driver(ledger, name, arm, who)
        try:
            while True:
                rollout = driver.turn(now())
                report(rollout)
                if Driver.is_over(rollout) or (not stay and waits_for_a_person(rollout)):
                    return rollout
                arm.wait(TURN)
        finally:
            arm.close()


def waits_for_a_person(rollout: Rollout) -> bool:
    """Whether it is paused or held, and nothing but gates that nobody decides is under way."""
    if rollout.state is RolloutState.PAUSED:
        return not any(rollout.by_state[state] for state in ACTIVE)
    return rollout.state is RolloutState.HOLDING
