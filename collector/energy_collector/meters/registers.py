# SPDX-License-Identifier: Apache-2.0
"""Register types: how 16-bit registers become numbers, many at once."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

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

# Function code and byte count come before the registers of an answer.
HEADER = 2


class Order(NamedTuple):
    """Which comes first: the high or the low word of a number, and the high or the low byte of a register."""

    low_word_first: bool = False
    low_byte_first: bool = False


HIGH_FIRST = Order()


class Field(NamedTuple):
    """Where a number lies, and how."""

    address: int
    type: str
    order: Order = HIGH_FIRST

    @property
    def end(self) -> int:
        """The address after its last register."""
        return self.address + size(self.type)


def size(kind: str) -> int:
    """Registers that a value of this type takes."""
    return TYPES[kind][1]


class Unpacker:
    """Takes the numbers of `fields` out of an answer whose first register is `address`.

    All is worked out once: a poll costs one call of `struct` for the whole answer. Only where fields overlap (a
    register read both as a number and as half of a longer one) there is a call more.
    """

    def __init__(self, fields: Sequence[Field], address: int) -> None:
        layers: list[list[Field]] = []
        for field in sorted(set(fields)):
            layer = next((one for one in layers if one[-1].end <= field.address), None)
            if layer is None:
                layers.append([field])
            else:
                layer.append(field)
        self._layers = [_Layer(layer, address) for layer in layers]
        found = [field for layer in layers for field in layer]
        places = [found.index(field) for field in fields]
        # None where the numbers already come in the order asked for.
        self._order = None if found == list(fields) else itemgetter(*places)

    def __call__(self, answer: bytes) -> tuple[int | float, ...]:
        """The numbers in an answer (function code, byte count, registers), in the order of the fields.

        A float may be NaN or infinite: the caller decides what that means.
        """
        if len(self._layers) == 1:
            numbers = self._layers[0](answer)
        else:
            numbers = tuple(number for layer in self._layers for number in layer(answer))
        if self._order is not None:
            numbers = self._order(numbers)
        return numbers


class _Layer:
    """Fields that follow one another without overlapping."""

    def __init__(self, fields: Sequence[Field], address: int) -> None:
        code = ">"
        sources: list[int] = []
        at = address
        for field in fields:
            letter, count = TYPES[field.type]
            code += f"{2 * (field.address - at)}x{letter}"
            # The bytes of a gap stay where they are.
            sources += range(HEADER + 2 * (at - address), HEADER + 2 * (field.address - address))
            start = HEADER + 2 * (field.address - address)
            for place in range(2 * count):
                word, byte = divmod(place, 2)
                word = count - 1 - word if field.order.low_word_first else word
                byte = 1 - byte if field.order.low_byte_first else byte
                sources.append(start + 2 * word + byte)
            at = field.end
        self._struct = struct.Struct(code)
        # bytes.translate looks every byte up in a table of 256. With the answer as the table (252 bytes at most) and
        # the wanted places as the bytes it puts the whole answer into our order in one call.
        in_order = sources == list(range(HEADER, HEADER + len(sources)))
        self._places = None if in_order else bytes(sources)

    def __call__(self, answer: bytes) -> tuple[int | float, ...]:
        if self._places is None:
            return self._struct.unpack_from(answer, HEADER)
        return self._struct.unpack(self._places.translate(answer.ljust(256, b"\0")))
