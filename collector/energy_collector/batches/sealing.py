# SPDX-License-Identifier: Apache-2.0
"""Makes the body of a batch from chunks: takes as many records as fit, and turns them into columns by slicing."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from energy_collector.batches.encoding import Block, Column, Encoder, head, runs
from energy_collector.quality import BAD
from energy_collector.reading import Layout
from energy_collector.storage.chunk import Chunk, Packed, unpack


class Taken(NamedTuple):
    """What goes into a batch: records, and what is left of the last of their chunks, if anything is."""

    records: list[Packed]
    readings: int
    first: int
    last: int
    chunks: int
    rest: Chunk | None


@dataclass
class _Known:
    """A layout, with what every batch says of it."""

    layout: Layout
    heads: list[bytes]
    # Other layouts with one of its points.
    rivals: set[int] = field(default_factory=set)


class Sealer:
    """Chunks to bodies. `find` gives the layout of a number."""

    def __init__(self, find: Callable[[int], Layout]) -> None:
        self.layouts: dict[int, Layout] = _Layouts(find)
        self._known: dict[int, _Known] = {}
        self._encoder = Encoder()

    def take(self, chunks: Sequence[Chunk], span: int, most: int) -> Taken | None:
        """The oldest records that go into one batch; None when all fit, so that the next may still belong to it.

        They end before one that is `span` ms or more after the first, before there are more than `most` readings, and
        before one that a batch cannot hold together with its predecessors: a point twice, or a time that does not
        ascend. A batch holds whole chunks, unless the first of them is too large.
        """
        taken: list[Packed] = []
        newest: dict[int, int] = {}
        readings = 0
        for index, chunk in enumerate(chunks):
            start, before = len(taken), readings
            for one in unpack(memoryview(chunk.data), self.layouts):
                count = len(self.layouts[one.layout].points)
                cut = taken and (
                    one.time >= chunks[0].first + span
                    or readings + count > most
                    or one.time <= newest.get(one.layout, one.time - 1)
                    or not self._of(one.layout).rivals.isdisjoint(newest)
                )
                if cut and index:
                    return _taken(taken[:start], before, index, None)
                if cut:
                    done = chunk.number + readings
                    rest = self._rest(chunk, one.start, done, chunk.readings - readings)
                    return _taken(taken, readings, 1, rest)
                newest[one.layout] = one.time
                taken.append(one)
                readings += count
        return None

    def everything(self, chunks: Sequence[Chunk]) -> Taken:
        """All records of chunks of which `take` says that they fit."""
        found = [one for chunk in chunks for one in unpack(memoryview(chunk.data), self.layouts)]
        return _taken(found, sum(chunk.readings for chunk in chunks), len(chunks), None)

    def _rest(self, chunk: Chunk, start: int, number: int, readings: int) -> Chunk:
        data = chunk.data[start:]
        times = [one.time for one in unpack(data, self.layouts)]
        return Chunk(number, readings, min(times), max(times), data, chunk.until, chunk.offset)

    def _of(self, number: int) -> _Known:
        found = self._known.get(number)
        if found is None:
            layout = self.layouts[number]
            found = _Known(layout, [head(*names) for names in zip(*layout, strict=True)])
            points = set(layout.points)
            for other_number, other in self._known.items():
                if not points.isdisjoint(other.layout.points):
                    found.rivals.add(other_number)
                    other.rivals.add(number)
            self._known[number] = found
        return found

    def body(self, site: str, taken: Taken) -> bytes:
        """The body of a batch."""
        groups: dict[int, list[Packed]] = {}
        for one in taken.records:
            groups.setdefault(one.layout, []).append(one)
        return self._encoder.body(site, [self._block(number, group) for number, group in groups.items()])

    def _block(self, number: int, group: list[Packed]) -> Block:
        heads = self._of(number).heads
        return Block([one.time for one in group], len(heads), _columns(heads, group))


def _columns(heads: Sequence[bytes], group: Sequence[Packed]) -> Iterator[Column]:
    """The columns of one layout. As numbers, a batch takes four times what it takes packed: so this is done when the
    columns are written, for one layout after the other."""
    width = len(heads)
    packed = array("d")
    for one in group:
        packed.frombytes(one.values or bytes(8 * width))
    # Lists share their numbers with their slices; an array would make each anew.
    values = packed.tolist()
    good = runs(bytes(len(group)))
    codes = b"".join(one.codes or bytes(width) for one in group) if any(one.codes for one in group) else b""
    for at, name in enumerate(heads):
        own, column = codes[at::width], values[at::width]
        if own and max(own) >= BAD:
            column = [value for value, code in zip(column, own, strict=True) if code < BAD]
        yield Column(name, runs(own) if any(own) else good, column)


class _Layouts(dict[int, Layout]):
    """Layouts that have been asked for, by number."""

    def __init__(self, find: Callable[[int], Layout]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, number: int) -> Layout:
        self[number] = layout = self._find(number)
        return layout


def _taken(records: list[Packed], readings: int, chunks: int, rest: Chunk | None) -> Taken:
    times = [one.time for one in records]
    return Taken(records, readings, min(times), max(times), chunks, rest)
