# SPDX-License-Identifier: Apache-2.0
"""A bounded, compact log of what was answered: what every later count at the hub is compared with."""

from struct import calcsize, pack_into, unpack_from

KINDS = ("answered", "exception", "silent", "corrupt", "late", "dropped")
NO_METER = 0xFFFF
_ENTRY = "<dHBBHHB"  # time, meter, unit, function, address, count, kind
_SIZE = calcsize(_ENTRY)
_FIRST_CAPACITY = 1024

Entry = tuple[int, float, int, int, int, int, int, int]  # sequence, then the fields of _ENTRY


class AnswerLog:
    """A ring of entries; sequence numbers start at 1 and never repeat. It grows up to `limit` entries."""

    def __init__(self, limit: int) -> None:
        self.limit = max(limit, 1)
        self.last = 0
        self._capacity = min(self.limit, _FIRST_CAPACITY)
        self._data = bytearray(_SIZE * self._capacity)

    @property
    def dropped(self) -> int:
        """Entries that are gone."""
        return max(0, self.last - self._capacity)

    def add(
        self, at: float, meter: int, unit: int, function: int, address: int, count: int, kind: int
    ) -> None:
        if self.last >= self._capacity < self.limit:
            # Nothing has been overwritten yet, so entries keep their places when the ring grows.
            more = min(self.limit, 2 * self._capacity) - self._capacity
            self._data.extend(bytes(_SIZE * more))
            self._capacity += more
        pack_into(
            _ENTRY,
            self._data,
            self.last % self._capacity * _SIZE,
            at,
            meter,
            unit,
            function,
            address & 0xFFFF,
            count & 0xFFFF,
            kind,
        )
        self.last += 1

    def since(self, sequence: int, most: int) -> list[Entry]:
        """Up to `most` entries after a sequence number, oldest first."""
        first = max(sequence, self.dropped)
        return [
            (index + 1, *unpack_from(_ENTRY, self._data, index % self._capacity * _SIZE))
            for index in range(first, min(self.last, first + most))
        ]
