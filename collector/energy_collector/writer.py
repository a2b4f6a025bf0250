# SPDX-License-Identifier: Apache-2.0
"""The thread that commits readings to the buffer, so that a slow disk does not hold up the polling."""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from energy_collector.buffer import Buffer
from energy_collector.config import BufferConfig
from energy_collector.journal import Faults
from energy_collector.reading import Record, readings

# At most this much time of readings is lost at a power cut, in s.
COMMIT_INTERVAL = 1.0
# A poll's readings come in a burst. When nothing has come for so long it is over, and is committed at once: one commit
# a burst is kind to flash, and leaves a kill nothing to take. In s.
QUIET = 0.2
ENFORCE_INTERVAL = 10.0
# Readings kept in memory while the disk refuses them.
MAX_PENDING = 200_000
IDLE = 1.0

StateCallback = Callable[[dict[str, Any]], object]


class Writer(threading.Thread):
    """Takes readings from any thread; commits a burst when it is over, and never later than `COMMIT_INTERVAL`."""

    def __init__(self, config: BufferConfig, faults: Faults) -> None:
        super().__init__(name="writer", daemon=True)
        self.config = config
        self.newest: dict[str, int] = {}
        self.heartbeat = time.monotonic()
        self.lost = 0
        self._faults = faults
        self._queue: queue.SimpleQueue[list[Record] | StateCallback | None] = queue.SimpleQueue()
        self._opened = threading.Event()
        self._failure: Exception | None = None

    def open(self) -> None:
        """Start the thread and wait until the buffer is open; raises BufferUnusableError."""
        self.start()
        self._opened.wait()
        if self._failure is not None:
            raise self._failure

    def put(self, records: list[Record]) -> None:
        """Store records soon."""
        self._queue.put(records)

    def ask_state(self, callback: StateCallback) -> None:
        """Have `callback` called in the writer's thread with what the buffer holds."""
        self._queue.put(callback)

    def stop(self) -> None:
        """Commit what has been put so far, and end."""
        self._queue.put(None)
        self.join()

    def run(self) -> None:
        """The thread's work."""
        try:
            buffer = Buffer(self.config.path)
            self.newest = buffer.newest()
        except Exception as error:  # noqa: BLE001  (handed to the thread that waits in `open`)
            self._failure = error
            return
        finally:
            self._opened.set()
        try:
            self._work(buffer)
        finally:
            buffer.close()

    def _work(self, buffer: Buffer) -> None:
        pending: list[Record] = []
        waiting_since = enforced = 0.0
        stopping = False
        while not stopping:
            now = self.heartbeat = time.monotonic()
            wait = min(QUIET, max(waiting_since + COMMIT_INTERVAL - now, 0)) if pending else IDLE
            item = self._take(wait)
            now = time.monotonic()
            if isinstance(item, list):
                if not pending:
                    waiting_since = now
                pending += item
            elif callable(item):
                item(self._state(buffer, len(pending)))
            stopping = item is None
            quiet = item == []
            if pending and (stopping or quiet or now >= waiting_since + COMMIT_INTERVAL):
                pending = self._commit(buffer, pending)
                waiting_since = now
            if now >= enforced + ENFORCE_INTERVAL:
                self._enforce(buffer)
                enforced = now

    def _take(self, wait: float) -> list[Record] | StateCallback | None:
        try:
            return self._queue.get(timeout=wait) if wait else self._queue.get_nowait()
        except queue.Empty:
            return []

    def _commit(self, buffer: Buffer, pending: list[Record]) -> list[Record]:
        """Returns what is still to be committed."""
        try:
            buffer.append(readings(pending))
        except sqlite3.Error as error:
            self._faults.report(
                "buffer", f"cannot be written: {error}", "the disk is full, read-only or failing"
            )
            self.lost += max(len(pending) - MAX_PENDING, 0)
            return pending[-MAX_PENDING:]
        self._faults.over("buffer")
        return []

    def _enforce(self, buffer: Buffer) -> None:
        oldest = int((time.time() - self.config.max_age) * 1000)
        try:
            dropped = buffer.enforce(self.config.max_bytes, oldest)
        except sqlite3.Error as error:
            self._faults.report(
                "buffer bounds", f"cannot be kept: {error}", "the disk is full, read-only or failing"
            )
            return
        if dropped:
            cause = "the hub has not confirmed anything for long; look at energy-persistence"
            self._faults.report("buffer bounds", "oldest readings are dropped", cause)
        else:
            self._faults.over("buffer bounds")

    def _state(self, buffer: Buffer, pending: int) -> dict[str, Any]:
        try:
            state = asdict(buffer.state())
        except sqlite3.Error as error:
            return {"error": str(error)}
        return {**state, "pending": pending, "dropped": state["dropped"] + self.lost}
