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
    def __init__(self, *, with_value: bool) -> None:
        self.with_value = with_value
        self.times = array("q")
        self.values = array("d")
        self.batches = array("q")
        self.points = array("i")
        self.qualities = array("h")

    def add(self, batch: int, point: int, quality: int, times: array[int]) -> None:
        count = len(times)
        self.times.extend(times)
        self.batches.extend(array("q", (batch,)) * count)
        self.points.extend(array("i", (point,)) * count)
        self.qualities.extend(array("h", (quality,)) * count)

    def rows(self) -> bytes:
        count = len(self.times)
        times = array("q", [(time - EPOCH_MS) * 1000 for time in self.times])
        columns: Iterable[array[int] | array[float]]
        if self.with_value:
            template, columns = _WITH_VALUE, (times, self.values, self.batches, self.points, self.qualities)
        else:
            template, columns = _WITHOUT_VALUE, (times, self.batches, self.points, self.qualities)
        rows = bytearray(template) * count
        stride = len(template)
        offset = 2
        for column in columns:
            if not self.with_value and column is self.batches:
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
