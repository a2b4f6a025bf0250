# SPDX-License-Identifier: Apache-2.0
"""How many gaps a stream may have: each commit rewrites and reads all of its ranges."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping
from time import monotonic

import psycopg

from energy_hub.sequences import Identity, Ranges, ranges

# A gateway sends in order, a backlog behind what is live: it has one range more for each time that its connection came
# back before the backlog of the times before had gone, and a gap that stays for each time that its buffer was full.
# A link that breaks every ten minutes makes so many in four weeks, if all that while it never carries a backlog.
MOST_RANGES = 4000
# A stream with so many is looked at before batches are added; one group does not fill what is left.
CROWDED = MOST_RANGES // 2
# Where a stream is full, one further range may begin after so long, in s: a gateway whose buffer was full has gaps that
# nothing will ever fill, and goes on behind the last one in order.
FURTHER_RANGE = 3600.0

Stream = tuple[int, bytes]
"""Number of the site, stream."""


class Room:
    """What else fits into a stream that may have so many ranges and no more."""

    def __init__(self, committed: Ranges, most: int) -> None:
        self._most = most
        self._lows = [low for low, _ in committed]
        self._highs = [high for _, high in committed]

    def take(self, sequence: int, *, beyond: bool = False) -> bool:
        """Whether a batch has room; if so it is counted from now on. One that is committed, or next to one that is,
        always has, and so has any with `beyond`."""
        # The range that begins at it or before it, and the one behind that.
        at = bisect_right(self._lows, sequence) - 1
        if at >= 0 and sequence <= self._highs[at]:
            return True
        follows = at >= 0 and self._highs[at] + 1 == sequence
        leads = at + 1 < len(self._lows) and self._lows[at + 1] == sequence + 1
        if follows and leads:
            self._highs[at] = self._highs.pop(at + 1)
            del self._lows[at + 1]
        elif follows:
            self._highs[at] = sequence
        elif leads:
            self._lows[at + 1] = sequence
        elif beyond or len(self._lows) < self._most:
            self._lows.insert(at + 1, sequence)
            self._highs.insert(at + 1, sequence)
        else:
            return False
        return True


class Gaps:
    """What one worker knows of streams with many ranges."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._crowded: set[Stream] = set()
        # By site: when a full stream was last given a further range, or was first found to be full.
        self._widened: dict[int, float] = {}

    def note(self, committed: Mapping[Stream, Ranges]) -> None:
        """All that is committed of some streams."""
        self._crowded -= committed.keys()
        self._crowded |= {stream for stream, found in committed.items() if len(found) >= CROWDED}

    def fits(self, batches: Collection[Identity]) -> set[Identity]:
        """Those that may be committed: all but those that would begin a further range where there are too many. An
        honest gateway sends again what a gap lacks, and each batch next to a range has room."""
        crowded = {one[:2] for one in batches} & self._crowded
        if not crowded:
            return set(batches)
        rooms = {
            (site, bytes(stream)): Room(ranges(committed), MOST_RANGES)
            for site, stream, committed in self._connection.execute(
                "SELECT site, stream, committed::text FROM stream"
                " JOIN unnest(%b::int[], %b::bytea[]) AS t (site, stream) USING (site, stream)",
                ([site for site, _ in crowded], [stream for _, stream in crowded]),
            )
        }
        fitting = set()
        for one in sorted(set(batches)):
            room = rooms.get(one[:2])
            if room is None or room.take(one[2]) or self._widen(room, one):
                fitting.add(one)
        return fitting

    def _widen(self, room: Room, one: Identity) -> bool:
        now = monotonic()
        if now - self._widened.setdefault(one[0], now) < FURTHER_RANGE:
            return False
        self._widened[one[0]] = now
        return room.take(one[2], beyond=True)
