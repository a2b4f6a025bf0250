# SPDX-License-Identifier: Apache-2.0
"""Questions to the database that operators and the playbooks ask; the answers are plain rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

Row = dict[str, Any]
METER_POINTS = ("active_power", "energy_import", "energy_export")


def sites(connection: psycopg.Connection) -> list[Row]:
    """A row a site, with its meters; the shape is described in docs/reference/hub-configuration.md."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            """
            SELECT s.name AS site, s.state, s.last_seen, s.status,
                   coalesce(b.readings, 0)::bigint AS readings, coalesce(b.batches, 0) AS batches,
                   coalesce(b.quarantined, 0) AS quarantined, b.last_received,
                   coalesce(b.pending, 0) AS chain_pending, coalesce(b.broken, 0) AS chain_broken,
                   coalesce(t.missing, 0)::bigint AS missing_batches,
                   (SELECT max(k.not_after) FROM site_key k WHERE k.site = s.id) AS certificate_expires
            FROM site s
            LEFT JOIN (SELECT site, count(*) AS batches, sum(readings) AS readings,
                              max(received) AS last_received,
                              count(*) FILTER (WHERE quarantined) AS quarantined,
                              count(*) FILTER (WHERE chain = 0) AS pending,
                              count(*) FILTER (WHERE chain = 2) AS broken
                       FROM batch GROUP BY site) b ON b.site = s.id
            LEFT JOIN (SELECT site, sum(upper(committed) - 1 - (SELECT sum(upper(r) - lower(r))
                                                                FROM unnest(committed) AS r)) AS missing
                       FROM stream WHERE NOT isempty(committed) GROUP BY site) t ON t.site = s.id
            ORDER BY s.name
            """
        ).fetchall()
    meters = _meters(connection)
    for row in rows:
        row["chain"] = "broken" if row["chain_broken"] else "pending" if row["chain_pending"] else "ok"
        found = meters.get(row["site"], {})
        row["meters"] = found
        times = [point["time"] for meter in found.values() for point in meter.values()]
        row["newest_reading"] = max([*times, *_newest(connection, row["site"])], default=None)
    return rows


def _meters(connection: psycopg.Connection) -> dict[str, dict[str, dict[str, Row]]]:
    """site -> meter -> point -> newest reading with its unit, for the points of METER_POINTS."""
    found: dict[str, dict[str, dict[str, Row]]] = {}
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(
            """
            SELECT s.name AS site, split_part(p.name, '/', 1) AS meter, split_part(p.name, '/', 2) AS point,
                   r.time, r.value, r.quality,
                   (SELECT u.unit FROM point_unit u WHERE u.point = p.id AND u.since <= r.time
                    ORDER BY u.since DESC LIMIT 1) AS unit
            FROM point p
            JOIN site s ON s.id = p.site
            CROSS JOIN LATERAL (SELECT time, value, quality FROM reading WHERE point = p.id
                                ORDER BY time DESC LIMIT 1) AS r
            WHERE split_part(p.name, '/', 2) = ANY(%s)
            ORDER BY 1, 2, 3
            """,
            (list(METER_POINTS),),
        ):
            site, meter, point = row.pop("site"), row.pop("meter"), row.pop("point")
            found.setdefault(site, {}).setdefault(meter, {})[point] = row
    return found


def _newest(connection: psycopg.Connection, site: str) -> list[datetime]:
    row = connection.execute(
        "SELECT max(newest.time) FROM point p JOIN site s ON s.id = p.site CROSS JOIN LATERAL"
        " (SELECT time FROM reading WHERE point = p.id ORDER BY time DESC LIMIT 1) AS newest"
        " WHERE s.name = %s",
        (site,),
    ).fetchone()
    return [row[0]] if row and row[0] else []


def committed(connection: psycopg.Connection, minutes: float) -> dict[str, Row]:
    """For every site: readings and batches committed in the last minutes."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "SELECT s.name AS site, coalesce(sum(b.readings), 0)::bigint AS readings, count(b.id) AS batches"
            " FROM site s LEFT JOIN batch b"
            " ON b.site = s.id AND b.received >= now() - make_interval(secs => %s)"
            " GROUP BY s.name ORDER BY s.name",
            (60.0 * minutes,),
        ).fetchall()
    return {row.pop("site"): row for row in rows}


def identities(
    connection: psycopg.Connection,
    site: str,
    since: datetime | None,
    until: datetime | None,
    points: Sequence[str] | None = None,
) -> Iterator[tuple[str, datetime, float | None, int]]:
    """(point, time, value, quality) of one site, by point and time, through a server-side cursor."""
    with connection.transaction(), connection.cursor(name="identities") as cursor:
        cursor.itersize = 20_000
        cursor.execute(
            "SELECT p.name, r.time, r.value, r.quality FROM reading r JOIN point p ON p.id = r.point"
            " JOIN site s ON s.id = p.site WHERE s.name = %s"
            " AND r.time >= coalesce(%s::timestamptz, '-infinity')"
            " AND r.time < coalesce(%s::timestamptz, 'infinity')"
            " AND (%s::text[] IS NULL OR p.name = ANY(%s)) ORDER BY p.name, r.time",
            (site, since, until, points, points),
        )
        yield from cursor
