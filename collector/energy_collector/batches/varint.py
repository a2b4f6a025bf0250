# SPDX-License-Identifier: Apache-2.0
"""Variable-length integers of the batch format: unsigned LEB128 and zigzag, both of at most 64 bits."""

from __future__ import annotations

import struct
from collections.abc import Sequence


class FormatError(ValueError):
    """Bytes that are not a batch of the documented format."""


MAX_UNSIGNED = (1 << 64) - 1
MIN_SIGNED = -(1 << 63)
MAX_SIGNED = (1 << 63) - 1
MAX_BYTES = 10


def put_varint(out: bytearray, number: int) -> None:
    """Append `number` (0 to 2^64 - 1) as LEB128."""
    if not 0 <= number <= MAX_UNSIGNED:
        raise ValueError(f"{number} does not fit an unsigned 64-bit integer")
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def put_zigzag(out: bytearray, number: int) -> None:
    """Append `number` (-2^63 to 2^63 - 1) so that small magnitudes of either sign stay short."""
    if not MIN_SIGNED <= number <= MAX_SIGNED:
        raise ValueError(f"{number} does not fit a signed 64-bit integer")
    put_varint(out, (number << 1) ^ (number >> 63))


def put_zigzags(out: bytearray, numbers: list[int]) -> None:
    """Append several, each as `put_zigzag` does. Differences between readings are small: those of one byte are
    appended together, those of two without a call."""
    folded = [number + number if number >= 0 else -1 - number - number for number in numbers]
    if not folded:
        return
    if max(folded) < 0x80:
        out += bytes(folded)
        return
    for number in folded:
        if number < 0x80:
            out.append(number)
        elif number < 0x4000:
            out.append(number & 0x7F | 0x80)
            out.append(number >> 7)
        else:
            put_varint(out, number)


def put_string(out: bytearray, text: str) -> None:
    """Append the length in bytes and the UTF-8 of `text`."""
    data = text.encode()
    put_varint(out, len(data))
    out += data


class Reader:
    """Takes the fields off a body one by one; every fault is a FormatError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that nobody has taken yet."""
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > self.left:
            raise FormatError(f"truncated: {count} bytes wanted at offset {self._at}, {self.left} left")
        start = self._at
        self._at += count
        return self._data[start : self._at]

    def varint(self) -> int:
        """An unsigned integer."""
        number = 0
        for index in range(MAX_BYTES):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if number > MAX_UNSIGNED:
                    break
                return number
        raise FormatError(f"varint before offset {self._at} is longer than 64 bits")

    def zigzag(self) -> int:
        """A signed integer."""
        number = self.varint()
        return (number >> 1) ^ -(number & 1)

    def string(self) -> str:
        """A length and its UTF-8."""
        data = self.take(self.varint())
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"string before offset {self._at} is not UTF-8") from error

    def planes(self, count: int, code: str) -> list[float]:
        """`count` floats of struct code f or d, stored as byte planes."""
        size = struct.calcsize(code)
        data = self.take(count * size)
        rows = bytearray(len(data))
        for plane in range(size):
            rows[plane::size] = data[plane * count : (plane + 1) * count]
        return list(struct.unpack(f">{count}{code}", rows))


def put_planes(out: bytearray, values: Sequence[float], code: str) -> None:
    """Append floats of struct code f or d as byte planes: all first bytes, then all second ones, and so
    on."""
    data = struct.pack(f">{len(values)}{code}", *values)
    size = struct.calcsize(code)
    for plane in range(size):
        out += data[plane::size]
