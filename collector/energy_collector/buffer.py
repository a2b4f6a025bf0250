# SPDX-License-Identifier: Apache-2.0
"""The buffer: one SQLite file between the service that polls and the one that delivers.

Readings come in, batches are sealed from the oldest ones, and a batch goes when the hub has it. Each service
opens the file for itself. What a commit reported as done survives a power cut (WAL, synchronous=FULL). Row
ids of readings ascend without a gap and are never used twice; readings leave from the low end only.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from energy_collector import batch
from energy_collector.errors import UnusableError
from energy_collector.reading import Reading

SCHEMA_VERSION = 1
BUSY_TIMEOUT = 30.0
# What the write-ahead log is cut back to after a checkpoint, in bytes.
WAL_LIMIT = 4 << 20
# Readings dropped at once when the buffer is full.
DROP_READINGS = 1000

SCHEMA = """
CREATE TABLE points (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    unit TEXT NOT NULL,
    last INTEGER NOT NULL DEFAULT 0,     -- time of the newest reading that was sealed
    UNIQUE (name, unit)
);
CREATE TABLE readings (
    id INTEGER PRIMARY KEY,
    point INTEGER NOT NULL REFERENCES points (id),
    time INTEGER NOT NULL,
    value REAL,
    quality INTEGER NOT NULL
);
CREATE TABLE batches (
    sequence INTEGER PRIMARY KEY,
    readings INTEGER NOT NULL,
    first INTEGER NOT NULL,              -- time of its oldest reading
    last INTEGER NOT NULL,               -- and of its newest
    data BLOB NOT NULL
);
CREATE TABLE head (
    stream BLOB NOT NULL,
    sequence INTEGER NOT NULL,           -- of the newest batch sealed, 0 before the first
    digest BLOB NOT NULL,                -- of that batch
    reading INTEGER NOT NULL,            -- highest id that has left the table of readings
    dropped INTEGER NOT NULL             -- readings that were thrown away at the bounds
);
"""


class BufferUnusableError(UnusableError):
    """The file cannot be used as a buffer; the message is one line for the operator."""


@dataclass(frozen=True)
class State:
    """What the buffer holds. `readings` counts those in batches too; `oldest` is ms UTC or None."""

    stream: str
    sequence: int
    readings: int
    batches: int
    bytes: int
    dropped: int
    oldest: int | None


class Stored(NamedTuple):
    """A sealed batch."""

    sequence: int
    readings: int
    data: bytes


class Buffer:
    """One connection to the file; to be used by one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
            self._set_up()
        except sqlite3.Error as error:
            raise BufferUnusableError(f"{path}: {error}") from error
        self._points: dict[tuple[str, str], int] = {}
        self._next: int | None = None

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def _set_up(self) -> None:
        # Two services may start at once: the busy time-out does not cover the switch to WAL, so it is tried
        # again.
        deadline = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        with self._transaction():
            version = self._one("PRAGMA user_version")
            if version == 0:
                for statement in SCHEMA.split(";"):
                    self._db.execute(statement)
                head = (secrets.token_bytes(batch.STREAM_SIZE), batch.FIRST_PREVIOUS)
                self._db.execute("INSERT INTO head VALUES (?, 0, ?, 0, 0)", head)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                found = f"made by another version (schema {version}, this one knows {SCHEMA_VERSION})"
                raise BufferUnusableError(f"{self.path}: {found}")

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def _one(self, query: str, *arguments: object) -> int:
        return int(self._db.execute(query, arguments).fetchone()[0])

    # What the polling service does.

    def append(self, readings: Iterable[Reading]) -> None:
        """Store readings in one durable transaction; all or none of them when it raises sqlite3.Error."""
        try:
            self._next = self._append(readings)
        except sqlite3.Error:
            # Numbers that were given in a transaction that is rolled back do not exist.
            self._points.clear()
            self._next = None
            raise

    def _append(self, readings: Iterable[Reading]) -> int:
        with self._transaction():
            if self._next is None:
                self._next = 1 + self._one(
                    "SELECT max(reading, ifnull((SELECT max(id) FROM readings), 0)) FROM head"
                )
            following = self._next
            rows = []
            for reading in readings:
                point = self._point(reading.point, reading.unit)
                rows.append((following, point, reading.time, reading.value, reading.quality))
                following += 1
            self._db.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?)", rows)
        return following

    def _point(self, name: str, unit: str) -> int:
        number = self._points.get((name, unit))
        if number is None:
            self._db.execute("INSERT OR IGNORE INTO points (name, unit) VALUES (?, ?)", (name, unit))
            number = self._one("SELECT id FROM points WHERE name = ? AND unit = ?", name, unit)
            self._points[name, unit] = number
        return number

    def newest(self) -> dict[str, int]:
        """The time of the newest reading of every point that the buffer ever saw."""
        rows = self._db.execute(
            "SELECT name, max(points.last, ifnull(max(time), 0)) FROM points"
            " LEFT JOIN readings ON readings.point = points.id GROUP BY points.id"
        )
        times: dict[str, int] = {}
        for name, newest in rows:
            times[name] = max(newest, times.get(name, 0))
        return times

    def enforce(self, max_bytes: int, oldest: int) -> int:
        """Drop what is over `max_bytes` or older than `oldest` (ms UTC), oldest first; the number of
        readings dropped."""
        dropped = 0
        while True:
            with self._transaction():
                count = self._drop(self._used() > max_bytes, oldest)
                self._db.execute("UPDATE head SET dropped = dropped + ?", (count,))
            dropped += count
            if not count:
                return dropped

    def _drop(self, full: bool, oldest: int) -> int:
        row = self._db.execute(
            "SELECT sequence, readings, last FROM batches ORDER BY sequence LIMIT 1"
        ).fetchone()
        if row is not None:
            if full or row[2] < oldest:
                self._db.execute("DELETE FROM batches WHERE sequence = ?", row[:1])
                return int(row[1])
            return 0
        rows = self._db.execute(
            "SELECT id, time FROM readings ORDER BY id LIMIT ?", (DROP_READINGS,)
        ).fetchall()
        if not full:
            # Those before the first one that is young enough.
            young = next((index for index, row in enumerate(rows) if row[1] >= oldest), len(rows))
            rows = rows[:young]
        if not rows:
            return 0
        self._db.execute("DELETE FROM readings WHERE id <= ?", (rows[-1][0],))
        self._db.execute("UPDATE head SET reading = ?", (rows[-1][0],))
        return len(rows)

    def _used(self) -> int:
        pages = self._one("PRAGMA page_count") - self._one("PRAGMA freelist_count")
        return pages * self._one("PRAGMA page_size")

    # What the delivering service does.

    def seal(
        self, site: str, key: Ed25519PrivateKey, interval: float, max_readings: int, *, flush: bool = False
    ) -> Stored | None:
        """Make a batch of the oldest readings, if there are enough of them or `flush` says not to wait for
        more.

        It spans less than `interval` s. Storing the batch and deleting its readings is one transaction.
        None when there
        is nothing to seal yet, or when the polling service has dropped some of the readings meanwhile.
        """
        span = int(interval * 1000)
        if not flush and not self._is_full(span, max_readings):
            return None
        rows = self._db.execute(
            "SELECT readings.id, name, unit, time, value, quality, points.id FROM readings"
            " JOIN points ON points.id = readings.point ORDER BY readings.id LIMIT ?",
            (max_readings + 1,),
        ).fetchall()
        count = _cut(rows, span, max_readings)
        if not count or (count == len(rows) and not flush):
            return None
        rows = rows[:count]
        readings = [Reading(*row[1:6]) for row in rows]
        stream, sequence, previous = self._db.execute("SELECT stream, sequence, digest FROM head").fetchone()
        sequence += 1
        # Encoding and signing take their time: they are done outside of the transaction.
        data = batch.seal(site, readings, stream, sequence, previous, key)
        newest = {row[6]: row[3] for row in rows}
        with self._transaction() as transaction:
            unchanged = self._one("SELECT sequence FROM head") == sequence - 1
            deleted = self._db.execute("DELETE FROM readings WHERE id <= ?", (rows[-1][0],)).rowcount
            if not unchanged or deleted != count:
                transaction.give_up()
                return None
            first, last = min(row[3] for row in rows), max(newest.values())
            self._db.execute(
                "INSERT INTO batches VALUES (?, ?, ?, ?, ?)", (sequence, count, first, last, data)
            )
            head = (sequence, batch.digest(data), rows[-1][0])
            self._db.execute("UPDATE head SET sequence = ?, digest = ?, reading = ?", head)
            times = [(when, point) for point, when in newest.items()]
            self._db.executemany("UPDATE points SET last = ? WHERE id = ?", times)
        return Stored(sequence, count, data)

    def _is_full(self, span: int, max_readings: int) -> bool:
        """Whether there is more than one batch holds; asked twice a second, so it reads two rows only."""
        ends = self._db.execute(
            "SELECT id, time FROM readings WHERE id IN"
            " ((SELECT min(id) FROM readings), (SELECT max(id) FROM readings)) ORDER BY id"
        ).fetchall()
        if len(ends) < 2:
            return False
        (first, first_time), (last, last_time) = ends
        return bool(last - first >= max_readings or last_time >= first_time + span)

    def oldest_reading(self) -> int | None:
        """The id of the oldest reading that is in no batch yet."""
        row = self._db.execute("SELECT min(id) FROM readings").fetchone()
        return None if row[0] is None else int(row[0])

    def batches(self, after: int, limit: int) -> list[Stored]:
        """The oldest batches above a sequence."""
        rows = self._db.execute(
            "SELECT sequence, readings, data FROM batches WHERE sequence > ? ORDER BY sequence LIMIT ?",
            (after, limit),
        )
        return [Stored(*row) for row in rows]

    def batch(self, sequence: int) -> Stored | None:
        """One batch, None when it has left."""
        row = self._db.execute(
            "SELECT sequence, readings, data FROM batches WHERE sequence = ?", (sequence,)
        ).fetchone()
        return Stored(*row) if row else None

    def free(self, watermark: int, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Remove the batches that the hub has committed; returns (sequence, number of readings) of those
        removed."""
        freed: list[tuple[int, int]] = []
        spans = [(0, watermark), *ranges]
        with self._transaction():
            for low, high in spans:
                query = (
                    "SELECT sequence, readings FROM batches WHERE sequence BETWEEN ? AND ? ORDER BY sequence"
                )
                freed += self._db.execute(query, (low, high)).fetchall()
                self._db.execute("DELETE FROM batches WHERE sequence BETWEEN ? AND ?", (low, high))
        return freed

    # What both may ask.

    @property
    def stream(self) -> bytes:
        """The stream's name, made with the file."""
        return bytes(self._db.execute("SELECT stream FROM head").fetchone()[0])

    def state(self) -> State:
        """What the buffer holds."""
        stream, sequence, dropped = self._db.execute("SELECT stream, sequence, dropped FROM head").fetchone()
        unsealed = self._one("SELECT ifnull(max(id) - min(id) + 1, 0) FROM readings")
        batches, sealed = self._db.execute(
            "SELECT count(*), ifnull(sum(readings), 0) FROM batches"
        ).fetchone()
        oldest = self._db.execute(
            "SELECT ifnull((SELECT first FROM batches ORDER BY sequence LIMIT 1),"
            " (SELECT time FROM readings ORDER BY id LIMIT 1))"
        ).fetchone()[0]
        return State(stream.hex(), sequence, unsealed + sealed, batches, self._used(), dropped, oldest)

    def export(self) -> Iterator[tuple[int | None, Reading]]:
        """Everything, oldest first, each reading with the sequence of its batch or None."""
        for (data,) in self._db.execute("SELECT data FROM batches ORDER BY sequence"):
            envelope = batch.parse(data)
            for reading in batch.decode_body(envelope.body).readings():
                yield envelope.sequence, reading
        rows = self._db.execute(
            "SELECT name, unit, time, value, quality FROM readings"
            " JOIN points ON points.id = readings.point ORDER BY readings.id"
        )
        for row in rows:
            yield None, Reading(*row)


class _Transaction:
    """BEGIN IMMEDIATE; committed at the end, rolled back on an error or when given up."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._given_up = False

    def __enter__(self) -> _Transaction:
        self._db.execute("BEGIN IMMEDIATE")
        return self

    def give_up(self) -> None:
        """Roll back at the end."""
        self._given_up = True

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and not self._given_up:
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                self._roll_back()
                raise
        else:
            self._roll_back()

    def _roll_back(self) -> None:
        # A full disk has SQLite roll back by itself.
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _cut(rows: list[tuple[int, str, str, int, float | None, int, int]], span: int, most: int) -> int:
    """How many of the oldest rows go into one batch: `len(rows)` means that the next one may still belong
    to it.

    The rows end before a reading that is `span` ms or more after the first, and before one that a batch
    cannot hold together with
    its predecessors: a point whose unit changed, or whose time does not ascend.
    """
    seen: dict[str, tuple[str, int]] = {}
    for index, (_, name, unit, when, *_rest) in enumerate(rows):
        before = seen.get(name)
        changed = before is not None and (before[0] != unit or when <= before[1])
        if index >= most or when >= rows[0][3] + span or changed:
            return index
        seen[name] = (unit, when)
    return len(rows)
