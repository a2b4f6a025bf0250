# SPDX-License-Identifier: Apache-2.0
"""Drives a rollout: reads the ledger, lets the engine decide, writes, and only then acts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from wattfleet.rollout.engine import Command, Rollout, Seen, commands, decide
from wattfleet.rollout.gates import Verdict
from wattfleet.rollout.ledger import Ledger, LedgerChangedError
from wattfleet.rollout.operations import load
from wattfleet.rollout.states import ACTIVE, OVER, SiteState


class Arm(Protocol):
    """What reaches the sites. Every method may be called again for the same attempt at any time."""

    def carry_out(self, rollout: Rollout, wanted: Iterable[Command]) -> None:
        """Begin, or go on with, what is wanted; does not wait for it."""

    def seen(self) -> Mapping[str, Seen]:
        """What was seen of sites since the last call."""

    def verdicts(self, rollout: Rollout, names: Iterable[str]) -> Mapping[str, Verdict]:
        """What the gates of soaking sites say now."""

    def open_windows(self, rollout: Rollout, now: int) -> Iterable[str]:
        """The sites that may be interrupted now, with time enough for an installation."""


class Driver:
    """One rollout under way. `turn` is called again and again; `who` stands in the ledger.

    `here` names the sites that this driver acts on, where these are not all.
    """

    def __init__(
        self, ledger: Ledger, name: str, arm: Arm, who: str, here: Collection[str] | None = None
    ) -> None:
        self.ledger = ledger
        self.name = name
        self.arm = arm
        self.who = who
        self.here = here
        self._rollout: Rollout | None = None
        self._listens_since: int | None = None

    def turn(self, now: int) -> Rollout:
        """One round at `now` (ms UTC); the rollout as it is afterwards."""
        seen = self.arm.seen()
        if self._listens_since is None:
            self._listens_since = now
        while True:
            rollout = self._current()
            verdicts = self.arm.verdicts(rollout, rollout.names((SiteState.SOAKING,)))
            windows = self.arm.open_windows(rollout, now)
            steps = decide(rollout, now, seen, verdicts, windows, self.here, self._listens_since)
            try:
                self.ledger.write(steps, at=now, who=self.who, following=rollout.number)
            except LedgerChangedError:
                # A person has paused it meanwhile, for one: what was decided may be wrong now.
                continue
            break
        if steps:
            self._rollout = rollout = rollout.advanced(steps, now)
        self.arm.carry_out(rollout, commands(rollout))
        return rollout

    def _current(self) -> Rollout:
        """From memory, unless somebody else has written meanwhile."""
        if self._rollout is None or self.ledger.number != self._rollout.number:
            self._rollout = load(self.ledger, self.name)
        return self._rollout

    @staticmethod
    def is_over(rollout: Rollout) -> bool:
        """Whether nothing more will happen by itself."""
        return rollout.state in OVER and not any(rollout.by_state[state] for state in ACTIVE)
