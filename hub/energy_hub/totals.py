# SPDX-License-Identifier: Apache-2.0
"""The fleet's energy over a span of time, by what the meters measure: sums of each database, then of all.

A meter's energy is what its counters advanced, so that neither an outage nor a quarter of an hour with few readings
changes it. Where there is no counter, or one was reset, each value of its power counts for the meter's interval, and a
quarter for no more than it has. So it is in the quarter in which a meter was exchanged: what the old one and the new
one have counted is never subtracted from each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from energy_hub.evidence.step import Shard
from energy_hub.fleet.balance import advance_of
from energy_hub.fleet.history import periods
from energy_hub.fleet.meters import (
    EXPORT,
    IMPORT,
    MEAN,
    POWER,
    PROCESS,
    Description,
    Meter,
    description_of,
    meter_of,
)

Row = dict[str, Any]

# What a site's file says holds until the next one; what was before the first is by that one. A site with a meter that
# has a date of its own needs all of them: a later one may say what was then, and an earlier one may still hold for it.
# Two hours: another ratio has an hour to reach its gateway.
DESCRIBED = """
SELECT * FROM (
    SELECT s.id AS number, s.name AS site, d.since, min(d.since) OVER of_site AS first,
           lead(d.since) OVER of_site AS ends,
           bool_or(jsonb_path_exists(d.content, '$.meters[*].since')) OVER (PARTITION BY d.site) AS dated,
           d.content -> 'name' AS label, d.content -> 'region' AS region, d.content -> 'interval' AS interval,
           d.content -> 'meters' AS meters
    FROM site s JOIN site_description d ON d.site = s.name
    WHERE %(sites)s::text[] IS NULL OR s.name = ANY(%(sites)s)
    WINDOW of_site AS (PARTITION BY d.site ORDER BY d.since)
) AS d
WHERE dated OR since < %(until)s AND (ends IS NULL OR ends > %(since)s::timestamptz - interval '2 hours')
ORDER BY number, since
"""

_POINTS = """
SELECT site, name, id FROM point WHERE split_part(name, '/', 2) = ANY(%(points)s) AND site = ANY(%(sites)s)
"""

# The last value of the quarter before is where a counter stands at the beginning, if it was the same that counted.
# 900: the seconds of a quarter.
_QUARTERS = """
SELECT w.number, w.point, q.*
FROM unnest(%(numbers)s::int[], %(points)s::int[], %(since)s::timestamptz[], %(until)s::timestamptz[],
            %(counts_from)s::timestamptz[], %(intervals)s::float8[])
     AS w (number, point, since, until, counts_from, interval)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE start >= w.since) AS quarters,
           sum(least((good + uncertain) * w.interval, 900) * sum / (good + uncertain))
               FILTER (WHERE start >= w.since) AS watt_seconds,
           min(minimum) FILTER (WHERE start >= w.since) AS minimum,
           (array_agg(CASE WHEN start < w.since THEN last_value ELSE first_value END ORDER BY start))[1]
               AS first_value,
           (array_agg(last_value ORDER BY start DESC))[1] AS last_value
    FROM rollup_quarter
    WHERE point = w.point AND start >= greatest(w.since - interval '15 minutes', w.counts_from) AND start < w.until
      AND last_time IS NOT NULL
) AS q
WHERE q.quarters > 0
"""


@dataclass(frozen=True)
class Total:
    """Of all meters with one role. `quarters` are those of all meters together in which there is something; `unknown`
    is how many meters have neither counters nor power, and so are not in the sum."""

    energy_kwh: float
    quarters: int
    sites: int
    unknown: int

    def __add__(self, other: Total) -> Total:
        # A site is in one database, so that no site is counted twice.
        return Total(
            self.energy_kwh + other.energy_kwh,
            self.quarters + other.quarters,
            self.sites + other.sites,
            self.unknown + other.unknown,
        )


@dataclass(frozen=True)
class _Span:
    """A meter of a site, from one time to another. `counts_from`: what its counters showed before is another's."""

    site: str
    meter: Meter
    since: datetime
    until: datetime
    counts_from: datetime


