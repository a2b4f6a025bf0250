# SPDX-License-Identifier: Apache-2.0
"""What the hub has is kept for a while, and goes again when its database is another one than before."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from energy_collector.delivery import acknowledgement
from energy_collector.storage.buffer import Buffer, Keep

from . import wire_vectors as vectors
from .test_collector_buffer import some
from .test_collector_services import Line, Service, fill, line, running, wait_for

__all__ = ["line"]  # a fixture

DAY = 86400.0
KEEP = Keep(7 * DAY, 128 << 20)


def sealed(path: Path, count: int, keep: Keep = KEEP, *, start: int | None = None) -> Buffer:
    """A buffer with `count` batches of ten readings, the first at `start` (ms)."""
    buffer = Buffer(path, keep=keep)
    start = int(time.time() * 1000) if start is None else start
    buffer.append(some(10 * count, start=start))
    for _ in range(count):
        assert buffer.seal("plant-a", vectors.KEY, 60, 10, flush=True)
    return buffer


def waiting(buffer: Buffer) -> list[int]:
    return [one.sequence for one in buffer.batches(0, 1000)]


def held(path: Path) -> list[int]:
    """All batches in the file, delivered or not."""
    with sqlite3.connect(path) as db:
        return [sequence for (sequence,) in db.execute("SELECT sequence FROM batches ORDER BY sequence")]


def test_what_is_delivered_is_kept_and_counts_no_more(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    buffer = sealed(path, 8)
    assert buffer.free(2, [(4, 5), (7, 7)]) == [(1, 10), (2, 10), (4, 10), (5, 10), (7, 10)]
    buffer.settle()
    buffer.close()
    again = Buffer(path, keep=KEEP)
    assert held(path) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert waiting(again) == [3, 6, 8]
    assert again.held() == (3, 8)
    assert [again.batch(number) is None for number in (2, 3, 5)] == [True, False, True]
    state = again.state()
    assert (state.batches, state.readings) == (3, 30)
    # Nothing is told twice.
    assert again.free(3, [(4, 5), (7, 7)]) == [(3, 10)]
    again.settle()
    assert again.free(7, []) == [(6, 10)]
    assert again.state().batches == 1
    assert again.held() == (8, 8)


def test_a_database_that_was_set_back_gets_what_it_lacks(tmp_path: Path) -> None:
    buffer = sealed(tmp_path / "buffer.db", 8)
    assert buffer.set_back("one", 0, []) == (0, 0)
    assert buffer.free(6, [(8, 8)])
    buffer.settle()
    assert waiting(buffer) == [7]
    assert buffer.generation == "one"
    # It was restored to when it had 1, 2 and 5.
    assert buffer.set_back("two", 2, [(5, 5)]) == (4, 40)
    assert waiting(buffer) == [3, 4, 6, 7, 8]
    assert buffer.generation == "two"
    assert buffer.state().readings == 50
    buffer.free(8, [])
    buffer.settle()
    assert waiting(buffer) == []
    # What was freed and not settled yet is no more delivered than the rest.
    buffer.append(some(10, start=int(time.time() * 1000) + 60_000))
    buffer.seal("plant-a", vectors.KEY, 60, 10, flush=True)
    buffer.free(9, [])
    assert buffer.set_back("three", 7, []) == (2, 20)
    assert waiting(buffer) == [8, 9]


def test_what_is_not_sealed_yet_cannot_be_delivered(tmp_path: Path) -> None:
    buffer = sealed(tmp_path / "buffer.db", 2)
    buffer.free(1 << 62, [])
    buffer.settle()
    buffer.append(some(10, start=int(time.time() * 1000) + 60_000))
    buffer.seal("plant-a", vectors.KEY, 60, 10, flush=True)
    assert waiting(buffer) == [3]
    buffer.set_back("other", 1 << 62, [])
    buffer.append(some(10, start=int(time.time() * 1000) + 120_000))
    buffer.seal("plant-a", vectors.KEY, 60, 10, flush=True)
    assert waiting(buffer) == [4]


@pytest.mark.parametrize(
    ("keep", "age", "left"),
    [
        (KEEP, 0, [1, 2, 3, 4, 5, 6]),
        (KEEP, 8 * DAY, [4, 5, 6]),
        (Keep(0, 128 << 20), 0, [4, 5, 6]),
        (Keep(7 * DAY, 0), 0, [4, 5, 6]),
    ],
    ids=["young", "old", "not at all", "too large"],
)
def test_how_long_they_are_kept(tmp_path: Path, keep: Keep, age: float, left: list[int]) -> None:
    path = tmp_path / "buffer.db"
    buffer = sealed(path, 6, keep, start=int((time.time() - age) * 1000))
    buffer.free(3, [(5, 5)])
    buffer.settle()
    assert held(path) == left
    assert waiting(buffer) == [4, 6]


def test_they_make_room_before_anything_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    buffer = sealed(path, 200)
    buffer.free(150, [])
    buffer.settle()
    size = buffer.state().bytes
    assert buffer.enforce(size * 2 // 3, 0) == 0
    assert waiting(buffer) == list(range(151, 201))
    assert held(path)[0] > 1
    assert buffer.enforce(size // 8, 0) > 0
    assert buffer.state().dropped > 0


def test_they_make_room_on_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    buffer = sealed(path, 10)
    buffer.free(8, [])
    buffer.settle()
    assert buffer.make_room()
    assert held(path) == [9, 10]
    assert not buffer.make_room(), "there is nothing more to give up"


def test_a_file_of_the_release_before_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    sealed(path, 3).close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE hub")
        db.execute("DROP TABLE delivered")
    buffer = Buffer(path, keep=KEEP)
    assert buffer.put_aside == []
    assert waiting(buffer) == [1, 2, 3]
    assert buffer.generation == ""


@pytest.mark.parametrize("generation", [7, "x" * 65, None])
def test_a_generation_that_is_none(generation: Any) -> None:
    payload = json.dumps({"stream": "ab", "watermark": 1, "generation": generation}).encode()
    with pytest.raises(ValueError, match="generation"):
        acknowledgement.parse(payload)


def test_the_service_sends_again_what_a_restored_hub_lacks(line: Line) -> None:
    fill(line.folder, 5)
    # So old that a week has passed since: kept, because the settings say so.
    service = Service("persistence", line.folder, line.config(buffer={"keep_age": 3e9}))
    with running(service):
        first, *_ = [line.next_batch()[0] for _ in range(5)]
        stream = first.stream
        line.acknowledge(stream, 5, generation="cluster-1")
        watch = Buffer(line.folder / "buffer.db")
        wait_for(lambda: watch.state().batches == 0, "all are delivered")
        assert "set back" not in service.journal
        # Of another timeline, and only the first two and the last are there.
        line.acknowledge(stream, 2, [[5, 5]], generation="cluster-2")
        assert {line.next_batch()[0].sequence for _ in range(2)} == {3, 4}
        assert "2 batches with 2 readings that it had are sent again" in service.journal
        line.acknowledge(stream, 5, generation="cluster-2")
        wait_for(lambda: watch.state().batches == 0, "all are delivered again")
    assert held(line.folder / "buffer.db") == [1, 2, 3, 4, 5]
