# SPDX-License-Identifier: Apache-2.0
"""The rows of table reading against what decodes from the batches that they say they came with.

Batches are taken in the order of their numbers, some at a time, and all rows between two numbers with them: no row is
missed, wherever its time is. Both sides are put into one and the same layout of bytes and compared as a whole; only
where that differs they are taken apart.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from energy_hub.audit.context import EPOCH, Context
from energy_hub.batch import Body, Series
from energy_hub.rows import EPOCH_MS, big_endian

# Readings that are compared at a time.
CHUNK = 200_000
MOST_BATCHES = 2000
# In place of a value that is null, with its quality raised by that.
NULL, NULL_MARK = 0.0, 1000

# A reading in bytes: time, value, batch, point, quality, big-endian.
_ROW = struct.Struct(">qdqih")
_OFFSETS = (0, 8, 16, 24, 28)
# One row a batch: fetching readings one by one costs more than all the rest.
_QUERY = """
SELECT string_agg(timestamptz_send(r.time) || float8send(coalesce(r.value, 0)) || int8send(r.batch) || int4send(r.point)
                  || int2send((r.quality + CASE WHEN r.value IS NULL THEN 1000 ELSE 0 END)::smallint),
                  '' ORDER BY r.point, r.time)
FROM reading r JOIN point p ON p.id = r.point
WHERE r.batch > %s AND r.batch <= %s AND p.site = ANY(%s)
GROUP BY r.batch ORDER BY r.batch
"""

Value = tuple[float, int]
"""(value, quality), null as above"""
Group = dict[int, Value]
"""Readings of one point and batch, by their time in microseconds since 2000"""


class _Batch(NamedTuple):
    site: int
    subject: str


class _Expected:
    """Readings as their batches have them, in the order of (batch, point, time)."""

    def __init__(self) -> None:
        self.times = array("q")
        self.values = array("d")
        self.batches = array("q")
        self.points = array("i")
        self.qualities = array("h")

    def add(self, batch: int, point: int, series: Series) -> None:
        count = len(series.times)
        self.times.extend([(time - EPOCH_MS) * 1000 for time in series.times])
        self.batches.extend(array("q", (batch,)) * count)
        self.points.extend(array("i", (point,)) * count)
        at = 0
        for code, null, length in series.runs:
            if null:
                self.values.extend(array("d", (NULL,)) * length)
            else:
                self.values.extend(series.values[at : at + length])
                at += length
            self.qualities.extend(array("h", (code + NULL_MARK * null,)) * length)

    def rows(self) -> bytes:
        rows = bytearray(_ROW.size) * len(self.times)
        columns: Sequence[array[int] | array[float]]
        columns = [self.times, self.values, self.batches, self.points, self.qualities]
        for offset, column in zip(_OFFSETS, columns, strict=True):
            data = big_endian(column)
            for plane in range(column.itemsize):
                rows[offset + plane :: _ROW.size] = data[plane :: column.itemsize]
        return bytes(rows)


class Readings:
    """Compares chunk by chunk; `add` and `leave_out` come in the order of the batches' numbers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._report = context.report
        self._low = context.first_batch - 1
        self._points: dict[tuple[int, str], int] = {}
        self._names: dict[int, tuple[int, str]] = {}
        self._units: dict[int, list[tuple[datetime, str]]] = {}
        for number, site, name in context.connection.execute("SELECT id, site, name FROM point"):
            self._points[site, name] = number
            self._names[number] = site, name
        for point, since, unit in context.connection.execute(
            "SELECT point, since, unit FROM point_unit ORDER BY since"
        ):
            self._units.setdefault(point, []).append((since, unit))
        self._retired = _Retired(context)
        self._begin()

    def _begin(self) -> None:
        self._expected = _Expected()
        self._batches: dict[int, _Batch] = {}
        self._unproven: set[int] = set()
        self._high = self._low

    def add(self, batch: int, site: int, body: Body, subject: str) -> None:
        self._high = batch
        self._batches[batch] = _Batch(site, subject)
        known = []
        for series in body.series:
            point = self._points.get((site, series.point))
            if point is None:
                first, last = _moment(_micros(series.times[0])), _moment(_micros(series.times[-1]))
                self._find(
                    batch,
                    "reading-removed",
                    series.point,
                    "the point is gone",
                    first,
                    last,
                    len(series.times),
                )
            else:
                known.append((point, series))
                self._check_unit(batch, point, series)
        for point, series in sorted(known, key=lambda one: one[0]):
            self._expected.add(batch, point, series)
        if len(self._expected.times) >= CHUNK or len(self._batches) >= MOST_BATCHES:
            self._compare(self._high)
            self._low = self._high
            self._begin()

    def leave_out(self, batch: int) -> None:
        """A batch whose bytes prove nothing: its readings cannot be judged, and the batch is told of already."""
        self._high = batch
        self._unproven.add(batch)

    def finish(self) -> None:
        self._compare(2**63 - 1)
        self._retired.check()

    def _compare(self, high: int) -> None:
        stored = self._stored(high)
        expected = self._expected.rows()
        self._report.count("readings", len(expected) // _ROW.size)
        if stored != expected:
            self._take_apart(_groups(expected), _groups(stored))

    def _stored(self, high: int) -> bytes:
        with self._context.connection.cursor(binary=True) as cursor:
            rows = cursor.execute(_QUERY, (self._low, high, self._context.chosen))
            return b"".join(row[0] for row in rows)

    # Where the two differ.

    def _take_apart(
        self, expected: Mapping[tuple[int, int], Group], stored: Mapping[tuple[int, int], Group]
    ) -> None:
        for key in sorted(expected.keys() | stored.keys()):
            batch, point = key
            was, is_ = expected.get(key, {}), stored.get(key, {})
            if was == is_ or batch in self._unproven:
                continue
            if batch not in self._batches:
                self._tell_orphans(batch, point, is_)
                continue
            self._tell_difference(batch, point, was, is_)

    def _tell_difference(self, batch: int, point: int, was: Group, is_: Group) -> None:
        name = self._names[point][1]
        changed = [time for time in was.keys() & is_.keys() if was[time] != is_[time]]
        missing = self._accounted_for(batch, point, {time: was[time] for time in was.keys() - is_.keys()})
        extra = is_.keys() - was.keys()
        if changed and Counter(was[time] for time in changed) == Counter(is_[time] for time in changed):
            self._tell(batch, "readings-reordered", name, changed, "their values stand at each other's times")
        elif changed:
            time = min(changed)
            text = f"{_show(was[time])} was received, {_show(is_[time])} is stored, at {_iso(_moment(time))}"
            self._tell(batch, "value-changed", name, changed, text)
        if missing and Counter(was[time] for time in missing) == Counter(is_[time] for time in extra):
            text = f"what was measured at {_iso(_moment(min(missing)))} stands at {_iso(_moment(min(extra)))}"
            self._tell(batch, "time-changed", name, [*missing, *extra], text, len(missing))
            return
        if missing:
            self._tell(batch, "reading-removed", name, missing, "was received and is not stored")
        if extra:
            self._tell(batch, "reading-inserted", name, list(extra), "is not in the batch that it names")

    def _accounted_for(self, batch: int, point: int, missing: Group) -> list[int]:
        """Times of readings that are gone. One that another batch brought first is not: the same value is stored once,
        and another value is kept in table conflict."""
        if not missing:
            return []
        times = [_moment(time) for time in missing]
        first = {
            _since_2000(time): (NULL if value is None else value, quality + NULL_MARK * (value is None))
            for time, value, quality in self._context.connection.execute(
                "SELECT time, value, quality FROM reading WHERE point = %s AND time = ANY(%s)", (point, times)
            )
        }
        kept = {
            _since_2000(time): (NULL if value is None else value, quality + NULL_MARK * (value is None))
            for time, value, quality in self._context.connection.execute(
                "SELECT time, second_value, second_quality FROM conflict"
                " WHERE point = %s AND second_batch = %s AND time = ANY(%s)",
                (point, batch, times),
            )
        }
        gone = []
        number = self._batches[batch].site
        site = self._context.sites[number]
        for time, value in missing.items():
            at = (_moment(time), _moment(time))
            if time not in first and self._retired.holds(number, at[0]):
                self._report.explain(
                    site, "retired", "dropped by retention, as table retired says; their batches are here", at
                )
            elif first.get(time) == value:
                self._report.explain(site, "received-twice", "two batches brought the same reading", at)
            elif time in first and kept.get(time) == value:
                self._report.explain(
                    site,
                    "conflict",
                    "two batches brought different values; table conflict keeps the second",
                    at,
                )
            else:
                gone.append(time)
        return gone

    def _tell_orphans(self, batch: int, point: int, readings: Group) -> None:
        """Rows of a batch that is not there, or not this site's."""
        site, name = self._names[point]
        leaf = self._context.connection.execute(
            "SELECT stream, sequence FROM leaf WHERE batch = %s AND site = %s", (batch, site)
        ).fetchone()
        if leaf is not None:
            subject = f"stream {bytes(leaf[0]).hex()} sequence {leaf[1]}"
            kind, text = "reading-unproven", f"{name}: its batch, {subject}, is gone"
        else:
            subject, kind = f"{name} of batch number {batch}", "reading-inserted"
            text = f"{name}: there is no such batch of this site"
        times = sorted(readings)
        span = (_moment(times[0]), _moment(times[-1]))
        self._report.find(self._context.sites[site], kind, subject, text, span, len(times))

    def _tell(
        self, batch: int, kind: str, point: str, times: list[int], text: str, count: int | None = None
    ) -> None:
        first, last = _moment(min(times)), _moment(max(times))
        self._find(batch, kind, point, text, first, last, count or len(times))

    def _find(
        self, batch: int, kind: str, point: str, text: str, first: datetime, last: datetime, count: int
    ) -> None:
        one = self._batches[batch]
        site = self._context.sites[one.site]
        self._report.find(site, kind, f"{point} of {one.subject}", f"{point}: {text}", (first, last), count)

    # Units.

    def _check_unit(self, batch: int, point: int, series: Series) -> None:
        units = self._units.get(point, [])
        if units == [(EPOCH, series.unit)]:
            return
        first = _moment(_micros(series.times[0]))
        unit = next((unit for since, unit in reversed(units) if since <= first), None)
        if unit == series.unit:
            return
        site = self._context.sites[self._batches[batch].site]
        if self._unit_is_told(self._batches[batch].site, series.point):
            self._report.explain(
                site, "unit-changed", "units of points that changed, as table evidence says", (first, first)
            )
            return
        text = f"{series.point}: measured in {series.unit}, stored as {unit or 'nothing'}"
        self._report.find(site, "unit-changed", series.point, text, (first, first), len(series.times))

    def _unit_is_told(self, site: int, point: str) -> bool:
        row = self._context.connection.execute(
            "SELECT EXISTS (SELECT FROM evidence WHERE site = %s AND kind = 'unit-changed'"
            " AND starts_with(detail, %s))",
            (site, f"{point}: "),
        ).fetchone()
        return row == (True,)


class _Retired:
    """Months that retention has dropped: not more is missing of them than was dropped."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._dropped: dict[tuple[int, int, int], int] = {}
        self._missing: Counter[tuple[int, int, int]] = Counter()
        for site, month, readings in context.connection.execute("SELECT site, month, readings FROM retired"):
            self._dropped[site, month.year, month.month] = readings

    def holds(self, site: int, at: datetime) -> bool:
        key = site, at.year, at.month
        if key not in self._dropped:
            return False
        self._missing[key] += 1
        return True

    def check(self) -> None:
        for (site, year, month), missing in sorted(self._missing.items()):
            dropped = self._dropped[site, year, month]
            first = datetime(year, month, 1, tzinfo=EPOCH.tzinfo)
            if missing > dropped:
                self._context.report.find(
                    self._context.sites[site],
                    "reading-removed",
                    f"{year}-{month:02}",
                    f"retention dropped {dropped} readings of this month, and {missing} are missing",
                    (first, datetime(year + month // 12, month % 12 + 1, 1, tzinfo=EPOCH.tzinfo)),
                    missing - dropped,
                )


def _groups(rows: bytes) -> dict[tuple[int, int], Group]:
    found: dict[tuple[int, int], Group] = {}
    for time, value, batch, point, quality in _ROW.iter_unpack(rows):
        found.setdefault((batch, point), {})[time] = value, quality
    return found


def _micros(milliseconds: int) -> int:
    return (milliseconds - EPOCH_MS) * 1000


def _moment(micros: int) -> datetime:
    try:
        return EPOCH + timedelta(milliseconds=EPOCH_MS, microseconds=micros)
    except OverflowError:
        # A time that no gateway can send, infinity among them.
        return datetime.max.replace(tzinfo=EPOCH.tzinfo)


def _since_2000(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1) - EPOCH_MS * 1000


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _show(value: Value) -> str:
    number, quality = value
    if quality >= NULL_MARK:
        return f"null (quality {quality - NULL_MARK})"
    return f"{number!r} (quality {quality})"