def of_all(shards: Sequence[Shard], since: datetime, until: datetime) -> dict[str, Total]:
    """By role, as the sites' files say; sites that are not described are in none. Raises psycopg.Error."""
    found: dict[str, Total] = {}
    for shard in shards:
        sites = None if shard.sites is None else sorted(shard.sites)
        with shard.connection.cursor(row_factory=dict_row) as cursor:
            for role, total in _of_database(cursor, since, until, sites).items():
                found[role] = found[role] + total if role in found else total
    return dict(sorted(found.items()))


def _of_database(
    cursor: psycopg.Cursor[Row], since: datetime, until: datetime, sites: list[str] | None
) -> dict[str, Total]:
    spans = list(_spans(cursor, since, until, sites))
    measured = _measured(cursor, spans)
    energy: dict[tuple[str, str, str], float | None] = {}
    quarters: dict[str, int] = {}
    for number, span in enumerate(spans):
        rows = measured.get(number, {})
        key = (span.meter.role, span.site, span.meter.name)
        here = _energy_of(span.meter, rows)
        # A meter that was exchanged, or whose site's file has changed meanwhile, is there more than once.
        energy[key] = here if energy.get(key) is None else (energy[key] or 0.0) + (here or 0.0)
        most = max((row["quarters"] for row in rows.values()), default=0) if here is not None else 0
        quarters[span.meter.role] = quarters.get(span.meter.role, 0) + most
    return {
        role: Total(
            sum(one for (of, _, _), one in energy.items() if of == role and one is not None),
            count,
            len({site for (of, site, _), one in energy.items() if of == role and one is not None}),
            sum(of == role and one is None for (of, _, _), one in energy.items()),
        )
        for role, count in quarters.items()
    }


def _spans(
    cursor: psycopg.Cursor[Row], since: datetime, until: datetime, sites: list[str] | None
) -> Iterator[_Span]:
    described = cursor.execute(DESCRIBED, {"since": since, "until": until, "sites": sites}).fetchall()
    points: dict[int, dict[str, int]] = {}
    wanted = {"points": [POWER, MEAN, IMPORT, EXPORT], "sites": sorted({row["number"] for row in described})}
    for row in cursor.execute(_POINTS, wanted):
        points.setdefault(row["site"], {})[row["name"]] = row["id"]
    history: dict[tuple[int, str], list[Description]] = {}
    for row in described:
        history.setdefault((row["number"], row["site"]), []).append(description_of(row))
    for (number, site), said in history.items():
        for one in periods(said, since, until):
            meter = meter_of(one.meter, one.usual, points.get(number, {}), {})
            if one.torn:
                meter = replace(meter, energy_import=None, energy_export=None)
            if meter.role != PROCESS:
                yield _Span(site, meter, one.since, one.until, one.counts_from)


def _measured(cursor: psycopg.Cursor[Row], spans: Sequence[_Span]) -> dict[int, dict[int, Row]]:
    """What the points of each meter have measured, by the place of its span."""
    wanted = [
        (number, point, span.since, span.until, span.counts_from, span.meter.interval)
        for number, span in enumerate(spans)
        for point in (span.meter.power, span.meter.energy_import, span.meter.energy_export)
        if point is not None
    ]
    names = ("numbers", "points", "since", "until", "counts_from", "intervals")
    columns = {name: [one[place] for one in wanted] for place, name in enumerate(names)}
    found: dict[int, dict[int, Row]] = {}
    for row in cursor.execute(_QUARTERS, columns):
        found.setdefault(row["number"], {})[row["point"]] = row
    return found


def _energy_of(meter: Meter, rows: Mapping[int, Row]) -> float | None:
    """kWh."""
    counted = advance_of(meter, rows)
    if counted is not None:
        return counted
    power = rows.get(meter.power) if meter.power is not None else None
    if power is None or power["watt_seconds"] is None:
        return None
    return float(power["watt_seconds"]) / 3_600_000
