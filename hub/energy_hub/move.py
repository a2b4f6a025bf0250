# SPDX-License-Identifier: Apache-2.0
"""Moves a site from one database to another while its data flows.

    copy     everything as it is, then what has come meanwhile, again and again until that is little
    fence    the site's row in the old database: a commit that is under way ends first, the next one is refused
    rest     what was left, and what changes in place
    switch   one row of the directory. Until here the old database is right, from here on the new one
    open     the site's row in the new database

Whoever moves a site holds its lock in the directory's database, in the session that also switches. Cut off at any
instant, the lock is free, and the next worker that meets the fence takes it away where the directory says that the site
lives. Started again, the copy goes on with what is missing: which batches are there is asked, never remembered.

Numbers of sites, points, keys and batches are each database's own; they are found again by names, keys and sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from energy_hub.config import Databases
from energy_hub.evidence.leaves import keep_removed
from energy_hub.evidence.step import LOCK as CHECKPOINT_LOCK
from energy_hub.partitions import months
from energy_hub.rollup import LOCK as ROLLUP_LOCK
from energy_hub.shards import GONE, check_name, move_lock
from energy_hub.store import CHAIN_BROKEN

ROLE = "energy_migrate"
# Batches and readings of one transaction.
BATCHES, READINGS = 200, 100_000
# Passes before the fence: each has to copy what came during the one before it. So few are left for the fence then.
PASSES, FEW = 10, 20
LEVELS: tuple[LiteralString, ...] = ("minute", "quarter", "hour", "day")
_FIGURES: LiteralString = (
    "start, readings, good, uncertain, sum, minimum, maximum, first_time, first_value, last_time, last_value"
)

Say = Callable[[str], None]


class MoveError(RuntimeError):
    """A site cannot be moved; the message says why, and nothing has changed."""


@contextmanager
def connections(databases: Databases, names: Iterable[str]) -> Iterator[dict[str, psycopg.Connection]]:
    """As the owner. Raises psycopg.Error."""
    found: dict[str, psycopg.Connection] = {}
    try:
        for name in names:
            # A database that is gone without a word must not keep a site behind the fence for long.
            conninfo = make_conninfo(databases.conninfo(name, ROLE), **GONE, application_name="energy-move")
            found[name] = psycopg.connect(conninfo, autocommit=True)
            found[name].execute("SET timezone = 'UTC'")
            check_name(found[name], name)
        yield found
    finally:
        for one in found.values():
            one.close()


@contextmanager
def alone(directory: psycopg.Connection, site: str) -> Iterator[None]:
    """Nobody else moves the site meanwhile. Raises MoveError."""
    key = (move_lock(site),)
    if directory.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", key).fetchone() != (True,):
        raise MoveError(f"{site} is being moved by another process")
    try:
        yield
    finally:
        if not directory.closed:
            directory.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", key)


def move_site(databases: Databases, site: str, target: str, say: Say) -> None:
    """Raises MoveError, psycopg.Error."""
    if target not in databases.conninfos:
        raise MoveError(f"no database {target}: expected one of {', '.join(sorted(databases.conninfos))}")
    conninfo = databases.conninfo(databases.directory, ROLE)
    # A connection of its own for the directory: it switches while the others are in transactions.
    with psycopg.connect(conninfo, autocommit=True) as directory, alone(directory, site):
        source = _home(directory, site)
        with connections(databases, {source, target}) as found:
            if source != target:
                _Move(directory, found[source], found[target], site, source, target, say).run()
            found[target].execute("UPDATE site SET here = true WHERE name = %s AND NOT here", (site,))
    say(f"{site} lives in {target}" + ("" if source != target else " already"))


def _home(directory: psycopg.Connection, site: str) -> str:
    row = directory.execute("SELECT shard FROM directory WHERE site = %s", (site,)).fetchone()
    if row is None:
        raise MoveError(f"the directory knows no site {site}")
    return str(row[0])


class _Move:
    def __init__(
        self,
        directory: psycopg.Connection,
        source: psycopg.Connection,
        target: psycopg.Connection,
        site: str,
        source_name: str,
        target_name: str,
        say: Say,
    ) -> None:
        self.directory = directory
        self.source = source
        self.target = target
        self.site = site
        self.names = source_name, target_name
        self.say = say
        self.there = _one(source, "SELECT id FROM site WHERE name = %s", site)
        self.here = 0

    def run(self) -> None:
        self._prepare()
        for number in range(PASSES):
            copied = self._pass(first=number == 0)
            self.say(f"copied {copied} batches")
            if number and copied <= FEW:
                break
        self._switch()

    # --- before the fence

    def _prepare(self) -> None:
        with self.target.transaction():
            self.target.execute(
                "INSERT INTO site (name, here) VALUES (%s, false) ON CONFLICT DO NOTHING", (self.site,)
            )
            self.target.execute("SELECT FROM site WHERE name = %s FOR UPDATE", (self.site,))
            self.target.execute("UPDATE site SET here = false WHERE name = %s", (self.site,))
        self.here = _one(self.target, "SELECT id FROM site WHERE name = %s", self.site)
        for month in months(self.source):
            self.target.execute("SELECT ensure_month(%s)", (month,))
        for statement in (
            "CREATE TEMPORARY TABLE IF NOT EXISTS map_point (old integer, new integer)",
            "CREATE TEMPORARY TABLE IF NOT EXISTS map_key (old integer, new integer)",
            "CREATE TEMPORARY TABLE IF NOT EXISTS map_batch (old bigint PRIMARY KEY, new bigint)",
        ):
            self.source.execute(statement)
        for statement in (
            "CREATE TEMPORARY TABLE in_key (LIKE site_key) ON COMMIT DELETE ROWS",
            "CREATE TEMPORARY TABLE in_unit (name text, since timestamptz, unit text) ON COMMIT DELETE ROWS",
            "CREATE TEMPORARY TABLE in_batch (LIKE batch) ON COMMIT DELETE ROWS",
        ):
            self.target.execute(statement)

    def _pass(self, *, first: bool = False) -> int:
        """Copy what is missing, as the source is at one moment; how many batches there were."""
        with self.source.transaction():
            self.source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            with self.target.transaction():
                self._copy_names()
            self._map()
            if first:
                self._copy_rollups()
            copied = 0
            for chunk in self._missing():
                with self.target.transaction():
                    # What the rollups count that were copied, the notes that come with them do not say again.
                    self._copy_batches(chunk, touch=not first)
                copied += len(chunk)
            with self.target.transaction():
                self._copy_leaves()
                if first:
                    self._copy_touched()
        return copied

    def _copy_names(self) -> None:
        """Keys, points and their units, and what the site's file has said."""
        self._pipe(
            "SELECT * FROM site_key WHERE site = %s ORDER BY id", (self.there,), "in_key",
        )  # fmt: skip
        self.target.execute(
            "INSERT INTO site_key (site, public, statement, certificate, fingerprint, not_after, first_seen)"
            " SELECT %s, public, statement, certificate, fingerprint, not_after, first_seen FROM in_key ORDER BY id"
            " ON CONFLICT DO NOTHING",
            (self.here,),
        )
        names = [
            name
            for (name,) in self.source.execute(
                "SELECT name FROM point WHERE site = %s ORDER BY id", (self.there,)
            )
        ]
        self.target.execute(
            "INSERT INTO point (site, name) SELECT %s, t.name FROM unnest(%s::text[]) WITH ORDINALITY"
            " AS t (name, number) ORDER BY t.number ON CONFLICT DO NOTHING",
            (self.here, names),
        )
        self._pipe(
            "SELECT p.name, u.since, u.unit FROM point_unit u JOIN point p ON p.id = u.point WHERE p.site = %s",
            (self.there,),
            "in_unit",
        )
        self.target.execute(
            "INSERT INTO point_unit (point, since, unit) SELECT p.id, i.since, i.unit FROM in_unit i"
            " JOIN point p ON p.site = %s AND p.name = i.name ON CONFLICT DO NOTHING",
            (self.here,),
        )
        for row in self.source.execute(
            "SELECT site, since, digest, content::text, received FROM site_description WHERE site = %s",
            (self.site,),
        ):
            self.target.execute(
                "INSERT INTO site_description (site, since, digest, content, received)"
                " VALUES (%s, %s, %s, %s::jsonb, %s) ON CONFLICT DO NOTHING",
                row,
            )

    def _map(self) -> None:
        """Which numbers are which, into the source's temporary tables."""
        points: LiteralString = "SELECT name, id FROM point WHERE site = %s"
        keys: LiteralString = "SELECT (public, fingerprint)::text, id FROM site_key WHERE site = %s"
        for table, query in (("map_point", points), ("map_key", keys)):
            old: dict[str, int] = dict(self.source.execute(query, (self.there,)).fetchall())
            new: dict[str, int] = dict(self.target.execute(query, (self.here,)).fetchall())
            self.source.execute(f"TRUNCATE {table}")
            self.source.execute(
                f"INSERT INTO {table} SELECT * FROM unnest(%s::int[], %s::int[])",  # noqa: S608  (constants)
                (list(old.values()), [new[name] for name in old]),
            )
            self.source.execute(f"ANALYZE {table}")

    def _present(self, connection: psycopg.Connection, site: int) -> dict[bytes, str]:
        """The sequences of the batches that are there, by stream, as the text of a multirange."""
        return {
            bytes(stream): text
            for stream, text in connection.execute(
                "SELECT stream, range_agg(int8range(sequence, sequence, '[]') ORDER BY sequence)::text FROM batch"
                " WHERE site = %s GROUP BY stream",
                (site,),
            )
        }

    def _missing(self) -> Iterator[list[int]]:
        """Numbers (in the source) of batches that the target does not have, some at a time."""
        present = self._present(self.target, self.here)
        chunk: list[int] = []
        readings = 0
        with self.source.cursor(name="missing") as cursor:
            cursor.execute(
                "SELECT b.id, b.readings FROM batch b LEFT JOIN unnest(%s::bytea[], %s::text[]) AS t (stream, present)"
                " ON t.stream = b.stream WHERE b.site = %s"
                " AND NOT coalesce(t.present::int8multirange @> b.sequence, false) ORDER BY b.id",
                (list(present), list(present.values()), self.there),
            )
            for batch, count in cursor:
                chunk.append(batch)
                readings += count
                if len(chunk) >= BATCHES or readings >= READINGS:
                    yield chunk
                    chunk, readings = [], 0
        if chunk:
            yield chunk

    def _copy_batches(self, chunk: Sequence[int], *, touch: bool) -> None:
        self._pipe(
            "SELECT b.id, b.site, b.stream, b.sequence, b.digest, b.previous, b.signature, m.new, b.size, b.readings,"
            " b.received, b.chain, b.quarantined, b.content"
            " FROM batch b JOIN map_key m ON m.old = b.key WHERE b.id = ANY(%s)",
            (list(chunk),),
            "in_batch",
        )
        self.target.execute(
            "INSERT INTO batch (site, stream, sequence, digest, previous, signature, key, size, readings, received,"
            " chain, quarantined, content) SELECT %s, stream, sequence, digest, previous, signature, key, size,"
            " readings, received, chain, quarantined, content FROM in_batch ORDER BY id",
            (self.here,),
        )
        rows = self.target.execute(
            "SELECT i.id, b.id FROM in_batch i JOIN batch b"
            " ON b.site = %s AND b.stream = i.stream AND b.sequence = i.sequence",
            (self.here,),
        ).fetchall()
        if len(rows) != len(chunk):
            raise MoveError(
                f"{len(chunk) - len(rows)} batches of {self.site} have keys that are none of its:"
                " run energy-audit verify"
            )
        self.source.execute("TRUNCATE map_batch")
        self.source.execute(
            "INSERT INTO map_batch SELECT * FROM unnest(%s::bigint[], %s::bigint[])",
            ([old for old, _ in rows], [new for _, new in rows]),
        )
        # By the block ranges of the batches' numbers, wherever the readings' times are.
        readings: LiteralString = (
            " FROM reading r JOIN map_batch b ON b.old = r.batch JOIN map_point p ON p.old = r.point"
            " WHERE r.batch BETWEEN %s AND %s"
        )
        bounds = (min(chunk), max(chunk))
        self._pipe(
            "SELECT r.time, r.value, b.new, p.new, r.quality" + readings,
            bounds,
            "reading (time, value, batch, point, quality)",
        )
        if touch:
            spans = self.source.execute(
                "SELECT b.new, min(r.time), max(r.time), count(*), array_agg(DISTINCT p.new)::text"
                + readings
                + " GROUP BY b.new, date_bin('10 minutes', r.time, 'epoch')",
                bounds,
            ).fetchall()
            self._touch(spans)

    def _touch(self, spans: Sequence[tuple[Any, ...]]) -> None:
        if spans:
            self.target.execute(
                "INSERT INTO touched (site, batch, first, last, readings, points)"
                " SELECT %s, batch, first, last, readings, points::integer[]"
                " FROM unnest(%s::bigint[], %s::timestamptz[], %s::timestamptz[], %s::int[], %s::text[])"
                " AS t (batch, first, last, readings, points)",
                (self.here, *map(list, zip(*spans, strict=True))),
            )

    def _copy_rollups(self) -> None:
        """As they are with the first copy. What was not counted in them is noted in the target, which counts itself."""
        with self.target.transaction():
            self.target.execute(f"SELECT pg_advisory_xact_lock({ROLLUP_LOCK})")
            self.target.execute(
                "DELETE FROM touched t USING batch b WHERE b.id = t.batch AND b.site = %s", (self.here,)
            )
            for level in LEVELS:
                self.target.execute(
                    f"DELETE FROM rollup_{level} r USING point p WHERE p.id = r.point AND p.site = %s",  # noqa: S608  (constants)
                    (self.here,),
                )
                self._pipe(
                    f"SELECT m.new, {_FIGURES} FROM rollup_{level} r JOIN map_point m ON m.old = r.point",  # noqa: S608  (constants)
                    (),
                    f"rollup_{level} (point, {_FIGURES})",
                )
            self._replace("rollup_zone", "zone")
            self._replace("retired", "month, readings, dropped")

    def _copy_touched(self) -> None:
        """Notes of batches that the rollups did not count when they were copied."""
        new: dict[int, int] = dict(self.source.execute("SELECT old, new FROM map_point").fetchall())
        notes = self.source.execute(
            "SELECT b.stream, b.sequence, t.first, t.last, t.readings, t.points"
            " FROM touched t JOIN batch b ON b.id = t.batch WHERE b.site = %s",
            (self.there,),
        ).fetchall()
        batches = {
            (bytes(stream), sequence): batch
            for batch, stream, sequence in self.target.execute(
                "SELECT b.id, b.stream, b.sequence FROM batch b"
                " JOIN unnest(%s::bytea[], %s::bigint[]) AS t (stream, sequence) USING (stream, sequence)"
                " WHERE b.site = %s",
                ([note[0] for note in notes], [note[1] for note in notes], self.here),
            )
        }
        self._touch(
            [
                (batches[bytes(stream), sequence], *span, _points(points, new))
                for stream, sequence, *span, points in notes
                if (bytes(stream), sequence) in batches
            ]
        )

    def _copy_leaves(self) -> None:
        """The site's tree: leaves never change, so those behind the last one are missing."""
        size = _one(self.target, "SELECT coalesce(max(number) + 1, 0) FROM leaf WHERE site = %s", self.here)
        self.target.execute(
            "CREATE TEMPORARY TABLE in_leaf (of_stream bytea, of_sequence bigint, LIKE leaf) ON COMMIT DROP"
        )
        # By what the batch says of itself, so that a leaf whose batch is gone or another one stays that.
        self._pipe(
            "SELECT b.stream, b.sequence, l.site, l.number, l.batch, l.stream, l.sequence, l.received, l.hashes"
            " FROM leaf l LEFT JOIN batch b ON b.id = l.batch AND b.site = l.site"
            " WHERE l.site = %s AND l.number >= %s",
            (self.there, size),
            "in_leaf",
        )
        self.target.execute(
            "INSERT INTO leaf (site, number, batch, stream, sequence, received, hashes)"
            " SELECT %s, i.number, coalesce(b.id, -i.batch), i.stream, i.sequence, i.received, i.hashes"
            " FROM in_leaf i LEFT JOIN batch b"
            " ON b.site = %s AND b.stream = i.of_stream AND b.sequence = i.of_sequence",
            (self.here, self.here),
        )

    # --- behind the fence

    def _switch(self) -> None:
        # Between two checkpoints: the tree stays as it is while its end is copied.
        self.directory.execute(f"SELECT pg_advisory_lock({CHECKPOINT_LOCK})")
        try:
            with self.source.transaction():
                # Whoever commits something of the site holds its row.
                self.source.execute("SELECT FROM site WHERE id = %s FOR UPDATE", (self.there,))
                self.source.execute("UPDATE site SET here = false WHERE id = %s", (self.there,))
            try:
                # What was removed is evidence, and comes along as that.
                keep_removed(self.source, self.there)
                self._pass()
                with self.target.transaction():
                    self._copy_rest()
                self._check()
                self.directory.execute(
                    "UPDATE directory SET shard = %s, since = now() WHERE site = %s",
                    (self.names[1], self.site),
                )
            except BaseException:
                self._undo()
                raise
        finally:
            if not self.directory.closed:
                self.directory.execute(f"SELECT pg_advisory_unlock({CHECKPOINT_LOCK})")

    def _undo(self) -> None:
        """Open the site where it lives. Where that cannot be done now, the next worker does it."""
        try:
            if _home(self.directory, self.site) == self.names[0]:
                self.source.execute("UPDATE site SET here = true WHERE id = %s", (self.there,))
        except psycopg.Error as error:
            self.say(f"{self.site} stays closed until a worker opens it: {' '.join(str(error).split())}")

    def _copy_rest(self) -> None:
        """What changes in place, or is so little that it is copied whole."""
        self._replace("evidence", "found, kind, stream, sequence, detail", "ORDER BY id")
        self._copy_conflicts()
        columns: LiteralString = (
            "topic_site, digest, reason, signed, size, content, count, first_seen, last_seen"
        )
        self.target.execute("DELETE FROM quarantine WHERE topic_site = %s", (self.site,))
        self._pipe(
            f"SELECT {columns} FROM quarantine WHERE topic_site = %s ORDER BY id",  # noqa: S608  (constants)
            (self.site,),
            f"quarantine ({columns})",
        )
        self._replace("stream", "stream, committed")
        # Derived from the batches; a worker that was refused may not have come to it.
        self.target.execute(
            "INSERT INTO stream (site, stream, committed)"
            " SELECT site, stream, range_agg(int8range(sequence, sequence, '[]')) FROM batch WHERE site = %s"
            " GROUP BY site, stream"
            " ON CONFLICT (site, stream) DO UPDATE SET committed = stream.committed + excluded.committed",
            (self.here,),
        )
        self._copy_due()
        self._check_chain()
        row = self.source.execute(
            "SELECT first_seen, last_seen, state, status::text FROM site WHERE id = %s", (self.there,)
        ).fetchone()
        assert row is not None
        self.target.execute(
            "UPDATE site SET first_seen = %s, last_seen = %s, state = %s, status = %s::jsonb WHERE id = %s",
            (*row, self.here),
        )

    def _copy_conflicts(self) -> None:
        self.target.execute(
            "DELETE FROM conflict c USING point p WHERE p.id = c.point AND p.site = %s", (self.here,)
        )
        rows = self.source.execute(
            "SELECT m.new, c.time, c.first_value, c.first_quality, c.second_value, c.second_quality, c.found,"
            " f.stream, f.sequence, s.stream, s.sequence FROM conflict c JOIN map_point m ON m.old = c.point"
            " JOIN batch f ON f.id = c.first_batch JOIN batch s ON s.id = c.second_batch"
        )
        for *row, stream, sequence, other, number in rows:
            self.target.execute(
                "INSERT INTO conflict (point, time, first_value, first_quality, second_value, second_quality, found,"
                " first_batch, second_batch) SELECT %s, %s, %s, %s, %s, %s, %s, f.id, s.id FROM batch f, batch s"
                " WHERE f.site = %s AND f.stream = %s AND f.sequence = %s"
                " AND s.site = %s AND s.stream = %s AND s.sequence = %s",
                (*row, self.here, stream, sequence, self.here, other, number),
            )

    def _copy_due(self) -> None:
        """Batches that are in no tree yet."""
        self.target.execute(
            "DELETE FROM leaf_due d USING batch b WHERE b.id = d.batch AND b.site = %s", (self.here,)
        )
        rows = self.source.execute(
            "SELECT b.stream, b.sequence FROM leaf_due d JOIN batch b ON b.id = d.batch WHERE b.site = %s",
            (self.there,),
        ).fetchall()
        self.target.execute(
            "INSERT INTO leaf_due (batch, site, stream, sequence, received)"
            " SELECT b.id, b.site, b.stream, b.sequence, b.received"
            " FROM unnest(%s::bytea[], %s::bigint[]) AS t (stream, sequence)"
            " JOIN batch b ON b.site = %s AND b.stream = t.stream AND b.sequence = t.sequence",
            ([stream for stream, _ in rows], [number for _, number in rows], self.here),
        )

    def _check_chain(self) -> None:
        """Links whose batch before has come since they were copied."""
        self.target.execute(
            "WITH looked AS (UPDATE batch b SET chain = CASE WHEN b.previous = p.digest THEN 1 ELSE 2 END FROM batch p"
            " WHERE b.site = %s AND b.chain = 0 AND p.site = b.site AND p.stream = b.stream"
            " AND p.sequence = b.sequence - 1 RETURNING b.site, b.stream, b.sequence, b.chain)"
            " INSERT INTO evidence (site, kind, stream, sequence, detail)"
            " SELECT l.site, 'chain-broken', l.stream, l.sequence, 'previous is not the digest of the batch before it'"
            " FROM looked l WHERE l.chain = %s AND NOT EXISTS (SELECT FROM evidence e WHERE e.site = l.site"
            " AND e.kind = 'chain-broken' AND e.stream = l.stream AND e.sequence = l.sequence)",
            (self.here, CHAIN_BROKEN),
        )

    def _check(self) -> None:
        """Raises MoveError when the copy is not whole."""
        for what, old, new in (
            ("batches", self._present(self.source, self.there), self._present(self.target, self.here)),
            *(
                (table, _one(self.source, query, self.there), _one(self.target, query, self.here))
                for table, query in _COUNTS.items()
            ),
        ):
            if old != new:
                raise MoveError(f"the copy of {self.site} is not whole: {what}: {new}, expected {old}")

    # --- pieces

    def _replace(self, table: LiteralString, columns: LiteralString, order: LiteralString = "") -> None:
        """Rows of a table that belong to the site alone."""
        self.target.execute(f"DELETE FROM {table} WHERE site = %s", (self.here,))  # noqa: S608  (constants)
        self._pipe(
            f"SELECT %s::int, {columns} FROM {table} WHERE site = %s {order}",  # noqa: S608  (constants)
            (self.here, self.there),
            f"{table} (site, {columns})",
        )

    def _pipe(self, query: LiteralString, values: Sequence[object], into: LiteralString) -> None:
        """Rows from the source into the target, as PostgreSQL has them."""
        with (
            psycopg.ClientCursor(self.source) as reading,
            self.target.cursor() as writing,
            reading.copy(f"COPY ({query}) TO STDOUT (FORMAT binary)", values) as out,
            writing.copy(f"COPY {into} FROM STDIN (FORMAT binary)") as into_,
        ):
            for piece in out:
                into_.write(piece)
        if reading.rowcount != writing.rowcount:
            raise MoveError(f"{into}: {writing.rowcount} rows, expected {reading.rowcount}")


