# SPDX-License-Identifier: Apache-2.0
"""The time that readings carry: UTC in ms, never standing still long enough to give a point the same time
twice."""

from __future__ import annotations

import time
from collections.abc import Callable

# The clock counts as right while the system clock is at most so far behind what we have already used, in ms.
TOLERANCE_MS = 1000


class SourceClock:
    """Follows the system clock forwards; when that is set back, runs at half speed until it has caught up.

    It starts no earlier than `floor`, the newest time in the buffer, so that a gateway that boots in 1970
    goes on from there.
    While the system clock is more than a second behind, `is_right` is False and readings carry
    `uncertain_clock`.
    """

    def __init__(
        self,
        floor: int = 0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._last = float(floor)
        self._mark = monotonic()
        self.is_right = True

    def now(self) -> int:
        """Milliseconds since 1970, never less than before."""
        wall, mark = self._wall() * 1000, self._monotonic()
        elapsed = (mark - self._mark) * 1000
        self._mark = mark
        self.is_right = wall >= self._last - TOLERANCE_MS
        self._last = wall if wall >= self._last else self._last + elapsed / 2
        return int(self._last)


class Stamper:
    """Gives the requests of one meter strictly increasing times; a point is read by one request a poll at
    most."""

    def __init__(self, clock: SourceClock, floor: int = 0) -> None:
        self._clock = clock
        self._last = floor

    def __call__(self) -> int:
        """The time of a request."""
        self._last = max(self._clock.now(), self._last + 1)
        return self._last
