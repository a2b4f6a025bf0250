# SPDX-License-Identifier: Apache-2.0
"""Writes the body of a batch, as docs/reference/wire-format.md describes it.

A gateway that reads thousands of points a second does this with all of them: what is the same for a whole request is
done once, and a value goes through list comprehensions only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from math import gcd
from operator import sub
from typing import NamedTuple

from energy_collector import quality
from energy_collector.batches.varint import put_planes, put_string, put_varint, put_zigzag, put_zigzags

DECIMAL, FLOAT32, FLOAT64 = 0, 1, 2
MAX_EXPONENT = 12
# Up to here a double holds every integer, so that one division by a power of ten gives the nearest double
# back.
MAX_MANTISSA = 1 << 53
POWERS = tuple(10.0**exponent for exponent in range(MAX_EXPONENT + 1))


class Column(NamedTuple):
    """The series of one point. `head` and `runs` as `head` and `runs` below make them; `values` has no nulls."""

    head: bytes
    runs: bytes
    values: list[float]


class Block(NamedTuple):
    """Columns that share their times. Columns may be made as they are asked for: there is one at a time then."""

    times: Sequence[int]
    width: int
    columns: Iterable[Column]


def head(point: str, unit: str) -> bytes:
    """How a series begins."""
    out = bytearray()
    put_string(out, point)
    put_string(out, unit)
    return bytes(out)


def runs(codes: Sequence[int]) -> bytes:
    """The qualities of a series."""
    found = [(code, len(list(run))) for code, run in groupby(codes)]
    out = bytearray()
    put_varint(out, len(found))
    for code, length in found:
        put_varint(out, code << 1 | quality.is_bad(code))
        put_varint(out, length)
    return bytes(out)


class Encoder:
    """Writes bodies. It remembers how many digits a point's values had, and tries those first next time."""

    def __init__(self) -> None:
        self._exponents: dict[bytes, int] = {}

    def body(self, site: str, blocks: Sequence[Block]) -> bytes:
        """The body, not compressed."""
        vectors: dict[tuple[int, ...], int] = {}
        indices = [vectors.setdefault(tuple(block.times), len(vectors)) for block in blocks]
        base = min((times[0] for times in vectors), default=0)
        out = bytearray()
        put_string(out, site)
        put_zigzag(out, base)
        put_varint(out, len(vectors))
        for times in vectors:
            _put_times(out, times, base)
        put_varint(out, sum(block.width for block in blocks))
        exponents = self._exponents
        for index, block in zip(indices, blocks, strict=True):
            vector = bytearray()
            put_varint(vector, index)
            for column in block.columns:
                out += column.head
                out += vector
                out += column.runs
                found = _put_values(out, column.values, exponents.get(column.head))
                if found is not None:
                    exponents[column.head] = found
        return bytes(out)


def _put_times(out: bytearray, times: Sequence[int], base: int) -> None:
    put_varint(out, len(times))
    put_zigzag(out, times[0] - base)
    before = 0
    for earlier, later in pairwise(times):
        put_zigzag(out, later - earlier - before)
        before = later - earlier


def _put_values(out: bytearray, values: list[float], known: int | None) -> int | None:
    """Write the encoding and the values; returns the exponent that fitted, if one did."""
    if not any(values):
        # A negative zero has no mantissa of its own; it reads back as zero.
        out += bytes(2 + len(values))
        return known
    found = None if known is None else _with_exponent(values, known)
    if found is None:
        found, known = _decimal(values)
    if found is None:
        out += _floats(values)
        return None
    start = len(out)
    out.append(DECIMAL)
    put_zigzag(out, known or 0)
    put_zigzag(out, found[0])
    put_zigzags(out, list(map(sub, found[1:], found)))
    if len(out) - start > 1 + 4 * len(values):
        floats = _floats(values)
        if len(floats) < len(out) - start:
            out[start:] = floats
    return known


def _with_exponent(values: list[float], exponent: int) -> list[int] | None:
    """The mantissas for a given exponent when they give `values` back, and no smaller ones would."""
    try:
        if exponent > 0:
            power = POWERS[exponent]
            mantissas = [round(value / power) for value in values]
            exact = [mantissa * power for mantissa in mantissas] == values
        else:
            power = POWERS[-exponent]
            mantissas = [round(value * power) for value in values]
            exact = [mantissa / power for mantissa in mantissas] == values
    except OverflowError:
        return None
    if (
        not exact
        or max(mantissas) > MAX_MANTISSA
        or min(mantissas) < -MAX_MANTISSA
        or not gcd(*mantissas) % 10
    ):
        return None
    return mantissas


def _decimal(values: list[float]) -> tuple[list[int] | None, int]:
    """Integers and the exponent of ten that give `values` back exactly, or None."""
    for digits, power in enumerate(POWERS):
        try:
            mantissas = [round(value * power) for value in values]
        except OverflowError:
            return None, 0
        if any(abs(mantissa) > MAX_MANTISSA for mantissa in mantissas):
            return None, 0
        if all(m / power == value for m, value in zip(mantissas, values, strict=True)):
            if digits:
                return mantissas, -digits
            return _shorten(mantissas)
    return None, 0


def _shorten(mantissas: list[int]) -> tuple[list[int], int]:
    """Take the tens that all mantissas share into the exponent."""
    exponent = 0
    while exponent < MAX_EXPONENT and not any(mantissa % 10 for mantissa in mantissas):
        mantissas = [mantissa // 10 for mantissa in mantissas]
        exponent += 1
    return mantissas, exponent


def _floats(values: list[float]) -> bytes:
    single = _fits_float32(values)
    out = bytearray([FLOAT32 if single else FLOAT64])
    put_planes(out, values, "f" if single else "d")
    return bytes(out)


def _fits_float32(values: list[float]) -> bool:
    try:
        packed = struct.pack(f">{len(values)}f", *values)
    except OverflowError:
        return False
    return list(struct.unpack(f">{len(values)}f", packed)) == values