_COUNTS: dict[LiteralString, LiteralString] = {
    "leaf": "SELECT count(*) FROM leaf WHERE site = %s",
    "leaf_due": "SELECT count(*) FROM leaf_due d JOIN batch b ON b.id = d.batch WHERE b.site = %s",
    "evidence": "SELECT count(*) FROM evidence WHERE site = %s AND kind <> 'chain-broken'",
    "readings of batches": "SELECT coalesce(sum(readings), 0) FROM batch WHERE site = %s",
}


def _points(points: Sequence[int] | None, new: Mapping[int, int]) -> str | None:
    """Points of a note by their new numbers, as the text of an array; None is any of the site."""
    found = [str(new[point]) for point in points or () if point in new]
    return "{" + ",".join(found) + "}" if found else None


def _one(connection: psycopg.Connection, query: LiteralString, *values: object) -> Any:
    row = connection.execute(query, values).fetchone()
    if row is None:
        raise MoveError(f"the database that the directory names has no site {values[0]}")
    return row[0]


def purge_site(databases: Databases, site: str, say: Say) -> None:
    """Delete the copies of a site that are not where it lives. It may be cut off at any instant, and begun again.
    Raises MoveError, psycopg.Error."""
    conninfo = databases.conninfo(databases.directory, ROLE)
    with (
        connections(databases, databases.conninfos) as found,
        psycopg.connect(conninfo, autocommit=True) as directory,
        alone(directory, site),
    ):
        home = _home(directory, site)
        if found[home].execute("SELECT here FROM site WHERE name = %s", (site,)).fetchone() != (True,):
            raise MoveError(
                f"{site} is not open in {home}, where the directory says it lives: nothing is purged"
            )
        for name, connection in found.items():
            if name != home and _purge(connection, site):
                say(f"the copy of {site} in {name} is deleted")


