# SPDX-License-Identifier: Apache-2.0
"""How sites fared over a span of time: what arrived of what they measured, and how late.

What is asked for is always bounded by point and time, which is the primary key of table `reading`: the cost is that
of the readings in the span, however large the table is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from energy_hub.evidence.step import Shard
from energy_hub.sequences import Ranges, ranges

Row = dict[str, Any]
Span = tuple[datetime, datetime]
# What gateways tell of themselves; everything else is a meter's. docs/reference/gateway-configuration.md
OWN_SOURCES = ("host", "hwmon", "buses")
# A counter's value from before the span counts when it is no older.
COUNTED_BEFORE = timedelta(hours=1)
# How far after the span it is looked for what proves that all of the span is here.
LOOKED_AFTER = timedelta(minutes=15)

# OFFSET 0 keeps PostgreSQL from flattening the inner query: it would then think of reading whole partitions.
_FIGURES = """
    WITH hit AS MATERIALIZED (
        SELECT split_part(p.name, '/', 1) AS meter, p.id AS point, r.time, r.quality, r.batch
        FROM point p
        CROSS JOIN LATERAL (SELECT time, quality, batch FROM reading
                            WHERE point = p.id AND time >= %(since)s AND time < %(until)s OFFSET 0) AS r
        WHERE p.site = %(site)s
    ), origin AS MATERIALIZED (
        SELECT b.id, b.stream, b.sequence, b.received, b.chain
        FROM (SELECT DISTINCT batch FROM hit) AS d
        CROSS JOIN LATERAL (SELECT * FROM batch WHERE id = d.batch OFFSET 0) AS b
    ), seen AS MATERIALIZED (
        SELECT h.*, extract(epoch FROM o.received - h.time)::float8 AS late
        FROM hit h JOIN origin o ON o.id = h.batch
    )
    SELECT
        (SELECT coalesce(jsonb_object_agg(meter, to_jsonb(m) - 'meter'), '{}') FROM (
            SELECT meter, count(*) AS points, max(readings) AS polls, max(readings - nulls) AS answered,
                   sum(readings)::bigint AS readings, sum(nulls)::bigint AS nulls,
                   sum(uncertain)::bigint AS uncertain,
                   min(oldest) AS oldest, max(newest) AS newest, min(least_delay) AS least_delay
            FROM (SELECT meter, count(*) AS readings,
                         count(*) FILTER (WHERE quality >= 128) AS nulls,
                         count(*) FILTER (WHERE quality BETWEEN 64 AND 127) AS uncertain,
                         min(time) AS oldest, max(time) AS newest, min(late) AS least_delay
                  FROM seen GROUP BY meter, point) AS by_point
            GROUP BY meter) AS m) AS meters,
        (SELECT coalesce(jsonb_agg(q), '[]') FROM (
            SELECT meter, quality, count(*) AS readings FROM seen GROUP BY meter, quality
            ORDER BY meter, quality) AS q) AS qualities,
        (SELECT count(*) FROM origin) AS batches,
        (SELECT CASE WHEN bool_or(chain = 2) THEN 'broken' WHEN bool_or(chain = 0) THEN 'pending' ELSE 'ok' END
         FROM origin) AS chain,
        (SELECT percentile_disc(ARRAY[0, 0.5, 0.99]) WITHIN GROUP (ORDER BY late) FROM seen) AS delay,
        (SELECT max(h.time) FROM hit h JOIN origin o ON o.id = h.batch
         WHERE o.stream = %(stream)s AND o.sequence <= %(watermark)s) AS complete
"""

# For a gap that is later than the span, and does not concern it.
_COMPLETE_AFTER = """
    SELECT max(r.time) AS complete
    FROM point p
    CROSS JOIN LATERAL (SELECT time, batch FROM reading
                        WHERE point = p.id AND time >= %(until)s AND time < %(after)s OFFSET 0) AS r
    CROSS JOIN LATERAL (SELECT stream, sequence FROM batch WHERE id = r.batch OFFSET 0) AS b
    WHERE p.site = %(site)s AND b.stream = %(stream)s AND b.sequence <= %(watermark)s
