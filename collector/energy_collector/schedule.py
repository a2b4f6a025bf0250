# SPDX-License-Identifier: Apache-2.0
"""When to poll: at multiples of the interval from a fixed start, so that nothing drifts; and how long to
leave a dead unit alone."""

from __future__ import annotations

MAX_BACKOFF = 300.0
# The first failures are repeated at the normal rate: a lost answer is no dead unit.
PATIENCE = 3


class Schedule:
    """Due times of one meter on the monotonic clock, in s."""

    def __init__(self, start: float, interval: float) -> None:
        self._start = start
        self._interval = interval
        self._index = 0
        self.missed = 0

    @property
    def due(self) -> float:
        """When the next poll is due."""
        return self._start + self._index * self._interval

    def advance(self, now: float) -> None:
        """Go to the next due time after a poll; those that have passed meanwhile are counted in `missed`."""
        self._index += 1
        if now > self.due + self._interval:
            behind = int((now - self.due) / self._interval)
            self.missed += behind
            self._index += behind


class Backoff:
    """Leaves a unit alone longer and longer while it does not answer: from twice the interval up to five
    minutes."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._until = 0.0
        self.failures = 0

    def may_ask(self, now: float) -> bool:
        """Whether the unit is to be asked at `now`."""
        return now >= self._until

    def succeeded(self) -> None:
        """The unit has answered."""
        self.failures = 0
        self._until = 0.0

    def failed(self, now: float) -> None:
        """The unit has not answered."""
        self.failures += 1
        if self.failures >= PATIENCE:
            doubled = self._interval * 2.0 ** min(self.failures - PATIENCE + 1, 20)
            # A little less than the whole, so that the poll that falls on the end of the wait is not skipped.
            self._until = now + min(doubled, MAX_BACKOFF) - self._interval / 2
