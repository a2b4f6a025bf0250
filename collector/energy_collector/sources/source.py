# SPDX-License-Identifier: Apache-2.0
"""What a source of readings is, beside the Modbus meters.

To add one: a module here with a subclass of `Source`; its name in `config.SOURCES` and its settings there; its class
in `from_config`; its points in docs/reference/gateway-configuration.md; a test against the real thing or a fake tree
of it. A source decides what it reads and what its points are called; when it is read, and what becomes of the
records, is no business of its own.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from energy_collector.polling.schedule import Schedule
from energy_collector.reading import Layout, Record

Stamp = Callable[[], int]


class Source(ABC):
    """Something that is read every `interval` s. Points are named `<name>/<point>`."""

    def __init__(self, name: str, interval: float) -> None:
        self.name = name
        self.interval = interval

    @property
    @abstractmethod
    def layouts(self) -> tuple[Layout, ...]:
        """Those of its records, as far as they are known now."""

    @abstractmethod
    async def read(self, stamp: Stamp) -> list[Record]:
        """Read everything once; `stamp` gives the time of a record.

        What does not answer becomes a null with its reason. Nothing is raised for it, and nothing may hold up the
        event loop: files are read in a thread.
        """


async def run(source: Source, stamp: Stamp, sink: Callable[[list[Record]], None]) -> None:
    """Read on multiples of the interval in UTC, as meters are polled, until cancelled."""
    first = source.interval - time.time() % source.interval
    schedule = Schedule(time.monotonic() + first, source.interval)
    while True:
        await asyncio.sleep(max(schedule.due - time.monotonic(), 0))
        records = await source.read(stamp)
        if records:
            sink(records)
        schedule.advance(time.monotonic())
