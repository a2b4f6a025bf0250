# SPDX-License-Identifier: Apache-2.0
"""Figures by minute, quarter, hour and day, which follow the readings and are exactly right after late ones.

The ingest notes with each batch where it has readings, and of which points (table `touched`), by pieces of ten minutes
at most. A step takes some of these notes, finds the minutes in which those batches have readings, computes these
minutes again from all of their readings, then the quarters, hours and days that they lie in, each from the level below,
and nothing else: all in one transaction, so that a step that was cut happens again. One worker at a time does this; a
second one would write what it had read before the first one wrote.

A step is bounded, whatever a site has sent: of a batch that is too much for one it takes a part. And every site has its
turn in it, so that none has to wait until another's notes are worked off.

Sums are taken in the order of time, so that the same readings give the same bits, whenever they came.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping

import psycopg

from energy_hub import faults
from energy_hub.databases import trouble
from energy_hub.logs import Throttle
from energy_hub.notify import notify

log = logging.getLogger(__name__)

# Notes of one step, and readings of them: each step counts the hours and days anew that it touches, so that many small
# batches in one cost little more than few.
STEP = 2000
READINGS = 200_000
# Of one site, while many have some: its share, and no less than this.
LEAST = 20
RETRY = 5.0  # s
# Beyond this a sum could leave the range of a double; such a span has no sum.
LARGEST = 1e300
# Of each schema its own, where several share one PostgreSQL.
LOCK = "hashtextextended('energy.rollup' || coalesce('.' || nullif(current_schema(), 'public'), ''), 0)"

_FIGURES = [
    "readings",
    "good",
    "uncertain",
    "sum",
    "minimum",
    "maximum",
    "first_time",
    "first_value",
    "last_time",
    "last_value",
]
_COLUMNS = ", ".join(("point", "start", *_FIGURES))
_UPDATE = "ON CONFLICT (point, start) DO UPDATE SET " + ", ".join(
    f"{one} = excluded.{one}" for one in _FIGURES
)

# Figures change one after the other, and what they are counted from is told from one statement to the next as the text
# of arrays, in no temporary table: those of a schema that Citus keeps on a node cannot be joined with one.
#
# First the oldest note of each site, then the second of each, and so on. The first one whatever its size.
_TAKE = """
WITH gone AS (
    DELETE FROM touched WHERE ctid = ANY(ARRAY(
        SELECT place FROM (
            SELECT place, sum(readings) OVER (ORDER BY turn, batch, first, place) - readings AS before
            FROM (
                SELECT w.place, w.batch, w.first, coalesce(w.readings, b.readings) AS readings,
                       row_number() OVER (PARTITION BY s.id ORDER BY w.batch, w.first) AS turn
                FROM (SELECT id FROM site UNION ALL SELECT 0) AS s
                CROSS JOIN LATERAL (
                    SELECT ctid AS place, batch, first, readings FROM touched WHERE site = s.id ORDER BY batch
                    LIMIT (SELECT greatest(%(least)s, %(most)s / greatest(count(*), 1)) FROM site)) AS w
                JOIN batch b ON b.id = w.batch
                ORDER BY turn, w.batch, w.first LIMIT %(most)s) AS waiting) AS chosen
        WHERE before < %(readings)s))
    RETURNING batch, first, last, points
)
SELECT count(DISTINCT batch), array_agg(batch)::text, array_agg(first)::text, array_agg(last)::text,
       array_agg(points::text)::text
FROM gone
"""

# Spans of points, (point, s since 1970), as two arrays.
_LISTED = "SELECT array_agg(point)::text, array_agg(date_part('epoch', start)::bigint)::text FROM ({}) AS s"
_LIST = """(SELECT point, to_timestamp(second) AS start
      FROM unnest(%(points)s::int[], %(starts)s::bigint[]) AS u (point, second))"""

# LATERAL with OFFSET 0 keeps PostgreSQL from reading whole months where few spans are looked up: while a month was
# small it did, and compared each reading with each batch.
_MINUTES_OF = """
SELECT DISTINCT r.point, date_bin('1 minute', r.time, 'epoch') AS start
FROM unnest(%(batches)s::bigint[], %(firsts)s::timestamptz[], %(lasts)s::timestamptz[], %(points)s::text[])
     AS t (batch, first, last, points)
JOIN batch b ON b.id = t.batch
CROSS JOIN LATERAL (SELECT unnest(t.points::integer[]) AS id
                    UNION ALL SELECT id FROM point WHERE t.points IS NULL AND site = b.site) AS p
CROSS JOIN LATERAL (SELECT point, time, batch FROM reading
                    WHERE point = p.id AND time BETWEEN t.first AND t.last OFFSET 0) AS r