"""

_COUNTERS = """
    SELECT split_part(p.name, '/', 2) AS point, r.value
    FROM point p
    CROSS JOIN LATERAL (
        (SELECT time, value FROM reading WHERE point = p.id AND time < %(since)s AND time >= %(before)s
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT time, value FROM reading WHERE point = p.id AND time >= %(since)s AND time < %(until)s)
    ) AS r
    WHERE p.site = %(site)s AND p.name LIKE 'buses/%%' AND r.value IS NOT NULL
    ORDER BY p.name, r.time
"""

_NEWEST = """
    SELECT max(r.time) AS newest,
           max(r.value) FILTER (WHERE p.name = 'host/clock_synchronised') AS clock_synchronised
    FROM point p
    CROSS JOIN LATERAL (SELECT time, value FROM reading WHERE point = p.id ORDER BY time DESC LIMIT 1) AS r
    WHERE p.site = %(site)s
"""

# Meters that report by themselves, when something changes or when the radio lets them: how often they do says nothing
# about the gateway.
_BY_RADIO = """
    SELECT m ->> 'name' AS meter
    FROM (SELECT content FROM site_description WHERE site = %(name)s AND since <= %(until)s
          ORDER BY since DESC LIMIT 1) AS d
    CROSS JOIN LATERAL jsonb_path_query(d.content, '$.meters[*] ? (exists (@.radio))') AS m