def _purge(connection: psycopg.Connection, site: str) -> bool:
    row = connection.execute("SELECT id, here FROM site WHERE name = %s", (site,)).fetchone()
    if row is None:
        return False
    if row[1]:
        raise MoveError(f"{site} is open in a database where it does not live: nothing is purged")
    number = row[0]
    for (point,) in connection.execute("SELECT id FROM point WHERE site = %s", (number,)).fetchall():
        # Each by itself: a year of one point is some million rows.
        for table in ("reading", "conflict", *(f"rollup_{level}" for level in LEVELS)):
            connection.execute(f"DELETE FROM {table} WHERE point = %s", (point,))  # noqa: S608  (constants)
    of_batches: LiteralString = "WHERE batch IN (SELECT id FROM batch WHERE site = %s)"
    with connection.transaction():
        for table, where in (
            ("touched", of_batches),
            ("leaf_due", of_batches),
            ("leaf_due", "WHERE site = %s"),
            ("leaf", "WHERE site = %s"),
            ("stream", "WHERE site = %s"),
            ("evidence", "WHERE site = %s"),
            ("batch", "WHERE site = %s"),
            ("site_key", "WHERE site = %s"),
            ("point_unit", "WHERE point IN (SELECT id FROM point WHERE site = %s)"),
            ("point", "WHERE site = %s"),
            ("rollup_zone", "WHERE site = %s"),
            ("retired", "WHERE site = %s"),
            ("site", "WHERE id = %s"),
        ):
            connection.execute(f"DELETE FROM {table} {where}", (number,))  # noqa: S608  (constants)
        connection.execute("DELETE FROM quarantine WHERE topic_site = %s", (site,))
        connection.execute("DELETE FROM site_description WHERE site = %s", (site,))
    return True
