# SPDX-License-Identifier: Apache-2.0
"""How complete what is kept of a site is, over any span: of each point of its meters, the readings that its files let
expect, and those that are here. An auditor asks it of a month that is long over.

Counted are whole hours, from the rollups, which stay when retention drops the readings. An hour in which a site's file
was changed, a site or a point was first heard of, or something is not added up yet, is left out on both sides. Points
that come when something happens (voltage events), and what a calibration says of itself, have no number to expect.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from energy_hub.fleet import queries
from energy_hub.fleet.document import UNDER_WAY
from energy_hub.fleet.history import periods
from energy_hub.fleet.meters import Description, description_of, seconds
from energy_hub.totals import DESCRIBED

Row = dict[str, Any]
HOUR = timedelta(hours=1)

# What has no number to expect, as in fleet/queries.py.
_BY_CHANCE = re.compile(r"_(multiplier|offset|raw)$|^voltage_event")
_STATISTIC = re.compile(r"(.+)_(mean|min|max|rms)")

# A point that was not there from the beginning is expected from its first whole hour on.
_COUNTS = """
SELECT w.number, f.start AS first, c.readings, c.valued
FROM unnest(%(numbers)s::int[], %(points)s::int[], %(since)s::timestamptz[], %(until)s::timestamptz[])
     AS w (number, point, since, until)
CROSS JOIN LATERAL (SELECT start FROM rollup_hour WHERE point = w.point ORDER BY start LIMIT 1) AS f
CROSS JOIN LATERAL (
    SELECT coalesce(sum(readings), 0)::bigint AS readings,
           coalesce(sum(good + uncertain), 0)::bigint AS valued
    FROM rollup_hour
    WHERE point = w.point AND start < w.until
      AND start >= CASE WHEN f.start >= w.since THEN f.start + interval '1 hour' ELSE w.since END
) AS c
"""


@dataclass
class Count:
    """`null` are readings without a value: the device did not answer, which is known."""

    points: int = 0
    expected: int = 0
    received: int = 0
    missing: int = 0
    null: int = 0

    def add(self, expected: int, received: int, valued: int) -> None:
        self.expected += expected
        self.received += received
        self.missing += max(0, expected - received)
        self.null += received - valued


@dataclass
class Site(Count):
    """All meters together, and each by its name."""

    meters: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class _Span:
    """A point of a meter over whole hours in which one file of its site held."""

    site: str
    meter: str
    point: int
    interval: float
    since: datetime
    until: datetime


def of_database(
    connection: psycopg.Connection, since: datetime, until: datetime, site: str | None = None
) -> dict[str, Site]:
    """By site, those that are described. Raises psycopg.Error."""
    with connection.cursor(row_factory=dict_row) as cursor:
        spans = list(_spans(cursor, since, until, None if site is None else [site]))
        found: dict[str, Site] = {}
        seen = set()
        for span, row in _counted(cursor, spans):
            begins = max(span.since, row["first"] + HOUR) if row["first"] >= span.since else span.since
            expected = math.floor(max(0.0, (span.until - begins).total_seconds()) / span.interval)
            of_site = found.setdefault(span.site, Site())
            of_meter = of_site.meters.setdefault(span.meter, Count())
            for count in (of_site, of_meter):
                count.add(expected, row["readings"], row["valued"])
                # A point is there more than once when the file was changed meanwhile.
                count.points += span.point not in seen
            seen.add(span.point)
    return found


def _counted(cursor: psycopg.Cursor[Row], spans: Sequence[_Span]) -> Iterator[tuple[_Span, Row]]:
    columns = {
        "numbers": list(range(len(spans))),
        "points": [one.point for one in spans],
        "since": [one.since for one in spans],
        "until": [one.until for one in spans],
    }
    for row in cursor.execute(_COUNTS, columns):
        yield spans[row["number"]], row


def _spans(
    cursor: psycopg.Cursor[Row], since: datetime, until: datetime, sites: list[str] | None
) -> Iterator[_Span]:
    described = cursor.execute(DESCRIBED, {"since": since, "until": until, "sites": sites}).fetchall()
    numbers = sorted({row["number"] for row in described})
    ends = _counted_until(cursor, numbers)
    heard = {
        row["id"]: row["first_seen"]
        for row in cursor.execute("SELECT id, first_seen FROM site WHERE id = ANY(%s)", (numbers,))
    }
    points: dict[int, dict[str, dict[str, int]]] = {}
    for row in cursor.execute("SELECT site, name, id FROM point WHERE site = ANY(%s)", (numbers,)):
        meter, _, name = row["name"].partition("/")
        points.setdefault(row["site"], {}).setdefault(meter, {})[name] = row["id"]
    history: dict[tuple[int, str], list[Description]] = {}
    for row in described:
        history.setdefault((row["number"], row["site"]), []).append(description_of(row))
    for (number, site), said in history.items():
        for one in periods(said, max(since, heard[number]), min(until, ends[number])):
            begins, finish = _hour_after(one.since), _hour(one.until)
            if begins < finish:
                name = str(one.meter["name"])
                for point, interval in _expected(one.meter, one.usual, points.get(number, {}).get(name, {})):
                    yield _Span(site, name, point, interval, begins, finish)


def _counted_until(cursor: psycopg.Cursor[Row], numbers: Sequence[int]) -> dict[int, datetime]:
    """Up to when what was measured at each site is here and added up, as in the glance at the fleet."""
    now: datetime = cursor.execute("SELECT now() AS now").fetchall()[0]["now"]
    waiting = {row["site"]: row["received"] for row in cursor.execute(queries.WAITING)}
    usual = min(now - UNDER_WAY, waiting.get(0, now))
    return {number: min(usual, waiting.get(number, usual)) for number in numbers}


def _expected(
    meter: Mapping[str, Any], usual: float, there: Mapping[str, int]
) -> Iterator[tuple[int, float]]:
    """Point, and seconds between two of its readings, of what a file lets expect of a meter, of what was ever heard of.
    `there` are its points by their names, `usual` is the site's interval."""
    polled, report = seconds(meter.get("interval"), usual), seconds(meter.get("report"), 0.0)
    raw, wanted = meter.get("raw") or (), meter.get("points")
    for point, number in there.items():
        base = _base(point, there)
        if _BY_CHANCE.search(point) or (wanted and (base or point) not in wanted):
            continue
        if not report:
            # Statistics are from a time when another file held.
            if base is None:
                yield number, polled
        elif point in raw:
            yield number, polled
        elif base is not None or f"{point}_mean" not in there:
            yield number, report


def _base(point: str, there: Mapping[str, int]) -> str | None:
    """What a point is a statistic of; None for one that is measured, as a device's own extremes without a mean are."""
    found = _STATISTIC.fullmatch(point)
    return found.group(1) if found and f"{found.group(1)}_mean" in there else None


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _hour_after(moment: datetime) -> datetime:
    begun = _hour(moment)
    return begun if begun == moment else begun + HOUR
