# SPDX-License-Identifier: Apache-2.0
"""The shapes in which readings travel inside the collector: records between its parts, single readings where
people look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from energy_collector import quality


class Reading(NamedTuple):
    """A value of one point at one time; (site, point, time) is its identity.

    `point` is `<meter>/<point>`, `time` is ms since 1970 UTC, `value` is None exactly when `quality` is bad.
    """

    point: str
    unit: str
    time: int
    value: float | None
    quality: int


class Layout(NamedTuple):
    """Points that one request brings, in the order of a record's values; `units` has one for each."""

    points: tuple[str, ...]
    units: tuple[str, ...]


class Record(NamedTuple):
    """What one request brought: a value for each point of its layout, all of one time.

    A hundred readings cost one object instead of a hundred. `qualities` has a byte for each value, and is
    empty when all are good. Where the quality is bad, the value is 0.0 and means nothing.
    """

    layout: Layout
    time: int
    values: Sequence[float]
    qualities: bytes = b""

    def readings(self) -> Iterator[Reading]:
        """One by one."""
        codes = self.qualities or bytes(len(self.values))
        for point, unit, value, code in zip(*self.layout, self.values, codes, strict=True):
            yield Reading(point, unit, self.time, None if quality.is_bad(code) else value, code)


def record(layout: Layout, time: int, readings: Sequence[tuple[float | None, int]]) -> Record:
    """A record of values with their qualities."""
    codes = bytes(code for _, code in readings)
    return Record(layout, time, [value or 0.0 for value, _ in readings], codes if any(codes) else b"")


def nulls(layout: Layout, time: int, code: int) -> Record:
    """A record without a value: `code` is a bad quality."""
    count = len(layout.points)
    return Record(layout, time, [0.0] * count, bytes([code]) * count)


def readings(records: Iterable[Record]) -> list[Reading]:
    """All readings of records, in their order."""
    return [one for record_ in records for one in record_.readings()]
