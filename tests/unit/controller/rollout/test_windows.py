# SPDX-License-Identifier: Apache-2.0
"""Windows on ordinary days and on the two days when the wall clock jumps."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from wattfleet.rollout.windows import Always, Window

EVERY_DAY = frozenset(range(7))
PARIS = ZoneInfo("Europe/Paris")


def window(start: str, end: str, days: frozenset[int] = EVERY_DAY, zone: ZoneInfo = PARIS) -> Window:
    return Window(days, time.fromisoformat(start), time.fromisoformat(end), zone)


@pytest.mark.parametrize(
    ("day", "start", "end", "utc", "hours"),
    [
        # Paris goes from 02:00 to 03:00 on 2026-03-29, and from 03:00 back to 02:00 on 2026-10-25.
        (date(2026, 3, 28), "01:00", "04:00", "2026-03-28 00:00", 3),
        (date(2026, 3, 29), "01:00", "04:00", "2026-03-29 00:00", 2),
        (date(2026, 10, 25), "01:00", "04:00", "2026-10-24 23:00", 4),
        (date(2026, 3, 29), "02:30", "04:00", "2026-03-29 01:00", 1),
        (date(2026, 3, 29), "02:15", "02:45", "2026-03-29 01:00", 0),
        (date(2026, 10, 25), "02:30", "02:45", "2026-10-25 00:30", 0.25),
        (date(2026, 3, 28), "22:00", "05:00", "2026-03-28 21:00", 6),
    ],
)
def test_a_window_follows_the_wall_clock(day: date, start: str, end: str, utc: str, hours: float) -> None:
    span = window(start, end).span(day)
    assert span.start == datetime.fromisoformat(utc).replace(tzinfo=UTC)
    assert span.length == timedelta(hours=hours)


def test_half_hour_jumps_and_the_other_hemisphere() -> None:
    howe = window("01:00", "04:00", zone=ZoneInfo("Australia/Lord_Howe"))
    assert howe.span(date(2026, 10, 4)).length == timedelta(hours=2.5)
    assert howe.span(date(2026, 4, 5)).length == timedelta(hours=3.5)


def test_the_open_window_or_the_next() -> None:
    nights = window("22:00", "04:00", frozenset({4}))  # from Friday to Saturday
    friday = datetime(2026, 11, 6, 22, 30, tzinfo=PARIS)
    assert nights.current_or_next(friday).holds(friday)
    saturday = datetime(2026, 11, 7, 3, 59, tzinfo=PARIS)
    assert nights.current_or_next(saturday).holds(saturday)
    after = datetime(2026, 11, 7, 4, 0, tzinfo=PARIS)
    assert nights.current_or_next(after).start == datetime(2026, 11, 13, 22, 0, tzinfo=PARIS)


def test_a_window_that_a_jump_swallows_is_passed_over() -> None:
    narrow = window("02:15", "02:45")
    found = narrow.current_or_next(datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert found.start == datetime(2026, 3, 30, 0, 15, tzinfo=UTC)


def test_without_a_window_any_time_will_do() -> None:
    moment = datetime(2026, 11, 6, tzinfo=UTC)
    assert Always().current_or_next(moment).holds(moment + timedelta(days=900))