"""

_STREAMS = """
    SELECT t.stream, t.committed::text, b.received
    FROM stream t
    JOIN batch b ON b.site = t.site AND b.stream = t.stream AND b.sequence = upper(t.committed) - 1
    WHERE t.site = %(site)s AND NOT isempty(t.committed)
    ORDER BY b.received DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The stream that a gateway writes now: up to which sequence everything is here, and the newest that is."""

    stream: bytes
    watermark: int
    newest: int

    @property
    def is_whole(self) -> bool:
        return self.watermark == self.newest


def health(
    connection: psycopg.Connection,
    since: datetime,
    until: datetime,
    names: Sequence[str] = (),
    spans: Mapping[str, Span] = {},
) -> Row:
    """The figures of all sites, or of some; docs/reference/hub-configuration.md has the shape. `spans` are those of
    sites that have one of their own."""
    connection.read_only = True
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        # One moment for all: a batch that is committed meanwhile is in none of the figures, or in all.
        now = cursor.execute("SELECT now()").fetchone()
        rows = cursor.execute(
            "SELECT id, name, state, last_seen, status FROM site WHERE %s::text[] = '{}' OR name = ANY(%s)"
            " ORDER BY name",
            (list(names), list(names)),
        ).fetchall()
        sites = {row["name"]: _site(cursor, row, *spans.get(row["name"], (since, until))) for row in rows}
    return {
        "now": now["now"] if now else None,
        "sites": sites,
        "unknown": sorted(set(names) - sites.keys()),
    }


def of_all(
    shards: Sequence[Shard],
    since: datetime,
    until: datetime,
    names: Sequence[str] = (),
    spans: Mapping[str, Span] = {},
) -> Row:
    """The same of several databases: each is asked for the sites that live there."""
    found: Row = {"now": None, "sites": {}}
    for shard in shards:
        here = list(names) if shard.sites is None else sorted(shard.sites & set(names or shard.sites))
        if shard.sites is not None and not here:
            continue
        part = health(shard.connection, since, until, here, spans)
        found["now"] = min(filter(None, (found["now"], part["now"])), default=None)
        found["sites"] |= part["sites"]
    return found | {
        "sites": dict(sorted(found["sites"].items())),
        "unknown": sorted(set(names) - found["sites"].keys()),
    }


def _site(cursor: psycopg.Cursor[Row], site: Row, since: datetime, until: datetime) -> Row:
    span = {"site": site["id"], "since": since, "until": until, "before": since - COUNTED_BEFORE}
    delivered = _delivered(cursor, span, site["status"])
    stream, watermark = (delivered.stream, delivered.watermark) if delivered else (b"", 0)
    span |= {"stream": stream, "watermark": watermark, "after": until + LOOKED_AFTER}
    found = _one(cursor, _FIGURES, span)
    complete = found["complete"]
    if delivered and not delivered.is_whole:
        complete = _one(cursor, _COMPLETE_AFTER, span)["complete"] or complete
    newest = _one(cursor, _NEWEST, span)
    counted = cursor.execute(_COUNTERS, span).fetchall()
    meters: dict[str, Row] = found["meters"]
    for row in meters.values():
        row["quality"] = {}
    for row in found["qualities"]:
        meters[row["meter"]]["quality"][str(row["quality"])] = row["readings"]
    by_radio = cursor.execute(_BY_RADIO, {"name": site["name"], "until": until}).fetchall()
    apart = {*OWN_SOURCES, *(row["meter"] for row in by_radio)}
    least, median, most = found["delay"] or (None, None, None)
    clock = newest["clock_synchronised"]
    return {
        "since": since,
        "until": until,
        "state": site["state"],
        "last_seen": site["last_seen"],
        "status": site["status"],
        "newest_reading": newest["newest"],
        "complete_until": complete_until(delivered, site["status"], complete, newest["newest"]),
        "meters": {name: row for name, row in meters.items() if name not in apart},
        "sources": {name: row for name, row in meters.items() if name in apart},
        "buses": by_bus((row["point"], row["value"]) for row in counted),
        "batches": found["batches"],
        "chain": found["chain"] or "ok",
        "delay": {"least": least, "p50": median, "p99": most},
        "clock_synchronised": None if clock is None else bool(clock),
    }


def _one(cursor: psycopg.Cursor[Row], query: str, values: Mapping[str, object]) -> Row:
    row = cursor.execute(query, values).fetchone()
    assert row is not None, "an aggregate has one row"
    return dict(row)


def _delivered(
    cursor: psycopg.Cursor[Row], span: Mapping[str, object], status: Mapping[str, Any]
) -> Delivered | None:
    row = cursor.execute(_STREAMS, span).fetchone()
    if row is None:
        return None
    committed = ranges(row["committed"])
    stream = bytes(row["stream"])
    first = status.get("first") if status.get("stream") == stream.hex() else None
    return Delivered(stream, watermark(committed, first), committed[-1][1])


def watermark(committed: Ranges, first: int | None) -> int:
    """The sequence up to which nothing is missing. `first` is the oldest that the gateway still has: what is missing
    below it was dropped, and never comes."""
    mark = (first or 1) - 1
    for low, high in committed:
        if low > mark + 1:
            break
        mark = max(mark, high)
    return mark


def complete_until(
    delivered: Delivered | None,
    status: Mapping[str, Any],
    complete: datetime | None,
    newest: datetime | None,
) -> datetime | None:
    """Up to which time everything is here that the gateway has measured; None when that is not known.

    `complete` is a reading in a batch up to the watermark, in the span or soon after; `newest` is that of all. A
    gateway that measures nothing seals nothing: then its status tells that its buffer is empty, and since when.
    """
    if delivered is None:
        return None
    times = [newest if delivered.is_whole else complete]
    buffer = status.get("buffer")
    if (
        status.get("stream") == delivered.stream.hex()
        and isinstance(buffer, dict)
        and buffer.get("readings") == 0
        and isinstance(status.get("sequence"), int)
        and status["sequence"] <= delivered.watermark
    ):
        times.append(_moment(status.get("time")))
    known = [time for time in times if time is not None]
    return max(known, default=None)


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None  # a gateway's word: nothing follows from one that cannot be read
    return moment if moment.tzinfo else None


def by_bus(counted: Iterable[tuple[str, float]]) -> dict[str, dict[str, int]]:
    """bus -> counter -> by how much it grew, from `<bus>-<counter>` and its values in the order of time.

    A value below the one before began again at 0. The first value is where counting begins.
    """
    found: dict[str, dict[str, int]] = {}
    last: dict[str, float] = {}
    for name, value in counted:
        bus, _, counter = name.rpartition("-")
        before = last.get(name)
        grown = 0.0 if before is None else value - before if value >= before else value
        counters = found.setdefault(bus, {})
        counters[counter] = counters.get(counter, 0) + int(grown)
        last[name] = value
    return found
