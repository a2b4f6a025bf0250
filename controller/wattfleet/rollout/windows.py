# SPDX-License-Identifier: Apache-2.0
"""Maintenance windows: when work that may interrupt a site is allowed, by the clock on its wall.

A window is given in local time. On the two days a year when the wall clock jumps, its ends are where that clock says:
a window from 01:00 to 04:00 lasts two or four hours then. An end that the clock skips (02:30 on a day that goes from
02:00 to 03:00) lies at the moment of the jump.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# Every weekday comes within this many days, plus one for windows over midnight.
LOOK_AHEAD = 9


@dataclass(frozen=True)
class Span:
    """From `start` to before `end`, both UTC."""

    start: datetime
    end: datetime

    def holds(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    @property
    def length(self) -> timedelta:
        return self.end - self.start


@dataclass(frozen=True)
class Window:
    """On each of `days` (0 is Monday) from `start` on; where `end` is not later, until `end` of the next day."""

    days: frozenset[int]
    start: time
    end: time
    zone: ZoneInfo

    @classmethod
    def of(cls, data: Mapping[str, Any], zone: str) -> Window:
        """From the site file's `maintenance`: days (every day when left out), start, end."""
        days = frozenset(DAYS.index(day) for day in data.get("days") or DAYS)
        return cls(days, time.fromisoformat(data["start"]), time.fromisoformat(data["end"]), ZoneInfo(zone))

    def data(self) -> dict[str, Any]:
        """As a ledger and a plan keep it; `window_of` reads it."""
        days = [DAYS[day] for day in sorted(self.days)]
        return {
            "days": days,
            "start": f"{self.start:%H:%M}",
            "end": f"{self.end:%H:%M}",
            "zone": self.zone.key,
        }

    def __str__(self) -> str:
        days = "" if len(self.days) == len(DAYS) else " ".join(DAYS[day] for day in sorted(self.days)) + " "
        return f"{days}{self.start:%H:%M}-{self.end:%H:%M} {self.zone.key}"

    def span(self, day: date) -> Span:
        """The window that begins on `day`, whatever weekday that is."""
        until = day if self.end > self.start else day + timedelta(days=1)
        return Span(self._moment(day, self.start), self._moment(until, self.end))

    def current_or_next(self, moment: datetime) -> Span:
        """The window that is open at `moment`, or else the next one."""
        today = moment.astimezone(self.zone).date()
        for offset in range(-1, LOOK_AHEAD):
            day = today + timedelta(days=offset)
            if day.weekday() in self.days:
                span = self.span(day)
                # One whose both ends the clock skips is none.
                if span.end > moment and span.length > timedelta(0):
                    return span
        raise ValueError(f"no window within {LOOK_AHEAD} days of {moment:%Y-%m-%d}: {self}")

    def _moment(self, day: date, at: time) -> datetime:
        """A local time as UTC. One that occurs twice is the first; one that is skipped is the moment of the jump."""
        local = datetime.combine(day, at, self.zone)
        moment = local.astimezone(UTC)
        if moment.astimezone(self.zone).replace(tzinfo=None) == local.replace(tzinfo=None):
            return moment
        # PEP 495: a skipped time is read with the offset from before the jump, which lands behind the jump by as
        # much as it lies within the gap; with fold=1 it is read with the offset from after, and lands before it.
        before = local.replace(fold=1).astimezone(UTC)
        low, high = before, moment
        offset = high.astimezone(self.zone).utcoffset()
        while high - low > timedelta(seconds=1):
            middle = low + (high - low) / 2
            if middle.astimezone(self.zone).utcoffset() == offset:
                high = middle
            else:
                low = middle
        return (
            high.replace(microsecond=0)
            if high.microsecond == 0
            else high.replace(microsecond=0) + timedelta(seconds=1)
        )


@dataclass(frozen=True)
class Always:
    """No window was given: any time will do."""

    def current_or_next(self, moment: datetime) -> Span:
        return Span(moment, datetime.max.replace(tzinfo=UTC))

    def data(self) -> None:
        return None

    def __str__(self) -> str:
        return "any time"


def window_of(data: Mapping[str, Any] | None) -> Window | Always:
    """From what `data` of a window gave."""
    return Window.of(data, data["zone"]) if data else Always()


def has_time_for(window: Window | Always, moment: datetime, seconds: float) -> bool:
    """Whether the window is open at `moment`, and for that long."""
    span = window.current_or_next(moment)
    return span.holds(moment) and span.end - moment >= timedelta(seconds=seconds)
