# SPDX-License-Identifier: Apache-2.0
"""The time that readings carry: UTC in ms, taken from the clock that runs since the boot plus an offset to the wall
clock, so that no step of the wall clock gives a point a time twice or out of order.

While the wall clock is known to be wrong, times are provisional: they run from the newest time that was used before.
Once it is right, what was taken meanwhile moves by what the offset was wrong (Writer and Buffer do that).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from energy_collector.built import BUILT
from energy_collector.journal import log
from energy_collector.storage.boot import Boot

# A difference between the wall clock and ours that is no step, in ms.
TOLERANCE = 1000
# How fast we follow such a difference, as a part of the time that passes.
SLEW = 0.05
# How fast we wait for a wall clock that was set back.
WAIT = 0.5
# A record that is put so long after its time was taken no longer finds out how good its clock was, in ms.
REMEMBERED = 60_000
# A meter's time may be so much ahead of the clock's, where it was asked twice at once, in ms.
AHEAD = 20
# From timex.h: the kernel's clock is not synchronised.
STA_UNSYNC = 0x0040
SYNCHRONISED = Path("/run/systemd/timesync/synchronized")


def synchronised() -> bool:
    """Whether systemd-timesyncd, or the kernel, says that the wall clock follows a time server.

    Under systemd's `ProtectClock=yes` the kernel may not be asked, and then timesyncd's word is the only one: the
    unit of the polling service forbids setting the clock in another way.
    """
    if SYNCHRONISED.exists():
        return True
    try:
        return kernel_synchronised()
    except OSError as error:
        _tell(str(error.strerror))
        return False


@cache
def _tell(error: str) -> None:
    """Once: it is asked every second."""
    log.warning(
        "clock: the kernel does not say whether it is synchronised: %s. Likely cause: ProtectClock=yes or a system call"
        " filter in the service's unit; until systemd-timesyncd says that it is, readings wait for clock.hold",
        error,
    )


def kernel_synchronised() -> bool:
    """Whether the kernel's clock follows a time server; OSError where it may not be asked."""
    # Imported here: few sites ask for it, and it weighs a megabyte.
    import ctypes

    class Timex(ctypes.Structure):
        """The start of struct timex, adjtimex(2), and room for its rest."""

        _fields_ = (
            ("modes", ctypes.c_uint),
            ("offset", ctypes.c_long),
            ("freq", ctypes.c_long),
            ("maxerror", ctypes.c_long),
            ("esterror", ctypes.c_long),
            ("status", ctypes.c_int),
            ("rest", ctypes.c_byte * 256),
        )

    state = Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return not state.status & STA_UNSYNC


@dataclass
class Span:
    """Times, in ms UTC from `low` to `high`, that were taken from a clock that was wrong; `high` is None while it is.

    `offset` is set where they are provisional, and is what was added to the time since the boot. `moved` is what has
    to be added to them since the right time is known.
    """

    low: int
    high: int | None = None
    offset: int | None = None
    moved: int = 0
    closed: float = 0.0

    def holds(self, time_ms: int) -> bool:
        """Whether a time is one of these."""
        return self.low <= time_ms and (self.high is None or time_ms <= self.high + AHEAD)


