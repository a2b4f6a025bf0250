# SPDX-License-Identifier: Apache-2.0
"""Times of readings, ms since 1970: where a batch has any, and in which months."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from energy_hub.batch import Body

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# ms; readings of a batch that lie further apart are looked at separately by the rollups.
GAP = 600_000


def spans(body: Body) -> list[tuple[int, int]]:
    """From where to where (ms since 1970) a body has readings, ascending; what lies further apart than GAP are two."""
    found: list[tuple[int, int]] = []
    # Series that were polled together share one object.
    different = {id(series.times): series.times for series in body.series}.values()
    pieces = sorted(piece for times in different for piece in _pieces(times))
    for first, last in pieces:
        if found and first - found[-1][1] <= GAP:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def _pieces(times: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending times, cut where they are further apart than GAP."""
    if times[-1] - times[0] <= GAP:
        yield times[0], times[-1]
        return
    first = before = times[0]
    for time in times:
        if time - before > GAP:
            yield first, before
            first = time
        before = time
    yield first, before


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
