# SPDX-License-Identifier: Apache-2.0
"""Which registers to read at once: few requests, each within the device's limit, over small gaps rather
than around them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """Registers to read with one request, and what lies in them."""

    address: int
    count: int
    fields: tuple[str, ...]


def plan(fields: Iterable[tuple[str, int, int]], max_block: int, max_gap: int) -> list[Block]:
    """Cover all fields (name, address, size). A field is never split over two blocks.

    `max_gap` is the number of registers that cost less to read and forget than a request of their own.
    """
    blocks: list[Block] = []
    names: list[str] = []
    start = end = 0
    for name, address, size in sorted(fields, key=lambda field: (field[1], field[2])):
        if size > max_block:
            raise ValueError(f"{name} takes {size} registers, a block holds {max_block}")
        if names and (address - end > max_gap or max(end, address + size) - start > max_block):
            blocks.append(Block(start, end - start, tuple(names)))
            names = []
        if not names:
            start = end = address
        names.append(name)
        end = max(end, address + size)
    if names:
        blocks.append(Block(start, end - start, tuple(names)))
    return blocks
