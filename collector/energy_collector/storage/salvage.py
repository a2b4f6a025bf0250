# SPDX-License-Identifier: Apache-2.0
"""Reads what can still be read of a buffer that was put aside, and writes nothing to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from energy_collector.batches import batch
from energy_collector.batches.varint import FormatError
from energy_collector.reading import Layout, Reading
from energy_collector.storage import chunk
from energy_collector.storage.buffer import stored_batch
from energy_collector.storage.buffer_file import BufferUnusableError
from energy_collector.storage.chunk import CorruptError

# What a buffer keeps readings in.
TABLES = {"batches", "layouts", "chunks"}


def salvage(path: Path, tell: Callable[[str], None]) -> Iterator[tuple[int | None, Reading]]:
    """Like Buffer.export; `tell` gets a line for what cannot be read. Raises BufferUnusableError."""
    db = _open(path)
    try:
        for sequence in _keys(db, "SELECT sequence FROM batches ORDER BY sequence", tell):
            try:
                row = _row(db, "SELECT checksum, data FROM batches WHERE sequence = ?", sequence)
                body = batch.parse(stored_batch(sequence, 0, *row).data).body
                found = batch.decode_body(body).readings()
            except (sqlite3.Error, CorruptError, FormatError) as error:
                tell(f"batch {sequence}: {error}")
                continue
            for one in found:
                yield sequence, one
        layouts: dict[int, Layout] = {}
        for number in _keys(db, "SELECT id FROM layouts ORDER BY id", tell):
            try:
                (points,) = _row(db, "SELECT points FROM layouts WHERE id = ?", number)
                layouts[number] = chunk.read_layout(points)
            except (sqlite3.Error, CorruptError) as error:  # noqa: PERF203  (each layout for itself)
                tell(f"layout {number}: {error}")
        for number in _keys(db, "SELECT id FROM chunks ORDER BY id", tell):
            try:
                (data,) = _row(db, "SELECT data FROM chunks WHERE id = ?", number)
                records = list(chunk.records(chunk.check(data), layouts))
            except (sqlite3.Error, CorruptError) as error:
                tell(f"readings from number {number} on: {error}")
                continue
            for record in records:
                for one in record.readings():
                    yield None, one
    finally:
        db.close()


def _open(path: Path) -> sqlite3.Connection:
    try:
        # A folder or a missing file is "unable to open database file" to SQLite.
        path.open("rb").close()
    except OSError as error:
        raise BufferUnusableError(f"{path}: cannot be read: {error.strerror}") from error
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        db.close()
        raise BufferUnusableError(f"{path}: nothing of it can be read: {error}") from error
    if not tables >= TABLES:
        db.close()
        raise BufferUnusableError(f"{path}: is not a buffer of energy-collector")
    return db


def _keys(db: sqlite3.Connection, query: str, tell: Callable[[str], None]) -> list[int]:
    found: list[int] = []
    try:
        for (key,) in db.execute(query):
            found.append(key)
    except sqlite3.Error as error:
        tell(f"{query}: {error}; {len(found)} rows could be read")
    return found


def _row(db: sqlite3.Connection, query: str, key: int) -> tuple[Any, ...]:
    """A row by its key. In a damaged tree a row can be listed and still not be found."""
    row: tuple[Any, ...] | None = db.execute(query, (key,)).fetchone()
    if row is None:
        raise CorruptError("the row is listed, and cannot be found")
    return row
