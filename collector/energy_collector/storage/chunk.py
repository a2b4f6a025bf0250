# SPDX-License-Identifier: Apache-2.0
"""How records lie in the buffer: packed one behind the other into chunks, a chunk for each commit.

A record is its layout's number, its time and its values as doubles. A quality costs nothing while all are good, and
a value nothing while none is there. A layout is written down once, under its number.
"""

from __future__ import annotations

import json
import math
import struct
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from energy_collector import quality
from energy_collector.reading import Layout, Record

# Number of the layout, time in ms UTC, what follows.
HEAD = struct.Struct("<IqB")
CHECKSUM = struct.Struct("<I")
# Chunks of up to so many bytes are deflated.
DEFLATED = 16 << 10
# Readings in neighbours that are joined.
JOINED = 4000
# Values; values and a quality for each; a quality for each and no value.
GOOD, CODED, NULL = 0, 1, 2


class CorruptError(Exception):
    """Bytes in the buffer that are not what was written there."""


class Chunk(NamedTuple):
    """Packed records. `number` is that of the first reading; `first` and `last` are the oldest and the newest time.

    While the times are provisional, they are the time since the boot plus `offset`, and may move until the boot time
    `until`, all in ms: see energy_collector.clock.
    """

    number: int
    readings: int
    first: int
    last: int
    data: bytes
    until: int | None = None
    offset: int = 0

    def moved(self, right: int | None, layouts: Mapping[int, Layout]) -> Chunk:
        """The same with times that are no longer provisional: the right offset is known, or will never be."""
        if self.until is None or right is None:
            return self._replace(until=None, offset=0)
        by = right - self.offset
        data = shift(self.data, by, layouts)
        return Chunk(self.number, self.readings, self.first + by, self.last + by, data)


class Packed(NamedTuple):
    """A record as it lies in a chunk, from offset `start` to `end`. `values` is empty when all are null.

    Parts of a memoryview are views themselves: nothing is copied.
    """

    layout: int
    time: int
    values: bytes | memoryview
    codes: bytes | memoryview
    start: int
    end: int


def layout_text(layout: Layout) -> str:
    """A layout, to be written down."""
    return json.dumps([layout.points, layout.units], ensure_ascii=False, separators=(",", ":"))


def read_layout(text: str) -> Layout:
    """The layout that was written down; raises CorruptError."""
    try:
        points, units = json.loads(text)
        # A site has thousands of points and a dozen units.
        return Layout(tuple(map(str, points)), tuple(sys.intern(str(unit)) for unit in units))
    except (ValueError, TypeError) as error:
        raise CorruptError(f"a layout cannot be read: {error}") from error


class Packer:
    """Packs records, and gives numbers to layouts that have none yet."""

    def __init__(self, known: Mapping[int, Layout]) -> None:
        self._numbers = {layout: number for number, layout in known.items()}
        # A layout is one object for all its records: identity spares hashing a hundred names for each of them.
        self._by_identity: dict[int, tuple[Layout, int]] = {}
        self._following = max(known, default=0) + 1
        # Layouts that no commit has stored yet.
        self.new: dict[int, Layout] = {}

    @property
    def layouts(self) -> dict[int, Layout]:
        """All layouts by their numbers."""
        return {number: layout for layout, number in self._numbers.items()}

    def number(self, layout: Layout) -> int:
        """The number of a layout."""
        found = self._by_identity.get(id(layout))
        if found is not None and found[0] is layout:
            return found[1]
        number = self._numbers.get(layout)
        if number is None:
            number = self._following
            self._following += 1
            self._numbers[layout] = number
            self.new[number] = layout
        if len(self._by_identity) > 10_000:
            self._by_identity.clear()
        self._by_identity[id(layout)] = (layout, number)
        return number

    def pack(
        self, number: int, records: Sequence[Record], until: int | None = None, offset: int = 0
    ) -> Chunk:
        """A chunk of at least one record; `number` is that of its first reading."""
        parts = []
        count = 0
        for record in records:
            parts.append(_pack(self.number(record.layout), record))
            count += len(record.values)
        times = [record.time for record in records]
        return Chunk(number, count, min(times), max(times), b"".join(parts), until, offset)