WHERE r.batch = t.batch
"""

# What comes late of a month that retention has dropped is kept, and cannot be counted: the others are gone.
_NOT_RETIRED = """
AND NOT EXISTS (SELECT FROM retired x WHERE x.site = b.site AND r.time >= x.month
                AND r.time < (x.month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC')
"""


def _later(moment: str, length: str) -> str:
    """A moment plus an interval. Done in UTC it is the same for every session, which Citus asks of what it has a node
    insert: of anything else it writes a text that nodes cannot read."""
    return f"({moment} AT TIME ZONE 'UTC' + interval '{length}') AT TIME ZONE 'UTC'"


_FROM_READINGS = f"""
INSERT INTO rollup_minute ({_COLUMNS})
SELECT f.point, f.start, count(*), count(*) FILTER (WHERE r.quality < 64),
       count(*) FILTER (WHERE r.quality >= 64 AND r.value IS NOT NULL),
       CASE WHEN max(abs(r.value)) < {LARGEST}
            THEN sum(r.value ORDER BY r.time) FILTER (WHERE abs(r.value) < {LARGEST}) END,
       min(r.value), max(r.value),
       min(r.time) FILTER (WHERE r.value IS NOT NULL),
       (array_agg(r.value ORDER BY r.time) FILTER (WHERE r.value IS NOT NULL))[1],
       max(r.time) FILTER (WHERE r.value IS NOT NULL),
       (array_agg(r.value ORDER BY r.time DESC) FILTER (WHERE r.value IS NOT NULL))[1]
FROM {_LIST} AS f
JOIN reading r ON r.point = f.point AND r.time >= f.start AND r.time < {_later("f.start", "1 minute")}
GROUP BY f.point, f.start
{_UPDATE}
"""  # noqa: S608  (constants of this module alone)

# By whose clock the days of a site s begin: what its newest description says, else UTC.
_ZONE_OF = """coalesce((SELECT d.content ->> 'timezone' FROM site_description d WHERE d.site = s.name
                  ORDER BY d.since DESC LIMIT 1), 'UTC')"""
_ZONES = f"""
INSERT INTO rollup_zone (site, zone)
SELECT s.id, {_ZONE_OF} FROM site s
WHERE s.id IN (SELECT site FROM batch WHERE id = ANY(%(batches)s::bigint[]))
ON CONFLICT DO NOTHING
"""  # noqa: S608  (constants of this module alone)
_MOVED = f"""
UPDATE rollup_zone z SET zone = n.zone FROM (SELECT s.id, s.name, {_ZONE_OF} AS zone FROM site s) AS n
WHERE n.id = z.site AND z.zone <> n.zone RETURNING z.site, n.name
"""  # noqa: S608  (constants of this module alone)

_QUARTERS_OF = f"SELECT DISTINCT f.point, date_bin('15 minutes', f.start, 'epoch') AS start FROM {_LIST} AS f"  # noqa: S608  (ours)
_HOURS = f"(SELECT DISTINCT point, date_bin('1 hour', start, 'epoch') AS start FROM {_LIST} AS q)"  # noqa: S608  (ours)
_QUARTERS_OF_SITES = """(SELECT q.point, q.start FROM rollup_quarter q JOIN point p ON p.id = q.point
      WHERE p.site = ANY(%(sites)s))"""


def _from_below(table: str, below: str, length: str, start: str, spans: str) -> str:
    """Count spans of a level, (point, start) and what else the beginning of a moment's span, `start`, is told by. None
    is longer than `length`."""
    return f"""
INSERT INTO rollup_{table} ({_COLUMNS})
SELECT f.point, f.start, sum(b.readings), sum(b.good), sum(b.uncertain),
       -- A span that has values and no sum would make this one too small.
       CASE WHEN bool_and(b.sum IS NOT NULL OR b.good + b.uncertain = 0) THEN sum(b.sum ORDER BY b.start) END,
       min(b.minimum), max(b.maximum),
       min(b.first_time), (array_agg(b.first_value ORDER BY b.start) FILTER (WHERE b.first_time IS NOT NULL))[1],
       max(b.last_time), (array_agg(b.last_value ORDER BY b.start DESC) FILTER (WHERE b.last_time IS NOT NULL))[1]
FROM {spans} AS f
JOIN rollup_{below} b ON b.point = f.point AND b.start >= f.start AND b.start < {_later("f.start", length)}
                     AND {start.format("b.start")} = f.start
GROUP BY f.point, f.start
{_UPDATE}
"""  # noqa: S608  (constants of this module alone)


def _day(quarters: str) -> str:
    """The days that quarters lie in."""
    start = "date_trunc('day', {0} AT TIME ZONE f.zone) AT TIME ZONE f.zone"
    spans = (
        f"(SELECT DISTINCT f.point, f.zone, {start.format('f.start')} AS start"  # noqa: S608  (constants of this module alone)
        f" FROM (SELECT q.point, q.start, z.zone FROM {quarters} AS q"
        " JOIN point p ON p.id = q.point JOIN rollup_zone z ON z.site = p.site) AS f)"
    )
    # An hour longer than the longest day; what belongs to the next day is left out by its own start.
    return _from_below("day", "quarter", "26 hours", start, spans)


def _bin(length: str) -> str:
    return f"date_bin('{length}', {{0}}, 'epoch')"


_OF_QUARTERS = (
    _from_below("quarter", "minute", "15 minutes", _bin("15 minutes"), _LIST),
    _from_below("hour", "quarter", "1 hour", _bin("1 hour"), _HOURS),
    _day(_LIST),
)


def step(connection: psycopg.Connection, most: int = STEP) -> int:
    """Bring the rollups up to date with up to `most` notes; of how many batches they were. Raises psycopg.Error."""
    spoilt: list[faults.Fault] = []
    with connection.transaction():
        _alone(connection)
        row = connection.execute(_TAKE, {"most": most, "least": LEAST, "readings": READINGS}).fetchone()
        assert row is not None
        batches = int(row[0])
        if not batches:
            return 0
        notes = dict(zip(("batches", "firsts", "lasts", "points"), row[1:], strict=True))
        retired = connection.execute("SELECT EXISTS (SELECT FROM retired)").fetchone() == (True,)
        minutes = _listed(connection, _MINUTES_OF + (_NOT_RETIRED if retired else ""), notes)
        if minutes["points"] is not None:
            spoilt = faults.count(connection, _FROM_READINGS, minutes)
            connection.execute(_ZONES, notes, prepare=False)
            quarters = _listed(connection, _QUARTERS_OF, minutes)
            for statement in _OF_QUARTERS:
                connection.execute(statement, quarters, prepare=False)
    faults.tell(spoilt)
    return batches


def _listed(connection: psycopg.Connection, spans: str, values: Mapping[str, object]) -> dict[str, object]:
    """What a statement finds, as values of _LIST. It and those that take the lists are planned each time: how many
    there are decides how to look them up."""
    row = connection.execute(_LISTED.format(spans), values, prepare=False).fetchone()
    assert row is not None
    return dict(zip(("points", "starts"), row, strict=True))


def moved_zones(connection: psycopg.Connection) -> list[str]:
    """Count the days again of sites whose description has another zone by now; their names. Raises psycopg.Error."""
    with connection.transaction():
        _alone(connection)
        moved = connection.execute(_MOVED).fetchall()
        if moved:
            sites = [site for site, _ in moved]
            connection.execute(
                "DELETE FROM rollup_day d USING point p WHERE p.id = d.point AND p.site = ANY(%s)", (sites,)
            )
            connection.execute(_day(_QUARTERS_OF_SITES), {"sites": sites})
    return [name for _, name in moved]


def _alone(connection: psycopg.Connection) -> None:
    connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
    # Times go through texts of arrays.
    connection.execute("SET LOCAL datestyle = 'ISO'")
    # Everything here is few spans looked up in large tables. A hash join would read whole months instead.
    connection.execute("SET LOCAL enable_hashjoin = off")
    connection.execute("SET LOCAL enable_mergejoin = off")
    # It guesses many more rows than there are, and would compile each statement, which takes longer than running it.
    connection.execute("SET LOCAL jit = off")
    # What is derived may be lost with a crash: its notes are then there again, too.
    connection.execute("SET LOCAL synchronous_commit = off")


def follow(conninfo: str, every: float, stop: threading.Event) -> None:
    """Keep the rollups up to date until `stop`. A database that is away is waited for."""
    throttle = Throttle(30.0)
    notify("READY=1")
    while not stop.is_set():
        try:
            with psycopg.connect(
                conninfo, autocommit=True, connect_timeout=10, application_name="energy-rollup"
            ) as connection:
                for line in _rounds(connection, every, stop):
                    log.info(line)
        except psycopg.Error as error:
            _say(throttle, error)
            stop.wait(RETRY)
    notify("STOPPING=1")


def _say(throttle: Throttle, error: psycopg.Error) -> None:
    text = trouble(error)
    if throttle(text) is not None:
        log.error("ERR %s; retrying, nothing is lost", text)


def _rounds(connection: psycopg.Connection, every: float, stop: threading.Event) -> Iterator[str]:
    """Round after round; a line for what an operator may want to know."""
    connection.execute("SET timezone = 'UTC'")
    while not stop.is_set():
        for site in moved_zones(connection):
            yield f"the days of {site} are counted by another zone now"
        since, batches = time.monotonic(), 0
        while not stop.is_set() and (done := step(connection)):
            batches += done
            notify("WATCHDOG=1")
        took = time.monotonic() - since
        if took > every:
            yield f"{batches} batches counted in {took:.0f} s"
        notify("WATCHDOG=1")
        stop.wait(every)
