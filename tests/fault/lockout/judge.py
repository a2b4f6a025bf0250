# SPDX-License-Identifier: Apache-2.0
"""Whether a host is as it was, or as a good change wanted it, and whether everybody says the same about it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from tests.fault.lockout.changes import Change

Look = dict[str, str]
# States of a host after a change.
BEFORE, KEPT, NEITHER = "before", "kept", "neither"
# What can be wrong with a round, the worst first.
WRONG = ("lost", "late", "inexact", "wrong")


@dataclass
class Outcome:
    """How one round ended. Times are in seconds; `returned` is None where nothing was armed, or nothing came back."""

    number: int
    seed: str
    host: str
    kind: str
    text: str
    deaths: list[str]
    armed: bool = False
    state: str = NEITHER
    reported: str = ""
    recorded: list[str] = field(default_factory=list)
    wait: float = 0.0
    returned: float | None = None
    seconds: float = 0.0
    # The worst of WRONG, or nothing.
    failure: str = ""
    findings: list[str] = field(default_factory=list)

    def fail(self, how: str, finding: str) -> None:
        """Note what is wrong; the worst is what the round counts as."""
        if not self.failure or WRONG.index(how) < WRONG.index(self.failure):
            self.failure = how
        self.findings.append(f"{how}: {finding}")


def differences(expected: Look, found: Look) -> list[str]:
    """Keys in which two looks differ, with both values."""
    keys = sorted({*expected, *found})
    return [
        f"{key}: {expected.get(key, 'absent')} | {found.get(key, 'absent')}"
        for key in keys
        if expected.get(key) != found.get(key)
    ]


def wanted(change: Change, before: Look, found: Look) -> Look:
    """The look of a host on which a good change was kept. What the change may move as well is taken as found."""
    expected = dict(before)
    for key in {*before, *found}:
        if any(re.fullmatch(pattern, key) for pattern in change.may):
            _set(expected, key, found.get(key))
    for key, value in change.wanted.items():
        if isinstance(value, dict):
            value = json.dumps({**json.loads(before[key]), **value}, sort_keys=True)
        _set(expected, key, value)
    return expected


def state(change: Change, before: Look, found: Look) -> tuple[str, list[str]]:
    """Which of the states a host is in, and, for NEITHER, how it differs from what it was."""
    from_before = differences(before, found)
    if not from_before:
        return BEFORE, []
    if not change.good:
        return NEITHER, from_before
    from_wanted = differences(wanted(change, before, found), found)
    return (KEPT, []) if not from_wanted else (NEITHER, min(from_before, from_wanted, key=len))


def verdict(outcome: Outcome, change: Change, survived: bool, ok: bool) -> None:
    """Hold the host's state, the guard's history and the play's report against each other.

    `survived` says that the play was not killed, `ok` that it ended without a failure.
    """
    died = bool(outcome.deaths)
    if change.good and not died and outcome.state != KEPT:
        outcome.fail("wrong", f"a good change was not kept, and nothing had died: {outcome.reported}")
    if outcome.state == NEITHER:
        return
    settled = {KEPT: "confirmed", BEFORE: "undone"}[outcome.state]
    if outcome.armed and outcome.recorded != [settled]:
        outcome.fail(
            "wrong", f"the host is {outcome.state}, its history says {outcome.recorded or 'nothing'}"
        )
    if not outcome.armed and outcome.recorded:
        outcome.fail("wrong", f"nothing was armed, and the history says {outcome.recorded}")
    if not survived:
        return
    if outcome.reported not in ("", "unknown", settled):
        outcome.fail("wrong", f"the host is {outcome.state}, the play reports {outcome.reported}")
    if ok and outcome.state != KEPT:
        outcome.fail("wrong", f"the host is {outcome.state}, and the play did not fail")
    if not died and outcome.armed and outcome.reported != settled:
        outcome.fail("wrong", f"nothing had died, and the play reports {outcome.reported or 'nothing'}")


def _set(look: Look, key: str, value: str | None) -> None:
    if value is None:
        look.pop(key, None)
    else:
        look[key] = value
