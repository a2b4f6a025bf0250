# SPDX-License-Identifier: Apache-2.0
"""What an audit has found: findings accuse, notes explain, and what could not be checked is said."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

# What is kept one by one; beyond that, findings of one site and kind are counted together.
MOST = 2000
# Progress is told after so long, and again and again, in s.
PATIENCE = 5.0
FLEET = "-"
"""In place of a site: it concerns all of them."""
Times = tuple[datetime, datetime]
"""Two times between which it was, in either order: clocks are set back, and what was changed may have been they"""


@dataclass(slots=True)
class Finding:
    """Something that was changed. The times are those of the readings where they are known, else those of the
    arrival at the hub or of what is beside it; `count` is of readings, batches, leaves or checkpoints, as the kind
    says."""

    site: str
    kind: str
    subject: str
    detail: str
    first: datetime
    last: datetime
    count: int = 1

    def widen(self, times: Times) -> None:
        self.first, self.last = min(self.first, *times), max(self.last, *times)


@dataclass
class Report:
    """All that an audit says; `checked` counts what was looked at."""

    findings: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    notes: dict[tuple[str, str], Finding] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)

    def find(
        self,
        site: str,
        kind: str,
        subject: str,
        detail: str,
        times: Times,
        count: int = 1,
    ) -> None:
        """Add a finding, which always has a time. What is found of one subject in two ways is one finding."""
        if len(self.findings) >= MOST and (site, kind, subject) not in self.findings:
            subject, detail = "more", "more of this kind"
        one = self.findings.get((site, kind, subject))
        if one is None:
            one = self.findings[site, kind, subject] = Finding(
                site, kind, subject, detail, min(times), max(times), count=0
            )
        elif detail not in one.detail and subject != "more":
            one.detail += f"; {detail}"
        one.count = one.count + count if subject == "more" else max(one.count, count)
        one.widen(times)

    def explain(self, site: str, kind: str, detail: str, times: Times, count: int = 1) -> None:
        """Something that looks odd and accuses nobody, by site and kind."""
        one = self.notes.get((site, kind))
        if one is None:
            one = self.notes[site, kind] = Finding(site, kind, "", detail, min(times), max(times), count=0)
        one.count += count
        one.widen(times)

    def count(self, what: str, number: int = 1) -> None:
        self.checked[what] = self.checked.get(what, 0) + number

    def sorted_findings(self) -> list[Finding]:
        return sorted(self.findings.values(), key=lambda one: (one.site, one.first, one.kind))

    def sorted_notes(self) -> list[Finding]:
        return [self.notes[key] for key in sorted(self.notes)]


class Progress:
    """Tells now and then how far it is, once it has taken longer than a person likes to wait."""

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self._say = say
        self._started = self._begun = time.monotonic()
        self._next = self._started + PATIENCE

    def begin(self) -> None:
        """Another part begins."""
        self._begun = time.monotonic()

    def tell(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._say is None or now < self._next:
            return
        self._next = now + PATIENCE
        rate = done / max(now - self._begun, 0.001)
        left = f", {(total - done) / rate:.0f} s left" if rate and total > done else ""
        self._say(f"{what}: {done:,} of {total:,}, {rate:,.0f}/s{left}")
