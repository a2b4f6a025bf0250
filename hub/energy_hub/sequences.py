# SPDX-License-Identifier: Apache-2.0
"""Which batches of a stream are committed: ranges of sequences, and which of them an acknowledgement names."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable

Ranges = list[tuple[int, int]]
"""Inclusive ranges of sequences, ascending."""

Identity = tuple[int, bytes, int]
"""Of a batch: number of the site, stream, sequence."""

# So many are named in an acknowledgement: more than a gateway has batches under way, and a few KB.
MOST_TOLD = 100
# Of those, so many from both ends, whatever was just sent.
ENDS = 8

_RANGE = re.compile(r"\[(\d+),(\d+)\)")


def multirange(sequences: Iterable[int]) -> str:
    """Single sequences as PostgreSQL reads an int8multirange."""
    return "{" + ",".join(f"[{number},{number}]" for number in sequences) + "}"


def ranges(text: str) -> Ranges:
    """An int8multirange as PostgreSQL writes it, [first, past); psycopg's own reader takes far longer."""
    return [(int(first), int(past) - 1) for first, past in _RANGE.findall(text)]


def told(committed: Ranges, around: Collection[int]) -> Ranges:
    """What an acknowledgement names of all that is committed. Naming less is always safe: the gateway sends what it
    was not told of again, and hears of it then. So what it has just sent (`around`) comes first, beside both
    ends; then what follows, which a gateway that sends its backlog in order would send next."""
    if len(committed) <= MOST_TOLD:
        return committed
    past = [high for _, high in committed]
    sent = sorted({min(bisect_left(past, sequence), len(past) - 1) for sequence in around})
    ends = [*range(ENDS), *range(len(committed) - ENDS, len(committed))]
    after = range(sent[0] if sent else 0, len(committed))
    before = range(after.start - 1, -1, -1)
    chosen = list(dict.fromkeys([*ends, *sent, *after, *before]))[:MOST_TOLD]
    return [committed[index] for index in sorted(chosen)]
