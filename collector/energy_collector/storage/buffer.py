# SPDX-License-Identifier: Apache-2.0
"""The buffer: one SQLite file between the service that polls and the one that delivers.

Records come in by chunks, a chunk for each commit. Batches are sealed from the oldest ones. A batch that the hub has is
delivered, and kept for a while: a hub that was restored from a backup asks for it again. Each service opens the file
for itself. What a commit reported as done survives a power cut (WAL, synchronous=FULL). Readings are numbered; the
numbers ascend, are never used twice, and leave from the low end only.
"""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from energy_collector.reading import Layout, Reading, Record
from energy_collector.storage import chunk
from energy_collector.storage.boot import Boot
from energy_collector.storage.buffer_file import (
    BufferFile,
    BufferReplacedError,
    BufferUnusableError,
    quarantined,
)
from energy_collector.storage.chunk import Chunk, CorruptError, Packer

# What makes and reads batches is imported where it is used: the polling service opens the buffer too, and hashlib alone
# would bring it 3.5 MB of OpenSSL.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from energy_collector.batches.sealing import Sealer, Taken

__all__ = ["Buffer", "BufferReplacedError", "BufferUnusableError", "State", "Stored"]

SCHEMA_VERSION = 2
# Of a stream's name and of a batch's digest, in bytes.
STREAM_SIZE, DIGEST_SIZE = 8, 32
# A batch may be longer than its interval by one part in so many: polls are never exactly an interval apart.
SLACK = 10
# Batches that the hub has are deleted with the next one that is sealed, or after so long, in s.
SETTLE_AFTER = 15.0
# Delivered batches that are deleted in one transaction, at most.
MOST_DELETED = 64
# How many of the newest chunks are asked for the newest time: the clock that stamped them never went back.
NEWEST_CHUNKS = 100

SCHEMA = """
CREATE TABLE layouts (
    id INTEGER PRIMARY KEY,
    points TEXT NOT NULL                 -- and units, as JSON
);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,              -- number of its first reading
    readings INTEGER NOT NULL,
    first INTEGER NOT NULL,              -- time of its oldest reading
    last INTEGER NOT NULL,               -- and of its newest
    until INTEGER,                       -- times are provisional: not sealed before this time since the boot, ms
    boot TEXT,                           -- which boot
    shift INTEGER,                       -- what was added to the time since the boot
    data BLOB NOT NULL
);
CREATE INDEX held ON chunks (until) WHERE until IS NOT NULL;
CREATE TABLE batches (
    sequence INTEGER PRIMARY KEY,
    readings INTEGER NOT NULL,
    first INTEGER NOT NULL,              -- time of its oldest reading
    last INTEGER NOT NULL,               -- and of its newest
    checksum INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE head (
    stream BLOB NOT NULL,
    sequence INTEGER NOT NULL,           -- of the newest batch sealed, 0 before the first
    digest BLOB NOT NULL,                -- of that batch
    following INTEGER NOT NULL,          -- the number after the last reading that has left the chunks
    newest INTEGER NOT NULL,             -- newest time that was sealed
    dropped INTEGER NOT NULL             -- readings that were thrown away at the bounds
);
"""
# What the hub has. A release that does not know these tables takes kept batches for new ones, and sends them again.
DELIVERED = """
CREATE TABLE IF NOT EXISTS hub (
    generation TEXT NOT NULL,            -- of the database that said so, '' where it names none
    watermark INTEGER NOT NULL           -- it has all batches up to this one
);
CREATE TABLE IF NOT EXISTS delivered (
    sequence INTEGER PRIMARY KEY         -- of a batch above the watermark that it has, too
);
"""
IS_DELIVERED = "sequence <= (SELECT watermark FROM hub) OR sequence IN (SELECT sequence FROM delivered)"


@dataclass(frozen=True)
class State:
    """What the buffer holds. `readings` counts those in batches too; `oldest` is ms UTC or None."""

    stream: str
    sequence: int
    readings: int
    batches: int
    bytes: int
    dropped: int
    quarantined: int
    oldest: int | None


class Keep(NamedTuple):
    """How long delivered batches are kept, in s (0: not at all), while the buffer takes no more than `bytes`."""

    age: float
    bytes: int


KEEP_NOTHING = Keep(0, 0)


class Stored(NamedTuple):
    """A sealed batch."""

    sequence: int
    readings: int
    data: bytes


