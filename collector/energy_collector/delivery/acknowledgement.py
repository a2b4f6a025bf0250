# SPDX-License-Identifier: Apache-2.0
"""The hub's acknowledgement, as docs/reference/wire-format.md describes it."""

from __future__ import annotations

import json
from typing import NamedTuple

LONGEST_GENERATION = 64


class Acknowledgement(NamedTuple):
    """The batches of `stream` up to `watermark`, and those in the inclusive `ranges`, are committed.

    `generation` names the database that has them, '' from a hub that does not name it.
    """

    stream: str
    watermark: int
    ranges: tuple[tuple[int, int], ...]
    generation: str = ""

    def names(self, sequence: int) -> bool:
        """Whether a batch is committed."""
        return sequence <= self.watermark or any(low <= sequence <= high for low, high in self.ranges)


def parse(payload: bytes) -> Acknowledgement:
    """Unpack the JSON; raises ValueError for anything that is not exactly an acknowledgement."""
    data = json.loads(payload)
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004  (one kind of error for all that is wrong)
    stream, ranges = data.get("stream"), data.get("ranges", [])
    if not isinstance(stream, str) or not isinstance(ranges, list):
        # One kind of error for all that is wrong with a payload: the caller reports it in one place.
        raise ValueError("stream or ranges has the wrong type")  # noqa: TRY004  (as above)
    watermark = data.get("watermark")
    if not isinstance(watermark, int) or not _is_count(watermark):
        raise ValueError(f"{watermark!r} is not a watermark")
    spans = []
    for span in ranges:
        if not isinstance(span, list) or len(span) != 2 or not all(map(_is_count, span)) or span[0] > span[1]:
            raise ValueError(f"{span!r} is not a range of sequences")
        spans.append((span[0], span[1]))
    generation = data.get("generation", "")
    if not isinstance(generation, str) or len(generation) > LONGEST_GENERATION:
        raise ValueError("generation is not a short text")
    return Acknowledgement(stream, watermark, tuple(spans), generation)


def _is_count(value: object) -> bool:
    # SQLite's integers have 63 bits and a sign.
    return type(value) is int and 0 <= value < 1 << 63
