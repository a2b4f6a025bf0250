# SPDX-License-Identifier: Apache-2.0
"""Times of readings, ms since 1970: where a batch has any, and in which months."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from energy_hub.batch import Body

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# ms; what the rollups look at in one piece is never longer, and lies between two multiples of it.
LENGTH = 600_000
# Of one batch. A collector's readings lie within a minute of each other, but for those of radio devices that come late:
# by a week at most, which are 1,008 pieces, in two months. A clock that was wrong adds a few.
MAX_SPANS = 2_000
MAX_MONTHS = 12


class Span(NamedTuple):
    """From where to where (ms since 1970) a body has readings, how many, and of which series, by their places in it."""

    first: int
    last: int
    readings: int
    series: list[int]


def spans(body: Body) -> list[Span]:
    """The pieces of time in which a body has readings, ascending."""
    found: dict[int, Span] = {}
    for places in _together(body):
        for first, last, count in _pieces(body.series[places[0]].times):
            readings = count * len(places)
            known = found.get(first // LENGTH)
            if known is None:
                found[first // LENGTH] = Span(first, last, readings, list(places))
                continue
            known.series.extend(places)
            found[first // LENGTH] = Span(
                min(known.first, first), max(known.last, last), known.readings + readings, known.series
            )
    return [found[number] for number in sorted(found)]


def scattered(body: Body) -> str:
    """In what a body's readings lie further apart than in any that a collector seals; empty where they do not."""
    found = {
        first // LENGTH for places in _together(body) for first, _, _ in _pieces(body.series[places[0]].times)
    }
    if len(found) > MAX_SPANS:
        return f"readings in {len(found)} spans of ten minutes, at most {MAX_SPANS} are allowed"
    # None of them begins in one month and ends in the next.
    days = {_first_day(number * LENGTH) for number in found}
    if len(days) > MAX_MONTHS:
        return f"readings in {len(days)} months, at most {MAX_MONTHS} are allowed"
    return ""


def _together(body: Body) -> list[list[int]]:
    """The places of series that were polled together, which share one object."""
    found: dict[int, list[int]] = {}
    for place, one in enumerate(body.series):
        found.setdefault(id(one.times), []).append(place)
    return list(found.values())


def _pieces(times: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Ascending times, cut at the multiples of LENGTH: the first and the last of each piece, and how many they are."""
    at = 0
    while at < len(times):
        past = (times[at] // LENGTH + 1) * LENGTH
        end = len(times) if times[-1] < past else bisect_left(times, past, at)
        yield times[at], times[end - 1], end - at
        at = end


def months(times: Sequence[int]) -> set[datetime]:
    """The first days of the months that ascending times (ms since 1970) fall into."""
    ends = {_first_day(times[0]), _first_day(times[-1])}
    return ends if len(ends) == 1 else {_first_day(time) for time in times}


def _first_day(time: int) -> datetime:
    moment = EPOCH + timedelta(milliseconds=time)
    return datetime(moment.year, moment.month, 1, tzinfo=UTC)


def milliseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def iso(time: int) -> str:
    """ISO 8601 of ms since 1970."""
    return (EPOCH + timedelta(milliseconds=time)).isoformat(timespec="milliseconds")
