# SPDX-License-Identifier: Apache-2.0
"""Chance that repeats: numbers that depend on a seed and labels only, the same in every process."""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import shake_128
from itertools import accumulate, pairwise
from struct import unpack

CELL = 900  # s, a cell of the coarse grid on which power is drawn
SEGMENT = 30  # s, a segment of the fine grid inside a cell
SEGMENTS = CELL // SEGMENT


def uniform(*labels: object) -> float:
    """A number in [0, 1)."""
    return uniforms(1, *labels)[0]


def uniforms(count: int, *labels: object) -> list[float]:
    """`count` numbers in [0, 1), 16 bits each."""
    digest = shake_128("/".join(str(label) for label in labels).encode()).digest(2 * count)
    return [value / 65536 for value in unpack(f">{count}H", digest)]


@dataclass(frozen=True)
class Ripple:
    """A piecewise linear wave over one cell, in [-1, 1], zero at both ends, whose integral over the cell is
    zero.

    `knots` has SEGMENTS + 1 values; `sums` their integral (in s) from the start of the cell to each knot.
    """

    knots: tuple[float, ...]
    sums: tuple[float, ...]

    def value(self, offset: float) -> float:
        index = min(int(offset // SEGMENT), SEGMENTS - 1)
        part = offset - index * SEGMENT
        left = self.knots[index]
        return left + (self.knots[index + 1] - left) * part / SEGMENT

    def integral(self, offset: float) -> float:
        index = min(int(offset // SEGMENT), SEGMENTS - 1)
        part = offset - index * SEGMENT
        left = self.knots[index]
        slope = (self.knots[index + 1] - left) / SEGMENT
        return self.sums[index] + left * part + slope * part * part / 2


@lru_cache(maxsize=4096)
def ripple(seed: int, label: str, cell: int) -> Ripple:
    """The ripple of one source in one cell (counted from 1970).

    The second half mirrors the first with the sign changed: that is what makes the integral zero, so that the
    energy of a whole cell needs no look at its ripple.
    """
    half = [2 * value - 1 for value in uniforms(SEGMENTS // 2 - 1, seed, label, "ripple", cell)]
    knots = [0.0, *half, 0.0, *(-value for value in reversed(half)), 0.0]
    steps = ((left + right) * SEGMENT / 2 for left, right in pairwise(knots))
    return Ripple(tuple(knots), tuple(accumulate(steps, initial=0.0)))
