# SPDX-License-Identifier: Apache-2.0
"""The thread that commits readings to the buffer, so that a slow disk does not hold up the polling."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from energy_collector import quality
from energy_collector.clock import SourceClock
from energy_collector.config import BufferConfig
from energy_collector.journal import Faults, log
from energy_collector.reading import Layout, Record
from energy_collector.storage import chunk, pending
from energy_collector.storage.buffer import Buffer, BufferReplacedError, BufferUnusableError
from energy_collector.storage.chunk import Chunk, CorruptError, Packer
from energy_collector.storage.pending import PendingFile

# A poll's readings come in a burst. When nothing has come for this part of the commit interval it is over, and is
# committed: one commit a burst is kind to flash.
QUIET = 0.2
ENFORCE_INTERVAL = 10.0
# Readings kept in memory while the disk refuses them: 8 bytes each.
MAX_PENDING = 500_000
# After a commit that failed the next one is tried so much later, in s.
RETRY = 2.0
IDLE = 1.0
CAUSE = "the disk is full, read-only or failing"

# What a chunk says of its times, `until` and `offset`, and its records.
_Held = tuple["int | None", int, list[Record]]
# A reading that is good but for its time.
GOOD, DOUBTFUL = bytes([quality.GOOD]), bytes([quality.UNCERTAIN_CLOCK])

StateCallback = Callable[[dict[str, Any]], object]


class Writer(threading.Thread):
    """Takes readings from any thread; commits a burst when it is over, and never later than the commit interval.

    It goes on without a buffer: readings wait in memory, the oldest are dropped and counted when there are too many.
    """

    def __init__(self, config: BufferConfig, faults: Faults) -> None:
        super().__init__(name="writer", daemon=True)
        self.config = config
        # Times in the buffer: the newest one, and the newest that will not move any more.
        self.newest = self.settled = 0
        self.heartbeat = time.monotonic()
        self.lost = 0
        self._faults = faults
        self._buffer: Buffer | None = None
        self.failure = ""
        self._retry_at = 0.0
        # What follows is shared between threads.
        self._changed = threading.Condition()
        self._packer = Packer({})
        # While no buffer could be opened yet, readings wait in a file of their own: the other one may hold what a run
        # before this one has left, and can be read with its buffer only.
        self._waiting = config.pending.with_name(f"{config.pending.name}.waiting")
        self._file = PendingFile(self._waiting, bytes(pending.STREAM_SIZE))
        self._pending: deque[Chunk] = deque()
        self._readings = 0
        self._following = 0
        self._first_put = self._last_put = 0.0
        self._asked: list[StateCallback] = []
        self._clock: SourceClock | None = None
        # Right offsets, or None, that the buffer has not learnt of yet.
        self._corrections: list[int | None] = []
        self._stopping = False

    def open(self) -> None:
        """Open the buffer, take up what the last run left in memory, and start the thread."""
        self._open_buffer()
        if self._buffer is None:
            with self._changed:
                self._renumber(self._packer, 0, self._left_behind(self._waiting, None), self._file)
        self.start()

    def put(self, records: Sequence[Record]) -> None:
        """Store records soon. When this returns, a kill -9 no longer loses them."""
        if not records:
            return
        with self._changed:
            idle = not self._pending
            if self._clock is None or not self._clock.spans:
                self._add(records)
            else:
                for record in records:
                    self._add_doubtful(record, self._clock)
            self._last_put = time.monotonic()
            if idle:
                self._first_put = self._last_put
                self._changed.notify()

    def _add_doubtful(self, record: Record, clock: SourceClock) -> None:
        """Store a record of a time when the clock was, or may have been, wrong."""
        span = next((one for one in clock.spans if one.holds(record.time)), None)
        if span is None:
            self._add([record])
            return
        codes = (record.qualities or bytes(len(record.values))).replace(GOOD, DOUBTFUL)
        record = record._replace(qualities=codes, time=record.time + span.moved)
        if span.offset is None or span.high is not None:
            self._add([record])
        else:
            self._add([record], clock.hold_until(), span.offset)

    def follow(self, clock: SourceClock) -> None:
        """Mark what is taken while `clock` is wrong, and move it when it is right."""
        self._clock = clock
        clock.corrected = self._correct

    def _correct(self, right: int | None) -> None:
        with self._changed:
            self._corrections.append(right)
            layouts = self._packer.layouts
            self._pending = deque(one.moved(right, layouts) for one in self._pending)
            self._to_file(lambda: self._file.reset(self._pending, self._packer.new))
            self._changed.notify()

    def _add(self, records: Sequence[Record], until: int | None = None, offset: int = 0) -> None:
        known = len(self._packer.new)
        one = self._packer.pack(self._following, records, until, offset)
        new = {number: self._packer.new[number] for number in list(self._packer.new)[known:]}
        self._following += one.readings
        self._readings += one.readings
        self._pending.append(one)
        self._to_file(lambda: self._file.add(one, new))
        while self._readings > MAX_PENDING and len(self._pending) > 1:
            dropped = self._pending.popleft().readings
            self._readings -= dropped
            self.lost += dropped

    def _to_file(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            cause = "the memory file system is full; until the next commit a killed service loses readings"
            self._faults.report("pending readings", f"{self._file.path}: {error.strerror}", cause)
        else:
            self._faults.over("pending readings")

    def ask_state(self, callback: StateCallback) -> None:
        """Have `callback` called in the writer's thread with what the buffer holds."""
        with self._changed:
            self._asked.append(callback)
            self._changed.notify()

    def stop(self) -> None:
        """Commit what has been put so far, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self.join()

    def run(self) -> None:
        """The thread's work."""
        enforced = 0.0
        stopping = False
        while not stopping:
            with self._changed:
                now = self.heartbeat = time.monotonic()
                if not (self._stopping or self._asked):
                    self._changed.wait(min(max(self._due() - now, 0), IDLE))
                asked, self._asked = self._asked, []
                stopping = self._stopping
                due = stopping or self._due() <= time.monotonic()
            if due:
                self._commit()
            for callback in asked:
                callback(self._state())
            if time.monotonic() >= enforced + ENFORCE_INTERVAL:
                self._enforce()
                enforced = time.monotonic()
        if self._buffer is not None:
            self._buffer.close()
        self._file.close()

    def _due(self) -> float:
        """When the next commit is due."""
        if self._corrections:
            return self._retry_at
        if not self._pending:
            return time.monotonic() + IDLE
        interval = self.config.commit_interval
        return max(min(self._last_put + QUIET * interval, self._first_put + interval), self._retry_at)

    def _commit(self) -> None:
        if self._buffer is None:
            self._open_buffer()
        with self._changed:
            chunks = list(self._pending)
            layouts = dict(self._packer.new)
            corrections = list(self._corrections)
        if self._buffer is None or not (chunks or corrections):
            return
        try:
            for right in corrections:
                moved = self._buffer.restamp(right)
                log.info("clock: is right; %d readings in the buffer have moved to the right time", moved)
                del self._corrections[0]
            if chunks:
                self._buffer.store(chunk.join(chunks), layouts)
        except BufferReplacedError as error:
            self._tell_replaced(str(error))
        except (sqlite3.Error, OSError) as error:
            self._fail(f"cannot be written: {error}")
            if "full" in str(error):
                self._make_room()
            else:
                # A file system that has been away may be back under another connection only.
                self._close_buffer()
        else:
            if chunks:
                self._committed(chunks[-1].number, layouts)
            self._faults.over("buffer")

    def _make_room(self) -> None:
        """What the hub has makes room for what it has not."""
        assert self._buffer is not None
        try:
            self._buffer.make_room()
        except (BufferReplacedError, sqlite3.Error, OSError) as error:
            self._faults.report("buffer", f"no room can be made in it: {error}", CAUSE)

    def _committed(self, last: int, layouts: dict[int, Any]) -> None:
        with self._changed:
            while self._pending and self._pending[0].number <= last:
                self._readings -= self._pending.popleft().readings
            self._first_put = time.monotonic()
            for number in layouts:
                self._packer.new.pop(number, None)
            self._to_file(lambda: self._file.committed(list(self._pending), self._packer.new))

    def _fail(self, text: str) -> None:
        self.failure = text
        self._retry_at = time.monotonic() + RETRY
        self._faults.report("buffer", f"{text}; readings are held in memory", CAUSE)

    def _tell_replaced(self, text: str) -> None:
        log.warning("buffer: %s; a new one begins", text)
        self._close_buffer()
        self._open_buffer()

    def _close_buffer(self) -> None:
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None

    def _open_buffer(self) -> None:
        """Open the buffer, and number what waits in memory for it."""
        try:
            buffer = Buffer(self.config.path)
        except BufferUnusableError as error:
            self._fail(str(error))
            return
        for line in buffer.put_aside:
            log.warning("buffer: was damaged: %s; a new one begins", line)
        with self._changed:
            self._number_anew(buffer)
            self.newest = max(self.newest, buffer.newest(), *(one.last for one in self._pending))
            final = [one.last for one in self._pending if one.until is None]
            self.settled = max(self.settled, buffer.settled(), *final)
        self._buffer = buffer

    def _number_anew(self, buffer: Buffer) -> None:
        """Give what waits in memory the numbers of this buffer: of its layouts, and of its next readings."""
        held: list[_Held] = []
        if self._file.path == self._waiting:
            held += self._left_behind(self.config.pending, buffer)
            if not self._pending:
                held += self._left_behind(self._waiting, None)
        held += _unpacked(self._pending, self._packer.layouts)
        before = self._file
        file = PendingFile(self.config.pending, buffer.stream)
        self._renumber(buffer.packer, buffer.following(), held, file)
        before.close()
        self._waiting.unlink(missing_ok=True)

    def _renumber(self, packer: Packer, following: int, held: list[_Held], file: PendingFile) -> None:
        self._packer, self._following, self._file = packer, following, file
        self._pending.clear()
        self._readings = 0
        for until, offset, records in held:
            one = packer.pack(self._following, records, until, offset)
            self._following += one.readings
            self._readings += one.readings
            self._pending.append(one)
        self._first_put = self._last_put = time.monotonic()
        self._to_file(lambda: file.reset(self._pending, packer.new))

    def _left_behind(self, path: Path, buffer: Buffer | None) -> list[_Held]:
        """What a run before this one has put and not committed."""
        try:
            stream, chunks, layouts = pending.read(path)
            following = 0
            if buffer is not None and stream == buffer.stream:
                layouts = {**buffer.packer.layouts, **layouts}
                following = buffer.following()
            return _unpacked([one for one in chunks if one.number >= following], layouts)
        except (OSError, CorruptError) as error:
            log.warning("pending readings: %s: cannot be taken up: %s", path, error)
            return []

    def _enforce(self) -> None:
        if self._buffer is None:
            return
        oldest = int((time.time() - self.config.max_age) * 1000)
        try:
            dropped = self._buffer.enforce(self.config.max_bytes, oldest)
        except BufferReplacedError as error:
            self._tell_replaced(str(error))
            return
        except (sqlite3.Error, OSError) as error:
            self._faults.report("buffer bounds", f"cannot be kept: {error}", CAUSE)
            return
        if dropped:
            cause = "the hub has not confirmed anything for long; look at energy-persistence"
            self._faults.report("buffer bounds", "oldest readings are dropped", cause)
        else:
            self._faults.over("buffer bounds")

    def _state(self) -> dict[str, Any]:
        if self._buffer is None:
            return {"error": self.failure}
        try:
            state = asdict(self._buffer.state())
        except sqlite3.Error as error:
            return {"error": str(error)}
        return {**state, "pending": self._readings, "dropped": state["dropped"] + self.lost}


def _unpacked(chunks: Iterable[Chunk], layouts: Mapping[int, Layout]) -> list[_Held]:
    return [(one.until, one.offset, list(chunk.records(one.data, layouts))) for one in chunks]
