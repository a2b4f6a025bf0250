# SPDX-License-Identifier: Apache-2.0
"""Drives a rollout: reads the ledger, lets the engine decide, writes, and only then acts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from wattfleet.rollout.engine import Command, Rollout, Seen, commands, decide
from wattfleet.rollout.gates import Verdict
from wattfleet.rollout.ledger import Ledger, Step, after
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
    """One rollout under way. `turn` is called again and again; `who` stands in the ledger."""

    def __init__(self, ledger: Ledger, name: str, arm: Arm, who: str) -> None:
        self.ledger = ledger
        self.name = name
        self.arm = arm
        self.who = who
        self._rollout: Rollout | None = None
        self._number = 0

    def turn(self, now: int) -> Rollout:
        """One round at `now` (ms UTC); the rollout as it is afterwards."""
        rollout = self._current()
        seen = self.arm.seen()
        soaking = [name for name, record in rollout.sites.items() if record.state == SiteState.SOAKING.value]
        verdicts = self.arm.verdicts(rollout, soaking)
        steps = decide(rollout, now, seen, verdicts, self.arm.open_windows(rollout, now))
        if steps:
            self.ledger.write(steps, at=now, who=self.who)
            rollout = self._after(rollout, steps, now)
        self.arm.carry_out(rollout, commands(rollout))
        return rollout

    def _current(self) -> Rollout:
        """From memory, unless somebody else has written meanwhile: a person who pauses, for one."""
        number = self.ledger.number
        if self._rollout is None or number != self._number:
            self._rollout = load(self.ledger, self.name)
            self._number = number
        return self._rollout

    def _after(self, rollout: Rollout, steps: Iterable[Step], now: int) -> Rollout:
        sites, record, count = dict(rollout.sites), rollout.record, 0
        for step in steps:
            count += 1
            if step.site:
                sites[step.site] = after(sites[step.site], now, step)
            else:
                record = after(record, now, step)
        self._rollout = replace(rollout, record=record, sites=sites)
        self._number += count
        return self._rollout

    @staticmethod
    def is_over(rollout: Rollout) -> bool:
        """Whether nothing more will happen by itself."""
        busy = any(SiteState(record.state) in ACTIVE for record in rollout.sites.values())
        return rollout.state in OVER and not busy
