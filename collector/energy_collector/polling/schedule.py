# SPDX-License-Identifier: Apache-2.0
"""When to poll: at multiples of the interval from a fixed start, so that nothing drifts; how late polls were;
and how long to leave a dead unit alone."""

from __future__ import annotations

import asyncio
import math
import time
from array import array

MAX_BACKOFF = 300.0
# The first failures are repeated soon: a lost answer is no dead unit.
PATIENCE = 3
# A unit is not asked for again sooner than this, however short its interval is. In s.
LEAST_BACKOFF = 1.0
# The kernel's wait for events counts in whole milliseconds and rounds up.
GRANULARITY = 0.001
# Polls whose lateness is kept: 50 s at 10 Hz, more than an hour at one in 10 s.
REMEMBERED_POLLS = 512


async def sleep_until(moment: float) -> None:
    """Sleep until a moment of the monotonic clock, to some 0.1 ms.

    asyncio alone is up to a millisecond late and more. So it wakes us within the last millisecond, and that is
    slept away in the thread: no CPU is spent, and nobody else of this process is held up for longer.
    """
    rest = moment - time.monotonic()
    if rest > GRANULARITY:
        await asyncio.sleep(rest - GRANULARITY)
        rest = moment - time.monotonic()
    if rest > 0:
        time.sleep(rest)


class Schedule:
    """Due times of one meter on the monotonic clock, in s."""

    def __init__(self, start: float, interval: float) -> None:
        self._start = start
        self._index = 0
        self.interval = interval
        self.missed = 0
        self.due = start

    def advance(self, now: float) -> None:
        """Go to the next due time after a poll; those that have passed meanwhile are counted in `missed`."""
        self._index += 1
        # Counted from the start each time, so that no rounding adds up.
        self.due = self._start + self._index * self.interval
        if now > self.due + self.interval:
            behind = int((now - self.due) / self.interval)
            self.missed += behind
            self._index += behind
            self.due = self._start + self._index * self.interval


class Lateness:
    """How late the last polls were sent."""

    def __init__(self) -> None:
        self._last = array("d")
        self._oldest = 0

    def add(self, seconds: float) -> None:
        """A poll was sent so long after it was due."""
        if len(self._last) < REMEMBERED_POLLS:
            self._last.append(seconds)
        else:
            self._last[self._oldest] = seconds
            self._oldest = (self._oldest + 1) % REMEMBERED_POLLS

    def percentile(self, part: float) -> float | None:
        """So many ms late were `part` (0 to 1) of the last polls at most; None before the first one."""
        if not self._last:
            return None
        ordered = sorted(self._last)
        return round(ordered[max(math.ceil(part * len(ordered)) - 1, 0)] * 1000, 3)


class Backoff:
    """Leaves a unit alone longer and longer while it does not answer: from its interval up to five minutes.

    `until` is when it may be asked again; 0 while it is well.
    """

    def __init__(self, interval: float) -> None:
        self._first = max(interval, LEAST_BACKOFF)
        self.failed_at = 0.0
        self.until = 0.0
        self.failures = 0

    @property
    def wait(self) -> float:
        """The present wait, in s."""
        doublings = max(self.failures - PATIENCE + 1, 0)
        return min(self._first * 2.0 ** min(doublings, 20), max(MAX_BACKOFF, self._first))

    def succeeded(self) -> None:
        """The unit has answered."""
        self.failures = 0
        self.until = 0.0

    def failed(self, now: float) -> None:
        """The unit has not answered."""
        self.failures += 1
        self.failed_at = now
        self.until = now + self.wait

    def forgive(self) -> None:
        """Something else was the cause, and is over: ask again soon."""
        self.failures = min(self.failures, 1)
        self.until = 0.0
