# SPDX-License-Identifier: Apache-2.0
"""The buffer, on real files and with processes that are killed."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from energy_collector.batches import batch
from energy_collector.reading import Layout, Record
from energy_collector.storage.buffer import Buffer, BufferUnusableError

from . import wire_vectors as vectors

KILLS = 12


def some(count: int, start: int = 1000, step: int = 100, point: str = "m/p", unit: str = "W") -> list[Record]:
    layout = Layout((point,), (unit,))
    return [Record(layout, start + step * index, [float(index)]) for index in range(count)]


@pytest.fixture
def buffer(tmp_path: Path) -> Buffer:
    return Buffer(tmp_path / "buffer.db")


def test_sealing_moves_the_oldest_readings_into_a_chain_of_batches(buffer: Buffer) -> None:
    buffer.append(some(25))
    sealed = [buffer.seal("plant-a", vectors.KEY, 60, 10) for _ in range(3)]
    assert [one and one.readings for one in sealed] == [10, 10, None]
    last = buffer.seal("plant-a", vectors.KEY, 60, 10, flush=True)
    assert last is not None
    stored = buffer.batches(0, 10)
    previous = batch.FIRST_PREVIOUS
    times: list[int] = []
    for number, one in enumerate(stored, 1):
        envelope = batch.parse(one.data)
        envelope.verify(vectors.KEY.public_key())
        assert (envelope.sequence, envelope.previous, envelope.stream) == (number, previous, buffer.stream)
        previous = batch.digest(one.data)
        times += [reading.time for reading in batch.decode_body(envelope.body).readings()]
    assert times == [1000 + 100 * index for index in range(25)]
    assert buffer.state().readings == 25
    assert buffer.oldest_reading() is None


def test_a_batch_holds_the_reading_that_ends_its_interval_and_none_behind_it(buffer: Buffer) -> None:
    buffer.append(some(30, step=1000))
    sealed = [buffer.seal("plant-a", vectors.KEY, 10, 1000) for _ in range(4)]
    assert [one and one.readings for one in sealed] == [11, 11, None, None]


def test_readings_that_cannot_share_a_batch_do_not_stop_the_sealing(buffer: Buffer) -> None:
    buffer.append([*some(1, 5), *some(1, 5), *some(1, 6, unit="V")])
    counts = []
    while (one := buffer.seal("plant-a", vectors.KEY, 60, 10, flush=True)) is not None:
        counts.append(one.readings)
    assert counts == [1, 1, 1]


def test_only_what_the_hub_names_is_freed(buffer: Buffer) -> None:
    buffer.append(some(80))
    for _ in range(8):
        buffer.seal("plant-a", vectors.KEY, 60, 10, flush=True)
    assert buffer.free(2, [(4, 5), (7, 7)]) == [(1, 10), (2, 10), (4, 10), (5, 10), (7, 10)]
    assert [one.sequence for one in buffer.batches(0, 10)] == [3, 6, 8]
    assert buffer.free(2, [(4, 5)]) == []
    assert buffer.state().readings == 30


def test_row_ids_and_times_go_on_after_everything_has_left(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    first = Buffer(path)
    first.append(some(5))
    first.seal("plant-a", vectors.KEY, 60, 10, flush=True)
    first.free(1, [])
    first.settle()
    first.close()
    second = Buffer(path)
    assert second.newest() == 1400
    second.append(some(1, start=2000))
    assert second.oldest_reading() == 6
    assert second.state().sequence == 1


def test_the_oldest_go_first_at_the_bounds_and_are_counted(buffer: Buffer) -> None:
    for index in range(30):
        buffer.append(some(1000, start=1000 + 1000 * index, step=1))
    for _ in range(10):
        buffer.seal("plant-a", vectors.KEY, 60, 1000)
    size = buffer.state().bytes
    dropped = buffer.enforce(size // 2, 0)
    state = buffer.state()
    assert state.bytes <= size // 2
    assert state.batches == 0
    assert state.dropped == dropped == 30_000 - state.readings
    assert state.oldest == 1000 + dropped
    assert buffer.enforce(size, 1000 + 25_000) == 25_000 - dropped
    assert buffer.state().oldest == 26_000


def test_an_export_beside_the_services_is_of_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    services, reader = Buffer(path), Buffer(path)
    services.append(some(3))
    services.seal("plant-a", vectors.KEY, 60, 10, flush=True)
    services.append(some(4, start=5000))
    export = reader.export()
    found = [next(export)]
    services.seal("plant-a", vectors.KEY, 60, 10, flush=True)
    services.append(some(2, start=9000, point="m/new"))
    found += export
    assert [sequence for sequence, _ in found] == [1, 1, 1, None, None, None, None]
    assert len({one.time for _, one in found}) == 7
    # One that nobody reads to its end keeps nothing from being written.
    next(reader.export())
    reader.append(some(1, start=10_000))
    abandoned = reader.export()
    next(abandoned)
    reader.close()
    abandoned.close()


def test_what_it_holds_beside_the_services_is_of_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    services, reader = Buffer(path), Buffer(path)
    services.append(some(3))
    seen: list[str] = []

    def seal(statement: str) -> None:
        # Between its look at the chunks and that at the batches.
        if "FROM batches" in statement and not seen:
            services.seal("plant-a", vectors.KEY, 60, 10, flush=True)
            seen.append(statement)

    reader._db.set_trace_callback(seal)
    assert (reader.state().readings, len(seen)) == (3, 1)
    with reader.moment():
        before = reader.state()
        services.append(some(4, start=5000))
        assert reader.state() == before
    assert reader.state().readings == 7
    # What fails within leaves the buffer as usable as before.
    with pytest.raises(sqlite3.OperationalError), reader.moment():
        reader._db.execute("SELECT * FROM nothing")
    reader.append(some(1, start=9000))


def test_a_failed_commit_leaves_nothing_behind_and_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    buffer = Buffer(path)
    buffer.append(some(3))
    buffer._db.execute("PRAGMA max_page_count = 8")
    many = some(5000, start=5000, point="m/new")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        buffer.append(many)
    assert buffer.state().readings == 3
    buffer._db.execute("PRAGMA max_page_count = 100000")
    buffer.append(many)
    assert buffer.state().readings == 5003
    assert sum(1 for _ in buffer.export()) == 5003


def test_a_file_that_cannot_be_opened_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BufferUnusableError, match="unable to open"):
        Buffer(tmp_path / "none" / "buffer.db")


def test_two_services_may_make_the_buffer_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from energy_collector.storage.buffer import Buffer;"
        "print(Buffer(pathlib.Path(sys.argv[1])).stream.hex())"
    )
    for attempt in range(3):
        path = tmp_path / f"buffer-{attempt}.db"
        command = [sys.executable, "-c", code, str(path)]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
        assert len({one.communicate()[0] for one in both}) == 1
        assert [one.returncode for one in both] == [0, 0]


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_killed_at_any_instant_every_committed_reading_is_there_exactly_once(tmp_path: Path) -> None:
    path, journal, key = tmp_path / "buffer.db", tmp_path / "journal", tmp_path / "signing.key"
    Buffer(path).close()
    worker = Path(__file__).with_name("buffer_worker.py")
    journals = (journal, journal.with_name("journal.sealed"))
    rng = random.Random(4)
    for _ in range(KILLS):
        both = [
            subprocess.Popen([sys.executable, str(worker), what, str(path), str(journal), str(key)])
            for what in ("append", "seal")
        ]
        before = [size(one) for one in journals]
        while any(size(one) == was for one, was in zip(journals, before, strict=True)):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.15))
        for one in rng.sample(both, 2):
            one.kill()
            one.wait()
    committed = [int(text) for text in journal.read_text().split()]
    buffer = Buffer(path)
    found: Counter[tuple[str, int]] = Counter()
    sealed = 0
    for sequence, reading in buffer.export():
        found[reading.point, reading.time] += 1
        sealed += sequence is not None
    assert sealed > 0
    missing = [time_ms for time_ms in committed for index in range(7) if not found[f"m/p{index}", time_ms]]
    assert missing == []
    assert [name for name, count in found.items() if count > 1] == []
    # A round whose commit was done but not written down may be there; half a round never.
    assert len(found) % 7 == 0
    assert len(found) // 7 - len(committed) <= KILLS
    sequences = [one.sequence for one in buffer.batches(0, 1_000_000)]
    assert sequences == list(range(1, len(sequences) + 1))
    previous = batch.FIRST_PREVIOUS
    for one in buffer.batches(0, 1_000_000):
        assert batch.parse(one.data).previous == previous
        previous = batch.digest(one.data)
