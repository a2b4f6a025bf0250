# SPDX-License-Identifier: Apache-2.0
"""What a worker counts. Each has one thread that writes; whoever reads them may see a batch a little early."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from energy_hub.behind import Behind
from energy_hub.store import Committed

# s. A commit waits for the disk; a batch of a gateway that was away is days old.
COMMIT_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DELAY_BOUNDS = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)

# How a batch may end; one of them is counted for each that was looked at.
COMMITTED, REPEATED, FORKED, QUARANTINED = "committed", "repeated", "forked", "quarantined"
UNREADABLE, UNTRUSTED, REFUSED, LEFT = "unreadable", "untrusted", "refused", "left"
SCATTERED = "scattered"
OUTCOMES = (COMMITTED, REPEATED, FORKED, QUARANTINED, UNREADABLE, UNTRUSTED, REFUSED, LEFT, SCATTERED)
EVIDENCE = ("chain-broken", "fork", "conflict", "unit-changed")
WAITED, LET_GO, STATUS = "waited", "let-go", "status"
OVER_QUOTA = (WAITED, LET_GO, STATUS)


class Histogram:
    """Counts by the upper bounds that they are not above, and the sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


def _zeros(names: Sequence[str]) -> Counter[str]:
    """All keys at once: a reader in another thread never meets one that is being added."""
    return Counter(dict.fromkeys(names, 0))


@dataclass(slots=True)
class Figures:
    """Of one database."""

    batches: Counter[str] = field(default_factory=lambda: _zeros(OUTCOMES))
    evidence: Counter[str] = field(default_factory=lambda: _zeros(EVIDENCE))
    readings: int = 0
    commits: Histogram = field(default_factory=lambda: Histogram(COMMIT_BOUNDS))
    delays: Histogram = field(default_factory=lambda: Histogram(DELAY_BOUNDS))
    # Unix seconds; of the start before the first commit, or a worker that never gets as far would be no alert.
    last_commit: float = field(default_factory=time.time)
    # Number of the newest migration, as it was when the database was last connected to.
    migration: int = 0
    # Notes that wait for the rollups, up to a bound; Unix seconds of the commit of the oldest, when one last looked.
    notes: int = 0
    waiting_since: float = field(default_factory=time.time)
    # Unix seconds, of the start before the first one; None for a database that has none of its own.
    last_checkpoint: float | None = field(default_factory=time.time)

    def add(self, result: Committed, seconds: float) -> None:
        """A commit that took so long."""
        now = time.time()
        if result.streams:
            self.last_commit = now
            self.commits.observe(seconds)
        self.readings += result.readings
        for outcome, count in (
            (COMMITTED, result.batches - result.quarantined),
            (REPEATED, result.duplicates),
            (FORKED, result.forks),
            (QUARANTINED, result.quarantined),
            (SCATTERED, len(result.scattered)),
        ):
            self.batches[outcome] += count
        for kind, count in result.evidence.items():
            self.evidence[kind] += count
        for newest in result.newest:
            # A gateway whose clock is fast measures in the future.
            self.delays.observe(max(0.0, now - newest / 1000))

    def behind(self, found: Behind) -> None:
        """How far the others are behind."""
        self.notes = found.notes
        self.waiting_since = found.since
        if self.last_checkpoint is not None and found.checkpoint is not None:
            self.last_checkpoint = found.checkpoint


def over_quota() -> Counter[str]:
    """Messages of sites that sent too much."""
    return _zeros(OVER_QUOTA)
