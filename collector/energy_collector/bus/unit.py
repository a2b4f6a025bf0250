# SPDX-License-Identifier: Apache-2.0
"""What a bus knows of one unit: how long it may take, and whether a late answer of it may still come."""

from __future__ import annotations

import time
from collections import Counter

from energy_collector.bus.requests import Request
from energy_collector.journal import log

# A slow unit is given more and more time, up to so much. In s.
MAX_TIMEOUT = 3.0
# An answer is slow beyond this part of the time-out, fast below that one; so many fast ones lower it again.
SLOW = 0.7
FAST = 0.4
FAST_ANSWERS = 20
# No unit is given less than this, however many wait: a unit on a serial line, or one that has not answered yet, and
# any other one. The longest of the last answers counts three times.
LEAST_SERIAL = 0.3
LEAST = 0.1
# An answer that comes later than so many time-outs after its request does not come any more.
LATEST_ANSWER = 3
# A journal line about a unit's time-out at most so often, in s.
TOLD_INTERVAL = 600.0


class Unit:
    """One unit of a bus. Times are on the monotonic clock, in s."""

    def __init__(self, bus: str, number: int, timeout: float, least: float = LEAST) -> None:
        """`least` is what any of its answers may take, whatever the last ones took."""
        self.number = number
        self.timeout = timeout
        self.counters: Counter[str] = Counter()
        # The longest of its last answers; None before the first one.
        self.longest: float | None = None
        # How long it holds a gateway up while it is dead, as the last such time has shown.
        self.hold = 0.0
        # The request whose answer may still come, and until when. It matters only where answers carry no
        # transaction id.
        self.late: Request | None = None
        self.late_until = 0.0
        self._bus = bus
        self._least = least
        self._configured = timeout
        self._fast = 0
        self._told = -TOLD_INTERVAL

    @property
    def least(self) -> float:
        """The time that it needs at least to show that it lives."""
        if self.longest is None:
            return min(self.timeout, max(LEAST_SERIAL, self._least))
        return min(self.timeout, max(3 * self.longest, self._least))

    def answered(self, took: float) -> None:
        """A sound answer has come."""
        if self.longest is None or took > self.longest:
            self.longest = took
        else:
            # A long one is forgotten over some fifty others.
            self.longest += (took - self.longest) / 64
        self.hold = 0.0
        if took > SLOW * self.timeout:
            self.raise_timeout(f"an answer took {took * 1000:.0f} ms")
        elif self.timeout > self._configured:
            self._fast = self._fast + 1 if took < FAST * self._configured else 0
            if self._fast >= FAST_ANSWERS:
                self._lower()

    def answered_late(self, took: float) -> None:
        """An answer has come after its time-out."""
        self.late = None
        self.hold = took
        self.raise_timeout(f"an answer took {took * 1000:.0f} ms")

    def raise_timeout(self, why: str) -> None:
        """Give it half of the configured time more, up to three seconds."""
        self._fast = 0
        longest = max(MAX_TIMEOUT, self._configured)
        if self.timeout >= longest:
            return
        first = self.timeout == self._configured
        self.timeout = min(self.timeout + self._configured / 2, longest)
        if first:
            self._tell("raised", why)

    def _lower(self) -> None:
        self._fast = 0
        self.timeout = max(self.timeout - self._configured / 2, self._configured)
        if self.timeout == self._configured:
            self._tell("back", f"{FAST_ANSWERS} fast answers in a row")

    def _tell(self, what: str, why: str) -> None:
        now = time.monotonic()
        if now - self._told >= TOLD_INTERVAL or what == "back":
            self._told = now
            log.info(
                "bus %s, unit %d: time-out %s to %.0f ms (%s)",
                self._bus,
                self.number,
                what,
                self.timeout * 1000,
                why,
            )

    def expect_late(self, request: Request, until: float) -> None:
        """The answer to `request` may still come, until then."""
        self.late = request
        self.late_until = until
