# SPDX-License-Identifier: Apache-2.0
"""Gates: whether a site that runs a new release is as well as it was before.

Each check compares a figure of the soak time with the site's own baseline, the same figure from before. A gate passes
when every check that decides passes; it fails when one fails; else it is inconclusive, which holds the rollout and
never passes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

# Fewer samples than this prove nothing (after Kayenta's rule for canary analysis).
LEAST_SAMPLES = 50


class Outcome(StrEnum):
    """What a check or a gate says."""

    PASS = "pass"  # noqa: S105  (no password)
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Measure:
    """One figure of a site. None where it could not be had. `samples` are what `value` was computed from.

    The check passes while value <= limit, or value >= limit where `at_least` is set. `limit` comes from the
    site's own baseline, or is absolute. `dry_run`: shown, and decides nothing. `note` names the meter or service.
    """

    name: str
    value: float | None
    limit: float | None
    samples: int
    at_least: bool = False
    dry_run: bool = False
    needed: int = LEAST_SAMPLES
    note: str = ""

    @property
    def outcome(self) -> Outcome:
        if self.value is None or self.limit is None or self.samples < self.needed:
            return Outcome.INCONCLUSIVE
        within = self.value >= self.limit if self.at_least else self.value <= self.limit
        return Outcome.PASS if within else Outcome.FAIL

    def __str__(self) -> str:
        sign = "at least" if self.at_least else "at most"
        value = "unknown" if self.value is None else f"{self.value:g}"
        limit = "an unknown baseline" if self.limit is None else f"{self.limit:g}"
        name = f"{self.name} ({self.note})" if self.note else self.name
        note = " (dry run)" if self.dry_run else ""
        return f"{name} {value}, {sign} {limit} is right, {self.samples} samples: {self.outcome.value}{note}"


@dataclass(frozen=True)
class Verdict:
    """What a gate says, and why in one line."""

    outcome: Outcome
    why: str


def judge(measures: Iterable[Measure]) -> Verdict:
    """The gate over all measures. Without one that decides it is inconclusive."""
    deciding = [one for one in measures if not one.dry_run]
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        found = [one for one in deciding if one.outcome is outcome]
        if found:
            return Verdict(outcome, "; ".join(str(one) for one in found))
    if not deciding:
        return Verdict(Outcome.INCONCLUSIVE, "nothing was measured")
    return Verdict(Outcome.PASS, f"{len(deciding)} of {len(deciding)} checks passed")
