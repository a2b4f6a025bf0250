# SPDX-License-Identifier: Apache-2.0
"""Partitions of the months ahead, and the end of those that are older than what is kept raw.

A month goes as a whole, and only when nothing is lost that somebody may ask for: its rollups count everything, and each
of its batches is in a tree that was signed. The batches stay, with all their bytes, and so do leaves, checkpoints and
rollups; what was dropped of each site is counted in table `retired`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import LiteralString, NamedTuple

import psycopg
from psycopg import sql

from energy_hub import migrate
from energy_hub.evidence.checkpoint import SiteTree

# An ingest that is in the middle of something is not waited for longer, in s; the next day is soon enough.
PATIENCE = 10

_MONTHS: LiteralString = (
    "SELECT to_date(substr(c.relname, 9), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC' FROM pg_inherits i"
    " JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'reading'::regclass"
    " AND c.relname ~ '^reading_\\d{4}_\\d{2}$' ORDER BY c.relname"
)


class Month(NamedTuple):
    """A month that is older than what is kept; `why` it has to stay, if it has to."""

    begin: datetime
    readings: dict[int, int]
    # Sites that did not live here when it was looked at.
    away: frozenset[int]
    why: str

    def __str__(self) -> str:
        return f"{self.begin:%Y-%m}"


def months(connection: psycopg.Connection) -> list[datetime]:
    """First days of the months whose readings have a partition. Raises psycopg.Error."""
    return [begin.astimezone(UTC) for (begin,) in connection.execute(_MONTHS)]


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
    for begin in months(connection):
        if begin < before:
            yield _retire(connection, begin, signed, dry_run=dry_run)


def _retire(
    connection: psycopg.Connection, begin: datetime, signed: Mapping[str, SiteTree], *, dry_run: bool
) -> str:
    newest = _settled(connection)
    if newest is None:
        return f"kept {begin:%Y-%m}: a batch is being written for more than {PATIENCE} s"
    # This may take an hour, and what comes late of the month comes meanwhile.
    month = _look(connection, begin, signed)
    what = f"{month}: {sum(month.readings.values())} readings of {len(month.readings)} sites"
    if not month.why and dry_run:
        return f"would drop {what}"
    if not month.why:
        month = month._replace(why=_drop(connection, month, newest))
    return f"kept {month}: {month.why}" if month.why else f"dropped {what}"


def _drop(connection: psycopg.Connection, month: Month, newest: int) -> str:
    """Unless something has come since the look that keeps it; what that is."""
    table = _table(month.begin)
    with connection.transaction():
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(f"{PATIENCE}s")))
        # From here on nothing comes to the month, so what is asked now has to be little.
        connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(table))
        why = _changed(connection, month, newest)
        if not why:
            now = connection.execute("SELECT now()").fetchone()
            assert now is not None
            with connection.cursor() as cursor:
                # A site that was moved brings along what was dropped of it before.
                cursor.executemany(
                    "INSERT INTO retired (site, month, readings, dropped) SELECT id, %s, %s, %s FROM site WHERE id = %s"
                    " ON CONFLICT (site, month) DO UPDATE"
                    " SET readings = retired.readings + excluded.readings, dropped = excluded.dropped",
                    [(month.begin, number, *now, site) for site, number in sorted(month.readings.items())],
                )
            connection.execute(sql.SQL("DROP TABLE {}").format(table))
    return why


def _settled(connection: psycopg.Connection) -> int | None:
    """The number of the newest batch, once every batch up to it is there: what comes later has a higher one. A batch
    that is being written may have a lower number than one that is there. None when somebody writes for too long."""
    row = connection.execute("SELECT coalesce(max(id), 0) FROM batch").fetchone()
    writing = _writers(connection)
    end = time.monotonic() + PATIENCE
    while writing := writing & _writers(connection):
        if time.monotonic() > end:
            return None
        time.sleep(0.1)
    return row[0] if row else None


def _writers(connection: psycopg.Connection) -> set[str]:
    """Transactions that have written batches, or may be about to."""
    rows = connection.execute(
        "SELECT virtualtransaction FROM pg_locks WHERE relation = 'batch'::regclass AND granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"
    )
    return {name for (name,) in rows}


def _table(begin: datetime) -> sql.Identifier:
    return sql.Identifier(f"reading_{begin.astimezone(UTC):%Y_%m}")


def _past(begin: datetime) -> datetime:
    return datetime(begin.year + begin.month // 12, begin.month % 12 + 1, 1, tzinfo=UTC)


def _uncounted(connection: psycopg.Connection, begin: datetime) -> str:
    waiting = connection.execute(
        "SELECT count(DISTINCT t.batch) FROM touched t WHERE t.first < %s AND t.last >= %s",
        (_past(begin), begin),
    ).fetchone()
    if waiting and waiting[0]:
        return (
            f"{waiting[0]} batches with readings of it are not in the rollups yet: energy-rollup counts them"
        )
    return ""


def _changed(connection: psycopg.Connection, month: Month, newest: int) -> str:
    """What may have changed since the look, by indexes and small tables alone."""
    # Block ranges of batches, of which an old month has hardly any with new ones.
    connection.execute("SET LOCAL enable_seqscan = off")
    late = connection.execute(
        sql.SQL("SELECT count(*) FROM {} WHERE batch > %s").format(_table(month.begin)), (newest,)
    ).fetchone()
    if late and late[0]:
        return f"{late[0]} readings of it came while it was looked at"
    # Its batches may be in no tree that was signed: those of a copy were not asked for.
    came = connection.execute(
        "SELECT name FROM site WHERE here AND id = ANY(%s)", (sorted(month.away & month.readings.keys()),)
    ).fetchone()
    if came:
        return f"{came[0]} was moved here while it was looked at"
    return _uncounted(connection, month.begin)


def _look(connection: psycopg.Connection, begin: datetime, signed: Mapping[str, SiteTree]) -> Month:
    why = _uncounted(connection, begin)
    away = frozenset(site for (site,) in connection.execute("SELECT id FROM site WHERE NOT here"))
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
    return Month(begin, readings, away, why)
