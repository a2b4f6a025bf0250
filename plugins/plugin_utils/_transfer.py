# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The controller's side of a transfer: how large the next chunk is, and when it may go. No connection, no file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

# Bytes. The first chunk asks what the link gives.
SMALLEST = 32 * 1024
LARGEST = 8 * 1024 * 1024
# Seconds that a chunk should take. Each costs three round trips besides: 1.8 s of 20 by satellite.
AIM = 20.0
# Times that a chunk may be larger than the one before: until one was lost, and afterwards.
GROWTH = 8
CAREFUL = 1.5
# Seconds over which the limit of the rate holds.
BURST = 5.0


@dataclass
class Pace:
    """The size of chunks, by what the last ones took, and a bucket of bytes that fills at `rate` (bytes/s, 0: none)."""

    rate: int
    clock: Callable[[], float]
    size: int = SMALLEST
    _tokens: float = 0.0
    _filled: float = field(default=0.0)
    _growth: float = GROWTH

    def __post_init__(self) -> None:
        self._tokens = self._most
        self._filled = self.clock()

    @property
    def _most(self) -> float:
        return max(self.rate * BURST, SMALLEST / 2)

    def next(self) -> int:
        """Bytes of the next chunk."""
        return min(self.size, int(self._most)) if self.rate else self.size

    def wait(self, length: int) -> float:
        """Seconds until so many bytes may go; they are taken out of the bucket."""
        if not self.rate:
            return 0.0
        now = self.clock()
        self._tokens = min(self._tokens + (now - self._filled) * self.rate, self._most)
        self._filled = now
        self._tokens -= length
        return max(-self._tokens / self.rate, 0.0)

    def took(self, length: int, seconds: float) -> None:
        """A chunk went through: the next is as large as fits the aim. One quick answer may be luck, so not at once."""
        fits = int(length / max(seconds, 1e-3) * AIM)
        self.size = max(SMALLEST, min(fits, int(self._growth * max(self.size, length)), LARGEST))

    def lost(self) -> None:
        """A chunk was lost: smaller ones lose less."""
        self._growth = CAREFUL
        self.size = max(SMALLEST, self.size // 2)
