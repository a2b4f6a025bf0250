# SPDX-License-Identifier: Apache-2.0
"""Series of batches as rows of PostgreSQL's binary COPY, without a Python object for each row.

Layout: https://www.postgresql.org/docs/15/sql-copy.html, "Binary Format": every row is a count of fields,
then for each field its length (-1 for NULL) and its bytes, big-endian. Rows with and without a value have
fixed but different lengths, so each kind is written as a repeated template whose bytes are filled in column
by column.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain, repeat

from energy_hub.batch import Series

COLUMNS = ("time", "value", "batch", "point", "quality")
HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
# PostgreSQL counts microseconds from 2000-01-01T00:00:00Z.
EPOCH_MS = 946_684_800_000

_WITH_VALUE = struct.pack(">hi8xi8xi8xi4xi2x", 5, 8, 8, 8, 4, 2)
_WITHOUT_VALUE = struct.pack(">hi8xii8xi4xi2x", 5, 8, -1, 8, 4, 2)


class Columns:
    """Readings by column, in two lots: with a value and without."""

    def __init__(self) -> None:
        self._present = _Lot(with_value=True)
        self._absent = _Lot(with_value=False)

    def __len__(self) -> int:
        return len(self._present.times) + len(self._absent.times)

    def add(self, batch: int, point: int, series: Series) -> None:
        """All readings of one series; `batch` and `point` are the database's numbers."""
        if len(series.runs) == 1 and not series.runs[0][1]:
            self._present.add(batch, point, series.runs[0][0], series.times)
            self._present.values.extend(series.values)
            return
        at = 0
        for code, null, length in series.runs:
            lot = self._absent if null else self._present
            lot.add(batch, point, code, series.times[at : at + length])
            at += length
        self._present.values.extend(series.values)

    def copy_data(self) -> Iterator[bytes]:
        """The data of `COPY ... (COLUMNS) FROM STDIN (FORMAT binary)`."""
        yield HEADER
        yield self._present.rows()
        yield self._absent.rows()
        yield TRAILER


class _Lot:
    """`times` and `values` have a number a row; the others have one for each `counts` rows, as they came."""

    def __init__(self, *, with_value: bool) -> None:
        self.with_value = with_value
        self.times = array("q")
        self.values = array("d")
        self.counts: list[int] = []
        self.batches: list[int] = []
        self.points: list[int] = []
        self.qualities: list[int] = []

    def add(self, batch: int, point: int, quality: int, times: array[int]) -> None:
        self.times.extend(times)
        self.counts.append(len(times))
        self.batches.append(batch)
        self.points.append(point)
        self.qualities.append(quality)

    def _spread(self, kind: str, numbers: list[int]) -> array[int]:
        """A number a row."""
        if len(numbers) == len(self.times):
            return array(kind, numbers)
        return array(kind, chain.from_iterable(map(repeat, numbers, self.counts)))

    def rows(self) -> bytes:
        count = len(self.times)
        times = array("q", [(time - EPOCH_MS) * 1000 for time in self.times])
        batches, points = self._spread("q", self.batches), self._spread("i", self.points)
        qualities = self._spread("h", self.qualities)
        columns: Iterable[array[int] | array[float]]
        if self.with_value:
            template, columns = _WITH_VALUE, (times, self.values, batches, points, qualities)
        else:
            template, columns = _WITHOUT_VALUE, (times, batches, points, qualities)
        rows = bytearray(template) * count
        stride = len(template)
        offset = 2
        for column in columns:
            if not self.with_value and column is batches:
                offset += 4  # the length -1 that stands for the value
            offset += 4
            data = big_endian(column)
            for plane in range(column.itemsize):
                rows[offset + plane :: stride] = data[plane :: column.itemsize]
            offset += column.itemsize
        return bytes(rows)


def big_endian(column: array[int] | array[float]) -> bytes:
    if sys.byteorder == "big":
        return column.tobytes()
    swapped = column[:]
    swapped.byteswap()
    return swapped.tobytes()