def _pack(layout: int, record: Record) -> bytes:
    values, codes = record.values, record.qualities
    # A sum is finite unless one of its terms is not, or it is very large itself.
    if not math.isfinite(sum(values)):
        values, codes = _without_infinities(values, codes)
    if not codes:
        return HEAD.pack(layout, record.time, GOOD) + array("d", values).tobytes()
    if min(codes) >= quality.BAD:
        return HEAD.pack(layout, record.time, NULL) + codes
    return HEAD.pack(layout, record.time, CODED) + array("d", values).tobytes() + codes


def _without_infinities(values: Sequence[float], codes: bytes) -> tuple[Sequence[float], bytes]:
    """A value that is no number is none: its quality is bad."""
    found = bytearray(codes or bytes(len(values)))
    finite = list(values)
    for index, value in enumerate(values):
        if not math.isfinite(value):
            finite[index] = 0.0
            found[index] = found[index] if quality.is_bad(found[index]) else quality.BAD
    return finite, bytes(found) if any(found) else b""


def join(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Fewer chunks with the same readings: neighbours become one, unless the times of one are provisional and those of
    the other are not, or they are so many that a batch could not take them whole."""
    runs: list[list[Chunk]] = []
    readings = 0
    for one in chunks:
        readings += one.readings
        if runs and readings <= JOINED and _provisional(runs[-1][-1]) == _provisional(one):
            runs[-1].append(one)
        else:
            runs.append([one])
            readings = one.readings
    return [
        Chunk(
            run[0].number,
            sum(one.readings for one in run),
            min(one.first for one in run),
            max(one.last for one in run),
            b"".join(one.data for one in run),
            run[-1].until,
            run[-1].offset,
        )
        for run in runs
    ]


def _provisional(one: Chunk) -> tuple[bool, int]:
    return one.until is not None, one.offset


def protect(data: bytes) -> bytes:
    """The bytes as they are stored: with a checksum in front, since SQLite has none of its own outside of the
    write-ahead log, and deflated when they are few.

    A commit of few readings weighs on flash by the pages that it touches. One of many fills its blocks anyway, and
    would cost too much processor time.
    """
    stored = b"Z" + zlib.compress(data, 1) if len(data) <= DEFLATED else b"R" + data
    return CHECKSUM.pack(zlib.crc32(stored)) + stored


def check(stored: bytes) -> bytes:
    """The bytes that were protected; raises CorruptError."""
    content = stored[CHECKSUM.size :]
    if len(stored) <= CHECKSUM.size or CHECKSUM.unpack_from(stored)[0] != zlib.crc32(content):
        raise CorruptError("a checksum is wrong")
    return zlib.decompress(content[1:]) if content[:1] == b"Z" else content[1:]


def unpack(data: bytes | memoryview, layouts: Mapping[int, Layout]) -> Iterator[Packed]:
    """The records of a chunk; raises CorruptError."""
    at = 0
    while at < len(data):
        try:
            layout, time, kind = HEAD.unpack_from(data, at)
            count = len(layouts[layout].points)
        except (struct.error, KeyError) as error:
            raise CorruptError(f"a chunk cannot be read at offset {at}") from error
        start, at = at, at + HEAD.size
        values: bytes | memoryview = b""
        codes: bytes | memoryview = b""
        if kind != NULL:
            values = data[at : at + 8 * count]
            at += 8 * count
        if kind != GOOD:
            codes = data[at : at + count]
            at += count
        if at > len(data) or kind > NULL:
            raise CorruptError(f"a chunk cannot be read at offset {start}")
        yield Packed(layout, time, values, codes, start, at)


def records(data: bytes, layouts: Mapping[int, Layout]) -> Iterator[Record]:
    """The same as records; raises CorruptError."""
    for one in unpack(data, layouts):
        layout = layouts[one.layout]
        values = array("d", bytes(one.values) or bytes(8 * len(layout.points)))
        yield Record(layout, one.time, values, bytes(one.codes))


def shift(data: bytes, by: int, layouts: Mapping[int, Layout]) -> bytes:
    """The same records at times `by` ms later; raises CorruptError."""
    moved = bytearray(data)
    for one in unpack(data, layouts):
        kind = data[one.start + HEAD.size - 1]
        HEAD.pack_into(moved, one.start, one.layout, one.time + by, kind)
    return bytes(moved)


def sizes(chunks: Iterable[Chunk]) -> int:
    """Readings in chunks."""
    return sum(one.readings for one in chunks)