class Buffer:
    """One connection to the file; to be used by one thread at a time.

    Damage is found when it is met: the file is put aside then, BufferReplacedError is raised, and a new Buffer is to
    be opened. `put_aside` has a line for each file that this one found damaged when it was opened.
    """

    def __init__(self, path: Path, boot: Boot | None = None, keep: Keep = KEEP_NOTHING) -> None:
        self.path = path
        self._keep = keep
        self._boot = boot or Boot()
        self._file = BufferFile(path, _set_up)
        self._db = self._file.db
        self.put_aside = self._file.put_aside
        # Delivered, and not yet written down as such: sequence -> readings; and the watermark that goes with them.
        self._freed: dict[int, int] = {}
        self._freed_at = 0.0
        self._watermark = 0
        try:
            with self._file.guarded():
                self.stream = bytes(self._db.execute("SELECT stream FROM head").fetchone()[0])
                self.packer = Packer(self._layouts())
        except BaseException:
            self.close()
            raise
        self._sealer: Sealer | None = None

    def close(self) -> None:
        """Close the connection. What was freed and is not settled is freed again after the next acknowledgement."""
        self._file.close()

    def replaced(self) -> bool:
        """Whether the file was put aside, so that a new Buffer has to be opened."""
        return self._file.replaced()

    def _one(self, query: str, *arguments: object) -> int:
        return int(self._db.execute(query, arguments).fetchone()[0])

    def _layouts(self) -> dict[int, Layout]:
        rows = self._db.execute("SELECT id, points FROM layouts")
        return {number: chunk.read_layout(points) for number, points in rows}

    def _layout(self, number: int) -> Layout:
        row = self._db.execute("SELECT points FROM layouts WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise CorruptError(f"there is no layout {number}")
        return chunk.read_layout(row[0])

    # What the polling service does.

    def append(self, records: Sequence[Record]) -> None:
        """Store records in one durable transaction; all or none of them when it raises sqlite3.Error."""
        if records:
            self.store([self.packer.pack(self.following(), records)], self.packer.new)
            self.packer.new.clear()

    def store(self, chunks: Sequence[Chunk], layouts: Mapping[int, Layout]) -> None:
        """The same with chunks that are packed already, and the layouts in them that are not stored yet."""
        new = [(number, chunk.layout_text(layout)) for number, layout in layouts.items()]
        rows = [self._row(one) for one in chunks]
        with self._file.transaction():
            self._db.executemany("INSERT OR IGNORE INTO layouts VALUES (?, ?)", new)
            self._db.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _row(self, one: Chunk) -> tuple[object, ...]:
        held = (None, None, None) if one.until is None else (one.until, self._boot.id, one.offset)
        return (*one[:4], *held, chunk.protect(one.data))

    def following(self) -> int:
        """The number of the next reading."""
        return self._one(
            "SELECT max(following, ifnull((SELECT id + readings FROM chunks ORDER BY id DESC LIMIT 1), 0)) FROM head"
        )

    def newest(self) -> int:
        """The newest time of a reading that the buffer ever saw, 0 before the first."""
        return self._one(
            "SELECT max(newest, ifnull((SELECT max(last) FROM"
            " (SELECT last FROM chunks ORDER BY id DESC LIMIT ?)), 0)) FROM head",
            NEWEST_CHUNKS,
        )

    def enforce(self, max_bytes: int, oldest: int) -> int:
        """Drop what is over `max_bytes` or older than `oldest` (ms UTC), oldest first; the number of
        readings dropped."""
        dropped = 0
        while self._used() > max_bytes or (self._oldest_last() or oldest) < oldest:
            with self._file.transaction():
                gone = self._drop(self._used() - max_bytes, oldest)
                count = sum(readings for _, readings in gone)
                self._db.execute("UPDATE head SET dropped = dropped + ?", (count,))
            dropped += count
            if not gone:
                break
        return dropped

    def _oldest_last(self) -> int | None:
        """The newest time in the oldest batch or chunk."""
        found = self._db.execute(
            "SELECT ifnull((SELECT last FROM batches ORDER BY sequence LIMIT 1),"
            " (SELECT last FROM chunks ORDER BY id LIMIT 1))"
        ).fetchone()[0]
        return None if found is None else int(found)

    def _drop(self, excess: int, oldest: int) -> list[tuple[int, int]]:
        """Delete the oldest batches, or chunks where there is no batch, until `excess` bytes are free.

        What was deleted, with the readings that are lost by that: none of a batch that was delivered.
        """
        if self._one("SELECT EXISTS (SELECT 1 FROM batches)"):
            rows = self._db.execute(
                # A condition of our own is put together here, and no value.
                f"SELECT sequence, iif({IS_DELIVERED}, 0, readings), last, length(data) FROM batches"  # noqa: S608  (a constant)
                " ORDER BY sequence"
            )
            gone = _oldest(rows, excess, oldest)
            self._db.executemany("DELETE FROM batches WHERE sequence = ?", [(key,) for key, _ in gone])
        else:
            rows = self._db.execute("SELECT id, readings, last, length(data) FROM chunks ORDER BY id")
            gone = _oldest(rows, excess, oldest)
            self._db.executemany("DELETE FROM chunks WHERE id = ?", [(key,) for key, _ in gone])
            if gone:
                self._db.execute("UPDATE head SET following = ?", (sum(gone[-1]),))
        return gone

    def _used(self) -> int:
        pages = self._one("PRAGMA page_count") - self._one("PRAGMA freelist_count")
        return pages * self._one("PRAGMA page_size")

    def settled(self) -> int:
        """The newest time that will not move any more."""
        return self._one(
            "SELECT max(newest, ifnull((SELECT max(last) FROM (SELECT last FROM chunks"
            " WHERE until IS NULL OR boot != ? ORDER BY id DESC LIMIT ?)), 0)) FROM head",
            self._boot.id,
            NEWEST_CHUNKS,
        )

    def restamp(self, right: int | None) -> int:
        """Provisional times of this boot become final: they are moved to the `right` offset, in ms, or stay as they are
        where it is None; the number of readings moved."""
        moved = 0
        with self._file.transaction():
            rows = self._db.execute(
                "SELECT id, readings, first, last, data, until, shift FROM chunks"
                " WHERE until IS NOT NULL AND boot = ? ORDER BY id",
                (self._boot.id,),
            ).fetchall()
            layouts = self.packer.layouts
            settled = self.settled()
            for number, readings, first, last, data, until, shift in rows:
                before = Chunk(number, readings, first, last, chunk.check(data), until, shift)
                after = before.moved(right, layouts)
                if after.first <= settled:
                    # Readings in front of it were sealed as they were.
                    after = before.moved(None, layouts)
                self._db.execute("DELETE FROM chunks WHERE id = ?", (number,))
                self._db.execute("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._row(after))
                moved += readings if after.first != first else 0
        return moved

    # What the delivering service does.

    def seal(
        self, site: str, key: Ed25519PrivateKey, interval: float, max_readings: int, *, flush: bool = False
    ) -> Stored | None:
        """Make a batch of the oldest readings, if there are enough of them or `flush` says not to wait for
        more.

        It is sealed when the newest reading is `interval` s younger than the oldest, and holds that newest one too:
        readings that come once an interval would travel alone otherwise, and late. Storing the batch, deleting its
        chunks and writing down what was delivered is one transaction. None when there is nothing to seal yet, or when
        the polling service has dropped some of the readings meanwhile.
        """
        from energy_collector.batches import batch
        from energy_collector.batches.sealing import Sealer

        if self._freed and time.monotonic() - self._freed_at >= SETTLE_AFTER:
            self.settle()
        if self._sealer is None:
            self._sealer = Sealer(self._layout)
        span = int(interval * 1000)
        with self._file.guarded():
            if not flush and not self._is_full(span, max_readings):
                return None
            limit = span + span // SLACK
            chunks = self._chunks(limit, max_readings)
            if not chunks:
                return None
            taken = self._sealer.take(chunks, limit, max_readings) or self._sealer.everything(chunks)
            stream, sequence, previous = self._db.execute(
                "SELECT stream, sequence, digest FROM head"
            ).fetchone()
            # Encoding and signing take their time: they are done outside of the transaction.
            data = batch.sign(self._sealer.body(site, taken), stream, sequence + 1, previous, key)
        stored = Stored(sequence + 1, taken.readings, data)
        return self._store_batch(stored, batch.digest(data), taken, chunks[: taken.chunks])

    def _store_batch(self, stored: Stored, digest: bytes, taken: Taken, chunks: list[Chunk]) -> Stored | None:
        sequence, readings, data = stored
        low, high = chunks[0].number, chunks[-1].number
        with self._file.transaction():
            found = self._db.execute(
                "SELECT (SELECT sequence FROM head), count(*), sum(readings), count(until) FROM chunks"
                " WHERE id BETWEEN ? AND ?",
                (low, high),
            ).fetchone()
            held = sum(one.until is not None for one in chunks)
            if found != (sequence - 1, len(chunks), chunk.sizes(chunks), held):
                return None
            self._db.execute("DELETE FROM chunks WHERE id BETWEEN ? AND ?", (low, high))
            following = high + chunks[-1].readings
            if taken.rest is not None:
                self._db.execute("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._row(taken.rest))
                following = taken.rest.number
            self._write_delivered()
            self._db.execute(
                "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?)",
                (sequence, readings, taken.first, taken.last, zlib.crc32(data), data),
            )
            self._db.execute(
                "UPDATE head SET sequence = ?, digest = ?, following = ?, newest = max(newest, ?)",
                (sequence, digest, following, taken.last),
            )
        self._freed.clear()
        return stored

    def _chunks(self, span: int, most: int) -> list[Chunk]:
        """The oldest chunks that may be sealed, up to the first that no longer fits."""
        rows = self._db.execute(
            "SELECT id, readings, first, last, data, until, shift FROM chunks WHERE id < ? ORDER BY id",
            (self._held_from(),),
        )
        found: list[Chunk] = []
        readings = 0
        for number, count, first, last, data, until, shift in rows:
            found.append(Chunk(number, count, first, last, chunk.check(data), until, shift or 0))
            readings += count
            if readings > most or last >= found[0].first + span:
                break
        rows.close()
        return found

    def _held_from(self) -> int:
        """The number of the first chunk that waits for the right time; all behind it wait too."""
        return self._one(
            "SELECT ifnull(min(id), 1 << 62) FROM chunks WHERE until IS NOT NULL AND until > ? AND boot = ?",
            self._boot.time(),
            self._boot.id,
        )

    def _is_full(self, span: int, max_readings: int) -> bool:
        """Whether there is more than one batch holds; asked twice a second, so it reads two rows only."""
        oldest = self._db.execute("SELECT id, first FROM chunks ORDER BY id LIMIT 1").fetchone()
        newest = self._db.execute(
            "SELECT id + readings, last FROM chunks WHERE id < ? ORDER BY id DESC LIMIT 1",
            (self._held_from(),),
        ).fetchone()
        if oldest is None or newest is None:
            return False
        return bool(newest[0] - oldest[0] > max_readings or newest[1] >= oldest[1] + span)

    def oldest_reading(self) -> int | None:
        """The number of the oldest reading that is in no batch yet and may be sealed."""
        query = "SELECT min(id) FROM chunks WHERE id < ?"
        row = self._db.execute(query, (self._held_from(),)).fetchone()
        return None if row[0] is None else int(row[0])

    def batches(self, after: int, limit: int) -> list[Stored]:
        """The oldest batches above a sequence that are not delivered."""
        found: list[Stored] = []
        with self._file.guarded():
            rows = self._db.execute(
                "SELECT sequence, readings, checksum, data FROM batches WHERE sequence > ?"
                " AND sequence NOT IN (SELECT sequence FROM delivered) ORDER BY sequence",
                (max(after, self._delivered_to()),),
            )
            for sequence, readings, checksum, data in rows:
                if len(found) >= limit:
                    break
                if sequence not in self._freed:
                    found.append(stored_batch(sequence, readings, checksum, data))
            rows.close()
        return found

    def batch(self, sequence: int) -> Stored | None:
        """One batch, None when it is delivered or was dropped."""
        with self._file.guarded():
            row = self._db.execute(
                "SELECT sequence, readings, checksum, data FROM batches WHERE sequence = ? AND sequence > ?"
                " AND sequence NOT IN (SELECT sequence FROM delivered)",
                (sequence, self._delivered_to()),
            ).fetchone()
            return None if row is None or sequence in self._freed else stored_batch(*row)

    def held(self) -> tuple[int, int]:
        """The sequences of the oldest and of the newest batch that is not delivered; (1, 0) without any."""
        query = (
            "SELECT sequence FROM batches WHERE sequence > ?"
            " AND sequence NOT IN (SELECT sequence FROM delivered) ORDER BY sequence"
        )
        past = (self._delivered_to(),)
        upwards, downwards = self._db.execute(query, past), self._db.execute(f"{query} DESC", past)
        first, last = (
            next((int(sequence) for (sequence,) in rows if sequence not in self._freed), 0)
            for rows in (upwards, downwards)
        )
        upwards.close()
        downwards.close()
        return (first, last) if first else (1, 0)

    def _delivered_to(self) -> int:
        """The watermark as it was written down."""
        return self._one("SELECT watermark FROM hub")

    @property
    def generation(self) -> str:
        """Of the hub's database that has acknowledged last, '' before the first that names one."""
        return str(self._db.execute("SELECT generation FROM hub").fetchone()[0])

    def free(self, watermark: int, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """The hub has committed these batches; returns (sequence, number of readings) of those that are newly
        delivered.

        That is written down with the next batch that is sealed, or by `settle`: an acknowledgement costs no commit.
        After a crash before that they are sent again, and the hub knows them by their identity.
        """
        past = self._delivered_to()
        found: dict[int, int] = {}
        for low, high in [(0, watermark), *ranges]:
            query = (
                "SELECT sequence, readings FROM batches WHERE sequence BETWEEN ? AND ?"
                " AND sequence NOT IN (SELECT sequence FROM delivered) ORDER BY sequence"
            )
            found.update(self._db.execute(query, (max(low, past + 1), high)).fetchall())
        new = {sequence: readings for sequence, readings in found.items() if sequence not in self._freed}
        if new and not self._freed:
            self._freed_at = time.monotonic()
        self._freed.update(new)
        # What is not sealed yet cannot be there, whatever the hub says.
        self._watermark = max(self._watermark, min(watermark, self._one("SELECT sequence FROM head")))
        return sorted(new.items())

    def settle(self) -> None:
        """Write down what was delivered, in a transaction of its own. Raises sqlite3.Error; it may be tried again."""
        if not self._freed:
            return
        try:
            self._settle()
        except sqlite3.OperationalError as error:
            if "full" not in str(error) or not self.make_room():
                raise
            self._settle()
        self._freed.clear()
        self._file.reserve()

    def _settle(self) -> None:
        with self._file.transaction():
            self._write_delivered()

    def _write_delivered(self) -> None:
        """Within a transaction: what was freed is delivered now, and what was kept for long enough goes."""
        if self._freed:
            self._db.execute("UPDATE hub SET watermark = max(watermark, ?)", (self._watermark,))
            past = self._delivered_to()
            self._db.execute("DELETE FROM delivered WHERE sequence <= ?", (past,))
            above = [(sequence,) for sequence in self._freed if sequence > past]
            self._db.executemany("INSERT OR IGNORE INTO delivered VALUES (?)", above)
        cutoff = int((time.time() - self._keep.age) * 1000) if self._keep.age else 1 << 62
        self._delete_kept(self._used() - self._keep.bytes, cutoff)

    def _delete_kept(self, excess: int, cutoff: int) -> int:
        """Delete the oldest delivered batches that end before `cutoff`, and more until `excess` bytes are free."""
        rows = self._db.execute(
            "SELECT sequence, readings, last, length(data) FROM batches"
            " WHERE sequence <= (SELECT watermark FROM hub) ORDER BY sequence LIMIT ?",
            (MOST_DELETED,),
        )
        gone = [(sequence,) for sequence, _ in _oldest(rows, excess, cutoff)]
        self._db.executemany("DELETE FROM batches WHERE sequence = ?", gone)
        return len(gone)

    def make_room(self) -> bool:
        """The disk is full: give up what the hub has, and the room set aside for that; whether there was any."""
        released = self._file.release()
        with self._file.transaction():
            return bool(self._delete_kept(1 << 62, 0)) or released

    def set_back(self, generation: str, watermark: int, ranges: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """The hub's database is another one than before, restored or moved, and has these batches only.

        Returns how many batches and readings that were delivered before are so no longer, and will be sent again.
        """
        with self._file.transaction():
            self._write_delivered()
            before = self._undelivered()
            self._db.execute(
                "UPDATE hub SET generation = ?, watermark = min(?, (SELECT sequence FROM head))",
                (generation, watermark),
            )
            self._db.execute("DELETE FROM delivered")
            for low, high in ranges:
                self._db.execute(
                    "INSERT OR IGNORE INTO delivered SELECT sequence FROM batches WHERE sequence BETWEEN ? AND ?",
                    (low, high),
                )
            after = self._undelivered()
        self._freed.clear()
        self._watermark = 0
        return max(after[0] - before[0], 0), max(after[1] - before[1], 0)

    def _undelivered(self) -> tuple[int, int]:
        """Batches and readings that are not delivered, as it was written down."""
        batches, readings = self._db.execute(
            "SELECT count(*), ifnull(sum(readings), 0) FROM batches"
            " WHERE sequence > ? AND sequence NOT IN (SELECT sequence FROM delivered)",
            (self._delivered_to(),),
        ).fetchone()
        return int(batches), int(readings)

    # What both may ask.

    @contextmanager
    def moment(self) -> Iterator[None]:
        """What is asked in here is of one moment: what the other service seals meanwhile would otherwise be in both
        tables, or in neither."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            # An error, or the buffer's being closed meanwhile, may have ended it.
            with suppress(sqlite3.ProgrammingError):
                if self._db.in_transaction:
                    self._db.execute("COMMIT")

    def state(self) -> State:
        """What the buffer holds for the hub; what was delivered is not counted, but for its bytes."""
        with self.moment():
            return self._state()

    def _state(self) -> State:
        stream, sequence, dropped = self._db.execute("SELECT stream, sequence, dropped FROM head").fetchone()
        unsealed = self._one("SELECT ifnull(sum(readings), 0) FROM chunks")
        batches, sealed = self._undelivered()
        oldest = self._db.execute(
            "SELECT ifnull((SELECT first FROM batches WHERE sequence > ?"
            " AND sequence NOT IN (SELECT sequence FROM delivered) ORDER BY sequence LIMIT 1),"
            " (SELECT first FROM chunks ORDER BY id LIMIT 1))",
            (self._delivered_to(),),
        ).fetchone()[0]
        return State(
            stream.hex(),
            sequence,
            unsealed + sealed - sum(self._freed.values()),
            batches - len(self._freed),
            self._used(),
            dropped,
            quarantined(self.path),
            oldest,
        )

    def export(self) -> Iterator[tuple[int | None, Reading]]:
        """Everything, oldest first, what was delivered and is kept too; each reading with the sequence of its batch or
        None."""
        with self.moment():
            yield from self._all()

    def _all(self) -> Iterator[tuple[int | None, Reading]]:
        from energy_collector.batches import batch

        for sequence, checksum, data in self._db.execute(
            "SELECT sequence, checksum, data FROM batches ORDER BY sequence"
        ):
            body = batch.parse(stored_batch(sequence, 0, checksum, data).data).body
            for reading in batch.decode_body(body).readings():
                yield sequence, reading
        layouts = self._layouts()
        for (stored,) in self._db.execute("SELECT data FROM chunks ORDER BY id"):
            for record in chunk.records(chunk.check(stored), layouts):
                for reading in record.readings():
                    yield None, reading


def _set_up(db: sqlite3.Connection) -> None:
    """Make the tables, or see that they are ours."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version == 0:
        for statement in SCHEMA.split(";"):
            db.execute(statement)
        head = (os.urandom(STREAM_SIZE), bytes(DIGEST_SIZE))
        db.execute("INSERT INTO head VALUES (?, 0, ?, 1, 0, 0)", head)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif version != SCHEMA_VERSION:
        raise CorruptError(f"made by another version (schema {version}, this one knows {SCHEMA_VERSION})")
    for statement in DELIVERED.split(";"):
        db.execute(statement)
    db.execute("INSERT INTO hub SELECT '', 0 WHERE NOT EXISTS (SELECT 1 FROM hub)")


def _oldest(rows: sqlite3.Cursor, excess: int, oldest: int) -> list[tuple[int, int]]:
    """Keys and readings of the rows that have to go."""
    found: list[tuple[int, int]] = []
    for key, readings, last, size in rows:
        if excess <= 0 and last >= oldest:
            break
        found.append((key, readings))
        excess -= size
    rows.close()
    return found


def stored_batch(sequence: int, readings: int, checksum: int, data: bytes) -> Stored:
    """A row of the table of batches; raises CorruptError."""
    if zlib.crc32(data) != checksum:
        raise CorruptError(f"the checksum of batch {sequence} is wrong")
    return Stored(sequence, readings, data)
