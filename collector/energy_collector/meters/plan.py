# SPDX-License-Identifier: Apache-2.0
"""Which registers to read at once: as few requests as can be, each within the device's limits, over small gaps
rather than around them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """Registers that something is in, which cannot be read in two requests."""

    name: str
    address: int
    size: int
    function: int = 3

    @property
    def end(self) -> int:
        """The address after the last register."""
        return self.address + self.size


class Cut(NamedTuple):
    """Two registers that one request may not hold both."""

    function: int
    first: int
    last: int


@dataclass(frozen=True)
class Block:
    """Registers to read with one request, and what lies in them, by address."""

    function: int
    address: int
    count: int
    spans: tuple[Span, ...]


def plan(spans: Iterable[Span], max_block: int, max_gap: int, cuts: Collection[Cut] = ()) -> list[Block]:
    """Cover all spans with the fewest requests; among plans with as few, the one that reads the fewest registers.

    `max_gap` is the number of registers that cost less to read and forget than a request of their own. A cut through
    one of the spans does not count: that value can only be read whole. Raises ValueError for a span that is longer
    than a block.
    """
    by_function: dict[int, list[Span]] = {}
    for span in spans:
        by_function.setdefault(span.function, []).append(span)
    blocks: list[Block] = []
    for function in sorted(by_function):
        found = sorted(by_function[function], key=lambda span: (span.address, span.size))
        apart = [
            cut
            for cut in cuts
            if cut.function == function
            and not any(span.address <= cut.first and cut.last < span.end for span in found)
        ]
        blocks += _plan(found, max_block, max_gap, apart)
    return blocks


def _plan(spans: list[Span], max_block: int, max_gap: int, cuts: list[Cut]) -> list[Block]:
    """For one function. An optimal plan cuts the spans, sorted by address, into runs: so the best plan for the first
    n spans is one more block after the best plan for fewer."""
    for span in spans:
        if span.size > max_block:
            raise ValueError(f"{span.name} takes {span.size} registers, a block holds {max_block}")
    # For the first n spans: requests, registers, and where the last block begins.
    best: list[tuple[int, int, int]] = [(0, 0, 0)]
    for first, begin in enumerate(spans):
        requests, registers, _ = best[first]
        end = begin.address
        for last in range(first, len(spans)):
            # A gap that is too wide, a cut, or too many registers stay so with more spans.
            if spans[last].address - end > max_gap:
                break
            end = max(end, spans[last].end)
            if end - begin.address > max_block:
                break
            if any(begin.address <= cut.first and cut.last < end for cut in cuts):
                break
            found = (requests + 1, registers + end - begin.address, first)
            if last + 1 == len(best):
                best.append(found)
            elif found < best[last + 1]:
                best[last + 1] = found
    blocks: list[Block] = []
    last = len(spans)
    while last:
        first = best[last][2]
        blocks.insert(0, block(spans[first:last]))
        last = first
    return blocks


def block(spans: Iterable[Span]) -> Block:
    """The request for some spans of one function, sorted by address."""
    found = tuple(spans)
    address = found[0].address
    return Block(found[0].function, address, max(span.end for span in found) - address, found)
