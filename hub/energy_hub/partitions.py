# SPDX-License-Identifier: Apache-2.0
"""Partitions of the months ahead, and the end of those that are older than what is kept raw.

A month goes as a whole, and only when nothing is lost that somebody may ask for: its rollups count everything, and each
of its batches is in a tree that was signed. The batches stay, with all their bytes, and so do leaves, checkpoints and
rollups; what was dropped of each site is counted in table `retired`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import LiteralString, NamedTuple

import psycopg
from psycopg import sql

from energy_hub import migrate
from energy_hub.evidence.checkpoint import SiteTree

# An ingest that is in the middle of something is not waited for longer, in s; the next day is soon enough.
PATIENCE = 10

_OLD: LiteralString = (
    "SELECT to_date(substr(relname, 9), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC' AS month FROM pg_class"
    " WHERE relname ~ '^reading_\\d{4}_\\d{2}$' AND relnamespace = 'public'::regnamespace ORDER BY relname"
)


class Month(NamedTuple):
    """A month that is older than what is kept; `why` it has to stay, if it has to."""

    begin: datetime
    readings: dict[int, int]
    why: str

    def __str__(self) -> str:
        return f"{self.begin:%Y-%m}"


def make(connection: psycopg.Connection, now: datetime) -> Iterator[str]:
    """The months ahead; a line for each that was made. Raises psycopg.Error."""
    for month in migrate.missing_months(connection, now):
        if connection.execute("SELECT ensure_month(%s)", (month,)).fetchone() == (True,):
            yield f"made partition {month:%Y-%m}"


def first_kept(now: datetime, months: int) -> datetime:
    """So many whole months before this one are kept."""
    count = now.year * 12 + now.month - 1 - months
    return datetime(count // 12, count % 12 + 1, 1, tzinfo=UTC)


def retire(
    connection: psycopg.Connection,
    signed: Mapping[str, SiteTree],
    before: datetime,
    *,
    dry_run: bool,
) -> Iterator[str]:
    """Drop the months before a day, by the trees of the newest checkpoint; a line for each month. Raises
    psycopg.Error."""
    for (begin,) in connection.execute(_OLD).fetchall():
        if begin.astimezone(UTC) >= before:
            continue
        with connection.transaction():
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(f"{PATIENCE}s")))
            if not dry_run:
                # Nothing comes late to this month while it is looked at and dropped.
                connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(_table(begin)))
            month = _look(connection, begin.astimezone(UTC), signed)
            count = sum(month.readings.values())
            if month.why:
                yield f"kept {month}: {month.why}"
                continue
            if dry_run:
                yield f"would drop {month}: {count} readings of {len(month.readings)} sites"
                continue
            with connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO retired (site, month, readings) VALUES (%s, %s, %s)",
                    [(site, month.begin, number) for site, number in sorted(month.readings.items())],
                )
            connection.execute(sql.SQL("DROP TABLE {}").format(_table(begin)))
        yield f"dropped {month}: {count} readings of {len(month.readings)} sites"


def _table(begin: datetime) -> sql.Identifier:
    return sql.Identifier(f"reading_{begin.astimezone(UTC):%Y_%m}")


def _look(connection: psycopg.Connection, begin: datetime, signed: Mapping[str, SiteTree]) -> Month:
    past = datetime(begin.year + begin.month // 12, begin.month % 12 + 1, 1, tzinfo=UTC)
    why = ""
    waiting = connection.execute(
        "SELECT count(DISTINCT t.batch) FROM touched t WHERE t.first < %s AND t.last >= %s", (past, begin)
    ).fetchone()
    if waiting and waiting[0]:
        why = (
            f"{waiting[0]} batches with readings of it are not in the rollups yet: energy-rollup counts them"
        )
    # A copy of a site that has moved away is no evidence: it is purged, or goes with the month.
    unsigned = connection.execute(
        sql.SQL(
            "SELECT count(DISTINCT r.batch), min(s.name) FROM {} r JOIN point p ON p.id = r.point"
            " JOIN site s ON s.id = p.site LEFT JOIN leaf l ON l.batch = r.batch AND l.site = p.site"
            " LEFT JOIN unnest(%s::text[], %s::bigint[]) AS t (site, size) ON t.site = s.name"
            " WHERE s.here AND (l.number IS NULL OR l.number >= coalesce(t.size, 0))"
        ).format(_table(begin)),
        (list(signed), [tree.size for tree in signed.values()]),
    ).fetchone()
    if unsigned and unsigned[0]:
        why = f"{unsigned[0]} batches, of {unsigned[1]} for instance, are in no tree that was signed: see energy-audit"
    readings: dict[int, int] = dict(
        connection.execute(
            sql.SQL(
                "SELECT p.site, count(*) FROM {} r JOIN point p ON p.id = r.point GROUP BY p.site"
            ).format(_table(begin))
        ).fetchall()
    )
    return Month(begin, readings, why)
