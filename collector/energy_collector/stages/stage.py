# SPDX-License-Identifier: Apache-2.0
"""The shape of a stage, and what several of them need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from energy_collector.reading import Layout, Record

T = TypeVar("T")

# Layouts remembered by identity. A meter that makes a new one for each poll must not fill the memory.
MAX_IDENTITIES = 1024


class Stage(ABC):
    """Takes the records of a poll and gives those that go on. Records of one meter come in the order of their
    times."""

    @abstractmethod
    def take(self, records: list[Record]) -> list[Record]:
        """Called for each poll. Returns `records` itself where there is nothing to do."""

    def tick(self, now: int) -> list[Record]:  # noqa: ARG002  (most stages wait for records only)
        """Called about once a second with the source's time, ms UTC: what is due though no record came."""
        return []

    def close(self) -> list[Record]:
        """Called once, at the end: what is still held back."""
        return []


class Chain(Stage):
    """Stages one after the other."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = tuple(stages)

    def take(self, records: list[Record]) -> list[Record]:
        """All stages on `records`."""
        for stage in self._stages:
            records = stage.take(records)
        return records

    def tick(self, now: int) -> list[Record]:
        """What one stage gives goes through those behind it, as its other records do."""
        found: list[Record] = []
        for stage in self._stages:
            if found:
                found = stage.take(found)
            found = found + stage.tick(now)
        return found

    def close(self) -> list[Record]:
        """Likewise, at the end."""
        found: list[Record] = []
        for stage in self._stages:
            if found:
                found = stage.take(found)
            found = found + stage.close()
        return found


class PerLayout(Generic[T]):
    """Something that is worked out once for each layout: `make(layout)`.

    Found by identity, since comparing a hundred names for each record would cost more than the stage's work;
    and by equality where a meter makes its layout anew.
    """

    def __init__(self, make: Callable[[Layout], T]) -> None:
        self._make = make
        self._known: dict[Layout, T] = {}
        # The layout is kept with its id, so that the id is not given to another one.
        self._by_id: dict[int, tuple[Layout, T]] = {}

    def __call__(self, layout: Layout) -> T:
        """What belongs to `layout`."""
        entry = self._by_id.get(id(layout))
        if entry is not None:
            return entry[1]
        if layout not in self._known:
            self._known[layout] = self._make(layout)
        if len(self._by_id) >= MAX_IDENTITIES:
            self._by_id.clear()
        found = self._known[layout]
        self._by_id[id(layout)] = (layout, found)
        return found


def split(point: str) -> tuple[str, str]:
    """Meter and short name of a full point name."""
    meter, _, name = point.partition("/")
    return meter, name
