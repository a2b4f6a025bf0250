# SPDX-License-Identifier: Apache-2.0
"""The writer: kills, full and read-only disks, damaged files. Disks are real file systems, so those tests need root."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from energy_collector import quality
from energy_collector.config import BufferConfig
from energy_collector.journal import Faults
from energy_collector.reading import Layout, Record
from energy_collector.storage import writer
from energy_collector.storage.buffer import Buffer, BufferReplacedError
from energy_collector.storage.salvage import salvage
from energy_collector.storage.writer import Writer

from . import wire_vectors as vectors
from .collector_support import wait_for
from .writer_kills import AGE, kill_rounds

LAYOUT = Layout(tuple(f"m/p{index}" for index in range(100)), ("W",) * 100)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system of its own, which needs root")


def record(time_ms: int, layout: Layout = LAYOUT) -> Record:
    return Record(layout, time_ms, [float(time_ms + index) / 10 for index in range(len(layout.points))])


def start(path: Path, pending: Path | None = None) -> Writer:
    one = Writer(BufferConfig(path, max_age=AGE, pending=pending or path.with_name("pending")), Faults())
    one.open()
    return one


def times(path: Path) -> Counter[int]:
    """How often each time of the first point is in the buffer."""
    buffer = Buffer(path)
    found = Counter(one.time for _, one in buffer.export() if one.point == "m/p0")
    buffer.close()
    return found


def state(one: Writer) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    one.ask_state(found.append)
    wait_for(lambda: bool(found), "the state")
    return found[0]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_killed_at_any_instant_nothing_that_was_put_is_lost_or_doubled(tmp_path: Path) -> None:
    tally = kill_rounds(tmp_path, 10, 7)
    assert tally.puts > 100
    assert (tally.lost, tally.doubled) == (0, 0)


def test_without_the_pending_file_a_kill_loses_readings(tmp_path: Path) -> None:
    tally = kill_rounds(tmp_path, 2, 7, memory=False)
    assert tally.lost > 0
    assert tally.doubled == 0


def test_a_burst_is_one_commit_and_an_endless_one_is_cut_by_the_interval(tmp_path: Path) -> None:
    one = start(tmp_path / "buffer.db")
    for time_ms in range(1, 21):
        one.put([record(time_ms)])
    wait_for(lambda: not state(one)["pending"], "the burst is committed")
    one.stop()
    assert sum(times(tmp_path / "buffer.db").values()) == 20
    count = sqlite3.connect(tmp_path / "buffer.db").execute("SELECT count(*) FROM chunks").fetchone()[0]
    assert count == 1


def test_a_value_that_is_no_number_is_stored_as_none(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    buffer = Buffer(path)
    layout = Layout(("m/a", "m/b", "m/c"), ("W", "W", "W"))
    buffer.append([Record(layout, 5, [1.0, float("nan"), float("-inf")], bytes([0, 0, 130]))])
    assert [(one.value, one.quality) for _, one in buffer.export()] == [
        (1.0, quality.GOOD),
        (None, quality.BAD),
        (None, quality.BAD_DEVICE_FAILURE),
    ]
    assert buffer.seal("plant-a", vectors.KEY, 10, 100, flush=True) is not None


@needs_root
def test_on_a_full_disk_readings_wait_and_are_committed_when_there_is_room(disk: Path) -> None:
    ballast = disk / "ballast"
    one = start(disk / "buffer.db", disk.parent / "pending")
    one.put([record(1)])
    wait_for(lambda: not state(one)["pending"], "the first is committed")
    fill(ballast)
    for time_ms in range(2, 402):
        one.put([record(time_ms)])
    wait_for(lambda: "full" in one.failure, "the full disk is told")
    assert state(one)["pending"] > 0
    ballast.unlink()
    wait_for(lambda: not state(one)["pending"], "all is committed")
    one.stop()
    assert times(disk / "buffer.db") == Counter(range(1, 402))


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


@needs_root
def test_batches_can_be_freed_on_a_full_disk(disk: Path) -> None:
    path = disk / "buffer.db"
    buffer = Buffer(path)
    for time_ms in range(1, 100_000):
        try:
            buffer.append([record(time_ms)])
            buffer.seal("plant-a", vectors.KEY, 60, 2000)
        except sqlite3.Error:
            break
    else:
        pytest.fail("the disk never was full")
    fill(disk / "ballast")
    first, last = buffer.held()
    freed = buffer.free(last, [])
    assert len(freed) == last - first + 1
    buffer.settle()
    assert buffer.held() == (1, 0)
    buffer.append([record(5000)])
    buffer.close()


@needs_root
def test_the_oldest_are_dropped_and_counted_when_memory_is_full_too(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_PENDING", 5_000)
    one = start(disk / "buffer.db", disk.parent / "pending")
    fill(disk / "ballast")
    for time_ms in range(1, 2001):
        one.put([record(time_ms)])
    wait_for(lambda: "full" in one.failure, "the full disk is told")
    (disk / "ballast").unlink()
    wait_for(lambda: not state(one)["pending"], "the rest is committed")
    found = state(one)
    one.stop()
    kept = times(disk / "buffer.db")
    assert set(kept.values()) == {1}
    assert max(kept) == 2000
    assert found["dropped"] == (2000 - len(kept)) * 100 > 0


@needs_root
def test_a_start_on_a_read_only_disk_polls_on_and_commits_when_it_is_writable(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    one = start(disk / "buffer.db", disk.parent / "pending")
    one.put([record(1)])
    wait_for(lambda: "Read-only" in one.failure, "the read-only disk is told")
    assert "Read-only" in state(one)["error"]
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    wait_for(lambda: "pending" in (found := state(one)) and not found["pending"], "it is committed")
    one.stop()
    assert times(disk / "buffer.db") == Counter([1])


@needs_root
def test_killed_while_the_disk_is_away_nothing_is_lost(disk: Path) -> None:
    path, pending = disk / "buffer.db", disk.parent / "pending"
    first = Buffer(path)
    first.append([record(1)])
    first.close()
    # Two runs without a buffer, each of which ends without a commit; in this process nobody stops their threads.
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code = (
        "import os, sys; from pathlib import Path; from tests.unit.collector.test_writer import *;"
        "one = start(Path(sys.argv[1]), Path(sys.argv[2])); one.put([record(int(sys.argv[3]))]); os._exit(0)"
    )
    for time_ms in (2, 3):
        subprocess.run(
            [sys.executable, "-c", code, str(path), str(pending), str(time_ms)],
            check=True,
            cwd=Path(__file__).parents[3],
        )
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    one = start(path, pending)
    one.stop()
    assert times(path) == Counter([1, 2, 3])
    assert not pending.with_name("pending.waiting").exists()


# Damaged files.


def zero_length(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        for at in range(0, path.stat().st_size, 512):
            file.seek(at + 100)
            file.write(b"\xa5" * 40)


def another_schema(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()


def log_overwritten(path: Path) -> None:
    log = path.with_name(f"{path.name}-wal")
    with log.open("r+b") as file:
        file.seek(32 + 536 + 200)
        file.write(b"\xa5" * 40)


def log_header_overwritten(path: Path) -> None:
    with path.with_name(f"{path.name}-wal").open("r+b") as file:
        file.write(b"\xa5" * 16)


def filled(path: Path, *, with_log: bool) -> None:
    """A buffer as a process leaves it that was stopped, or killed."""
    code = (
        "import os, sys; from pathlib import Path; from tests.unit.collector.test_writer import *;"
        "buffer = Buffer(Path(sys.argv[1]));"
        "[buffer.append([record(time)]) for time in range(1, 200)];"
        "[buffer.seal('plant-a', vectors.KEY, 60, 1000) for _ in range(5)];"
        "sys.argv[2] == 'stop' and buffer.close(); os._exit(0)"
    )
    how = "kill" if with_log else "stop"
    subprocess.run([sys.executable, "-c", code, str(path), how], check=True, cwd=Path(__file__).parents[3])


@pytest.mark.parametrize(
    ("damage", "with_log"),
    [
        (zero_length, False),
        (garbage, False),
        (truncated, False),
        (overwritten, False),
        (another_schema, False),
        (log_overwritten, True),
        (log_header_overwritten, True),
    ],
)
def test_a_damaged_file_is_put_aside_and_a_new_stream_begins(
    tmp_path: Path, damage: Callable[[Path], None], with_log: bool
) -> None:
    path = tmp_path / "buffer.db"
    filled(path, with_log=with_log)
    before = Path(f"{path}-wal").read_bytes() if with_log else b""
    assert bool(before) == with_log
    damage(path)
    one = start(path)
    one.put([record(5000)])
    one.stop()
    aside = [file.name for file in tmp_path.glob("buffer.db.corrupt-*Z")]
    assert len(aside) == 1
    assert not with_log or (tmp_path / f"{aside[0]}-wal").exists()
    buffer = Buffer(path)
    assert [reading.time for _, reading in buffer.export()] == [5000] * 100
    assert (buffer.state().quarantined, buffer.state().sequence) == (1, 0)
    buffer.close()


def test_a_last_commit_that_was_cut_short_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    filled(path, with_log=True)
    log = path.with_name("buffer.db-wal")
    data = bytearray(log.read_bytes())
    salts, size = data[16:24], 24 + 512
    starts = range(32, len(data) - size + 1, size)
    last = [at for at in starts if data[at + 8 : at + 16] == salts][-1]
    data[last + 100] ^= 0xFF
    log.write_bytes(data)
    buffer = Buffer(path)
    assert buffer.put_aside == []
    assert buffer.state().sequence == 4, "the fifth batch was never reported as sealed"
    buffer.close()


def test_damage_met_while_running_is_put_aside_and_both_services_go_on(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    filled(path, with_log=False)
    one = start(path)
    delivering = Buffer(path)
    stream = delivering.stream
    # A bit of a batch that SQLite has no checksum for.
    sequence, rowid = 2, sqlite3.connect(path)
    rowid.execute("UPDATE batches SET data = zeroblob(length(data)) WHERE sequence = ?", (sequence,))
    rowid.commit()
    assert delivering.batch(1) is not None
    with pytest.raises(BufferReplacedError, match="the checksum of batch 2 is wrong"):
        delivering.batches(0, 10)
    assert delivering.replaced()
    delivering.close()
    one.put([record(5000)])
    wait_for(lambda: not state(one)["pending"], "it is committed to the new file")
    again = Buffer(path)
    assert again.stream != stream
    assert [reading.time for _, reading in again.export()] == [5000] * 100
    assert state(one)["quarantined"] == 1
    again.close()
    one.stop()
    # The one that held the old file did not take the new one's log with it.
    assert times(path) == Counter([5000])


def test_what_can_be_read_of_a_damaged_file_can_be_exported(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    filled(path, with_log=False)
    buffer = Buffer(path)
    whole = {one for _, one in buffer.export()}
    buffer.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xa5" * 2048)
    before = path.read_bytes()
    told: list[str] = []
    found = {one for _, one in salvage(path, told.append)}
    assert told
    assert found < whole
    assert len(found) > len(whole) / 10
    assert path.read_bytes() == before


def test_few_files_that_were_put_aside_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "buffer.db"
    for _ in range(5):
        garbage(path)
        Buffer(path).close()
        time.sleep(0.002)
    assert len(list(tmp_path.glob("buffer.db.corrupt-*Z"))) == 3
    assert Buffer(path).state().quarantined == 5


def test_the_polling_service_does_without_cryptography() -> None:
    code = (
        "import sys, energy_collector.gateway, energy_collector.cli;"
        "print([name for name in ('cryptography', 'paho') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.strip() == "[]"
