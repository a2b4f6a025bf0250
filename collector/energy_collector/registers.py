# SPDX-License-Identifier: Apache-2.0
"""Register types: how 16-bit registers become a number, and which patterns stand for no number."""

from __future__ import annotations

import struct
from collections.abc import Sequence

# Type: struct code, and the number of registers.
TYPES = {
    "int16": ("h", 1),
    "uint16": ("H", 1),
    "int32": ("i", 2),
    "uint32": ("I", 2),
    "int64": ("q", 4),
    "uint64": ("Q", 4),
    "float32": ("f", 2),
    "float64": ("d", 4),
}
UNSIGNED = ("uint16", "uint32", "uint64")

# SunSpec Device Information Model Specification 1.x, section on data types: the value of a point that is not
# implemented. An accumulator (acc32) that is not implemented is zero, hence a type of its own.
SUNSPEC_MISSING: dict[str, int] = {
    "int16": -0x8000,
    "uint16": 0xFFFF,
    "int32": -0x80000000,
    "uint32": 0xFFFFFFFF,
}


def size(kind: str) -> int:
    """Registers that a value of this type takes."""
    return TYPES[kind][1]


def decode(
    registers: Sequence[int], kind: str, *, low_word_first: bool = False, low_byte_first: bool = False
) -> int | float:
    """The number in `registers`, which are as many as the type needs.

    A float may be NaN or infinite: the caller decides what that means.
    """
    code, count = TYPES[kind]
    if len(registers) != count:
        raise ValueError(f"{kind} takes {count} registers, not {len(registers)}")
    words = reversed(registers) if low_word_first else registers
    value: int | float = struct.unpack(
        f">{code}", struct.pack(f"{'<' if low_byte_first else '>'}{count}H", *words)
    )[0]
    return value