class SourceClock:
    """Follows the wall clock: small differences slowly, a step forwards at once; after a step back it runs at half
    speed until the wall clock has caught up.

    It starts no earlier than `floor`, the newest time in the buffer. The wall clock is known to be wrong while it is
    earlier than `settled`, the newest time that is not provisional itself, or than the release; and with `in_sync`,
    while that says so. `corrected` is called with the right offset, in ms, or None where provisional times have to
    stay as they are. All of it belongs to one thread.
    """

    def __init__(
        self,
        floor: int = 0,
        *,
        settled: int | None = None,
        hold: float = 3600.0,
        in_sync: Callable[[], bool] | None = None,
        wall: Callable[[], float] = time.time,
        boot: Boot | None = None,
        built: int = BUILT,
    ) -> None:
        self._wall = wall
        self._boot = boot or Boot()
        self._in_sync = in_sync
        self._hold = hold * 1000
        self._mark = self._wrong_since = self._boot.time()
        # The newest time that will not move any more.
        self._final = floor if settled is None else settled
        self._least = max(self._final, built)
        self._synchronised = True
        self._asked = float("-inf")
        self._given = False
        self._span: Span | None = None
        self.spans: list[Span] = []
        # By how much provisional times have moved, all in all.
        self.moved = 0
        self.corrected: Callable[[int | None], None] = lambda _: None
        wall_ms = wall() * 1000
        self._last = max(floor + 1, built) if self._is_wrong(wall_ms) else self._final
        self._offset = max(wall_ms, float(self._last)) - self._mark
        # Another run in this boot has left provisional times.
        self._left = floor > self._final

    @property
    def is_right(self) -> bool:
        """Whether nothing speaks against the times that are given now."""
        return self._span is None

    def now(self) -> int:
        """Milliseconds since 1970, never less than before, unless provisional times have moved."""
        mark = self._boot.time()
        elapsed, self._mark = mark - self._mark, mark
        wall_ms = self._wall() * 1000
        if self._is_wrong(wall_ms):
            self._begin_wrong()
        else:
            if self._span is not None and self._span.offset is not None:
                self._end_wrong(self._span, self._span.offset, int(wall_ms - mark))
            elif self._left:
                self.corrected(int(wall_ms - mark))
            self._left = False
            self._follow(wall_ms - mark - self._offset, elapsed)
        self._last = max(int(mark + self._offset), self._last)
        self._given = True
        if self._span is not None and not self._span.low:
            self._span.low = self._last
        if self.spans and self.spans[0].high is not None and mark - self.spans[0].closed > REMEMBERED:
            del self.spans[0]
        return self._last

    def hold_until(self) -> int:
        """Until when, in ms since the boot, provisional times of now may move."""
        return int(self._mark + self._hold)

    def _is_wrong(self, wall_ms: float) -> bool:
        if wall_ms < self._least - TOLERANCE:
            return True
        if self._in_sync is None:
            return False
        if self._mark - self._asked >= 1000:
            self._asked = self._mark
            self._synchronised = self._in_sync()
        return not self._synchronised

    def _follow(self, difference: float, elapsed: int) -> None:
        if difference < -TOLERANCE:
            self._offset -= min(elapsed * WAIT, -difference)
            if self._span is None:
                self._open(None)
            return
        most = elapsed * SLEW
        self._offset += difference if difference > TOLERANCE else min(max(difference, -most), most)
        self._close()

    def _begin_wrong(self) -> None:
        if self._span is not None and self._span.offset is not None:
            return
        self._close()
        self._wrong_since = self._mark
        if self._given:
            self._final = max(self._final, self._last)
        self._offset = float(int(self._offset))
        self._open(int(self._offset))

    def _end_wrong(self, span: Span, offset: int, right: int) -> None:
        # A time that is final stays in front of those that move, and none of those is in a batch yet.
        in_order = self._wrong_since + right > self._final
        unsealed = self._mark - self._wrong_since < self._hold - REMEMBERED
        self._close()
        if right >= offset or (in_order and unsealed):
            span.moved = right - offset
            self.moved += span.moved
            self._last += span.moved
            self._offset = float(right)
            self.corrected(right)
        else:
            self.corrected(None)

    def _open(self, offset: int | None) -> None:
        self._span = Span(0, offset=offset)
        self.spans.append(self._span)

    def _close(self) -> None:
        if self._span is not None:
            self._span.high = self._last
            self._span.closed = self._mark
            self._span = None


class Stamper:
    """Gives the requests of one meter strictly increasing times; a point is read by one request a poll at
    most."""

    def __init__(self, clock: SourceClock, floor: int = 0) -> None:
        self._clock = clock
        self._last = floor
        self._moved = clock.moved

    def __call__(self) -> int:
        """The time of a request."""
        now = self._clock.now()
        if self._clock.moved != self._moved:
            # The times given before have moved, and so does what they forbid.
            self._last += self._clock.moved - self._moved
            self._moved = self._clock.moved
        self._last = max(now, self._last + 1)
        return self._last
