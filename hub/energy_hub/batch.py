# SPDX-License-Identifier: Apache-2.0
"""Reader of batches, the format of docs/reference/wire-format.md.

Reading has two steps, because a signature is checked between them: `read_envelope` looks at the fixed
fields only, `read_body` inflates and decodes what a trusted key has signed.
"""

from __future__ import annotations

import hashlib
import math
import struct
import sys
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from typing import NamedTuple

MAGIC = b"WFB1"
HEADER = struct.Struct(">4sBQQ32sI")
SIGNATURE_BYTES = 64
SIGNED_PREFIX = b"energy/v1/batch\0"
MAX_BODY = 16 * 1024 * 1024
# The one after it still fits into 63 bits, which ranges in a database need.
MAX_SEQUENCE = 2**63 - 2
MAX_QUALITY = 255
FIRST_BAD = 128
# 0001-01-01T00:00:00.000Z to 9999-12-31T23:59:59.999Z: what ISO 8601 and Python's datetime can write down.
MIN_TIME, MAX_TIME = -62_135_596_800_000, 253_402_300_799_999
# A double holds every integer up to here.
MAX_MANTISSA = 2**53
MAX_NAME = 200
MAX_UNIT = 32
NO_PREVIOUS = bytes(32)
# Of readings, and of times in all vectors. Runs of null cost a few bytes whatever their length, and evenly spaced times
# next to nothing when deflated, so the size of a body alone does not bound them. No collector seals more than 100,000
# (its batch.max_readings); the double is what a later one may be allowed.
MAX_READINGS = 200_000


class BatchError(ValueError):
    """A payload is not a batch of version 1; the message says what was found."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The fixed fields of a batch; `digest` is the SHA-256 of all its bytes."""

    stream: bytes
    sequence: int
    previous: bytes
    compressed: bool
    body: bytes
    signature: bytes
    signed: bytes
    digest: bytes


class Series(NamedTuple):
    """One point's readings: `times` in ms since 1970 (UTC), `runs` of (quality code, is null, length) along
    the times, and the values that are not null in the order of their times."""

    point: str
    unit: str
    times: array[int]
    runs: tuple[tuple[int, bool, int], ...]
    values: array[float]


@dataclass(frozen=True, slots=True)
class Body:
    site: str
    series: tuple[Series, ...]
    # Bytes when inflated.
    size: int = field(default=0, compare=False)

    @property
    def readings(self) -> int:
        return sum(len(one.times) for one in self.series)


def read_envelope(payload: bytes) -> Envelope:
    """Take a payload apart without looking into its body. Raises BatchError."""
    if len(payload) < HEADER.size:
        raise BatchError(f"{len(payload)} bytes, a batch has at least {HEADER.size + SIGNATURE_BYTES}")
    magic, compression, stream, sequence, previous, length = HEADER.unpack_from(payload)
    if magic != MAGIC:
        raise BatchError(f"starts with {magic.hex()}, expected {MAGIC.hex()} (WFB1)")
    if compression not in (0, 1):
        raise BatchError(f"compression {compression}, expected 0 (none) or 1 (zlib)")
    expected = HEADER.size + length + SIGNATURE_BYTES
    if len(payload) != expected:
        raise BatchError(f"{len(payload)} bytes, its length field asks for {expected}")
    if not 1 <= sequence <= MAX_SEQUENCE:
        raise BatchError(f"sequence {sequence}, expected 1 to 2^63-2")
    end = HEADER.size + length
    return Envelope(
        stream=stream.to_bytes(8, "big"),
        sequence=sequence,
        previous=previous,
        compressed=compression == 1,
        body=payload[HEADER.size : end],
        signature=payload[end:],
        signed=SIGNED_PREFIX + payload[:end],
        digest=hashlib.sha256(payload).digest(),
    )


def read_body(envelope: Envelope) -> Body:
    """Inflate and decode the body. Raises BatchError."""
    data = inflate(envelope.body) if envelope.compressed else envelope.body
    if len(data) > MAX_BODY:
        raise BatchError(f"body of {len(data)} bytes, at most {MAX_BODY} are allowed")
    try:
        return _Reader(data).body()
    except IndexError:
        raise BatchError("body is truncated") from None


def inflate(data: bytes) -> bytes:
    """zlib (RFC 1950), never holding more than MAX_BODY + 1 bytes of output. Raises BatchError."""
    inflater = zlib.decompressobj()
    try:
        out = inflater.decompress(data, MAX_BODY + 1)
    except zlib.error as error:
        raise BatchError(f"body does not inflate: {error}") from None
    if len(out) > MAX_BODY:
        raise BatchError(f"body inflates to more than {MAX_BODY} bytes")
    if not inflater.eof:
        raise BatchError("compressed body is truncated")
    if inflater.unused_data:
        raise BatchError(f"{len(inflater.unused_data)} bytes after the end of the compressed body")
    return out


# The runs of a series whose readings, so many, are all good, as they are written and as they are read: nearly all are.
_ALL_GOOD = [bytes((1, 0, length)) for length in range(128)]
_GOOD_RUNS = [((0, False, length),) for length in range(128)]


class _Reader:
    """A cursor over an inflated body; reading past the end raises IndexError."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def body(self) -> Body:
        site = self.string("site", MAX_NAME)
        base = self.zigzag()
        # Every vector and series takes at least two bytes: a count that cannot fit is refused before any
        # loop runs.
        vectors: list[array[int]] = []
        room = MAX_READINGS
        for _ in range(self.count("time vectors")):
            vectors.append(self.vector(base, room))
            room -= len(vectors[-1])
        series = []
        points: set[str] = set()
        room = MAX_READINGS
        for _ in range(self.count("series")):
            one = self.series(vectors, room)
            if one.point in points:
                raise BatchError(f"point {one.point} occurs twice")
            points.add(one.point)
            series.append(one)
            room -= len(one.times)
        if self.at != len(self.data):
            raise BatchError(f"{len(self.data) - self.at} bytes left over after the last series")
        return Body(site, tuple(series), len(self.data))

    def vector(self, base: int, most: int) -> array[int]:
        count = self.count("times")
        if count == 0:
            raise BatchError("a time vector is empty")
        if count > most:
            raise BatchError(f"more than {MAX_READINGS} times")
        numbers = self.zigzags(count)
        numbers[0] += base
        if count > 2:
            numbers[1:] = accumulate(numbers[1:])
        times = list(accumulate(numbers))
        if count > 1 and min(map(int.__sub__, times[1:], times)) <= 0:
            raise BatchError("times of a vector do not ascend")
        if times[0] < MIN_TIME or times[-1] > MAX_TIME:
            raise BatchError(
                f"time {times[0] if times[0] < MIN_TIME else times[-1]} ms is not in the years 1 to 9999"
            )
        return array("q", times)

    def series(self, vectors: Sequence[array[int]], most: int) -> Series:
        point = self.string("point", MAX_NAME)
        unit = self.string("unit", MAX_UNIT)
        index = self.varint()
        if index >= len(vectors):
            raise BatchError(f"{point}: time vector {index}, there are {len(vectors)}")
        times = vectors[index]
        if len(times) > most:
            raise BatchError(f"more than {MAX_READINGS} readings")
        runs, present = self.runs(point, len(times))
        values = self.values(point, present)
        return Series(point, unit, times, runs, values)

    def runs(self, point: str, total: int) -> tuple[tuple[tuple[int, bool, int], ...], int]:
        if total < 128 and self.data.startswith(_ALL_GOOD[total], self.at):
            self.at += 3
            return _GOOD_RUNS[total], total
        count = self.count("quality runs")
        if count > total:
            raise BatchError(f"{point}: {count} quality runs of {total} readings")
        numbers = self.varints(2 * count)
        runs = []
        covered = present = 0
        for code_and_null, length in zip(numbers[::2], numbers[1::2], strict=True):
            code, null = code_and_null >> 1, bool(code_and_null & 1)
            if code > MAX_QUALITY:
                raise BatchError(f"{point}: quality {code}, at most {MAX_QUALITY} is allowed")
            if null != (code >= FIRST_BAD):
                raise BatchError(f"{point}: quality {code} {'without' if null else 'with'} a value")
            if length == 0:
                raise BatchError(f"{point}: a quality run of length 0")
            covered += length
            if not null:
                present += length
            runs.append((code, null, length))
        if covered != total:
            raise BatchError(f"{point}: quality runs cover {covered} readings of {total}")
        return tuple(runs), present

    def values(self, point: str, count: int) -> array[float]:
        encoding = self.data[self.at]
        self.at += 1
        if encoding == 0:
            return self.decimals(point, count)
        if encoding == 1:
            return self.floats(point, count, "f")
        if encoding == 2:
            return self.floats(point, count, "d")
        raise BatchError(f"{point}: encoding {encoding}, expected 0, 1 or 2")

    def decimals(self, point: str, count: int) -> array[float]:
        exponent = self.zigzag()
        if not -12 <= exponent <= 12:
            raise BatchError(f"{point}: exponent {exponent}, expected -12 to 12")
        mantissas = [self.zigzag()] if count == 1 else list(accumulate(self.zigzags(count)))
        if mantissas and not -MAX_MANTISSA <= min(mantissas) <= max(mantissas) <= MAX_MANTISSA:
            raise BatchError(f"{point}: a mantissa is beyond 2^53")
        # 10^12 and less are exact doubles, so both ways round once and every IEEE 754 reader agrees.
        scale = 10.0 ** abs(exponent)
        if exponent < 0:
            return array("d", [mantissa / scale for mantissa in mantissas])
        return array("d", [mantissa * scale for mantissa in mantissas])

    def floats(self, point: str, count: int, kind: str) -> array[float]:
        numbers: array[float] = array(kind)
        width = numbers.itemsize
        planes = self.take(count * width)
        interleaved = bytearray(len(planes))
        for plane in range(width):
            interleaved[plane::width] = planes[plane * count : (plane + 1) * count]
        numbers.frombytes(bytes(interleaved))
        if sys.byteorder == "little":
            numbers.byteswap()
        if not all(map(math.isfinite, numbers)):
            raise BatchError(f"{point}: a value is not a finite number")
        return numbers if kind == "d" else array("d", numbers)

    def string(self, what: str, limit: int) -> str:
        length = self.varint()
        if length > 4 * limit:
            raise BatchError(f"{what} of {length} bytes, at most {4 * limit} are allowed")
        try:
            text = self.take(length).decode()
        except UnicodeDecodeError:
            raise BatchError(f"{what} is not UTF-8") from None
        if not text.isprintable() or not 0 < len(text) <= limit:
            raise BatchError(f"{what} {text[:40]!r}: expected 1 to {limit} printable characters")
        return text

    def count(self, what: str) -> int:
        number = self.varint()
        if number > len(self.data) - self.at:
            raise BatchError(
                f"{number} {what} do not fit into the {len(self.data) - self.at} bytes that follow"
            )
        return number

    def take(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self.data):
            raise IndexError
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def zigzag(self) -> int:
        number = self.varint()
        return (number >> 1) ^ -(number & 1)

    def zigzags(self, count: int) -> list[int]:
        return [(number >> 1) ^ -(number & 1) for number in self.varints(count)]

    def varint(self) -> int:
        byte = self.data[self.at]
        if byte < 128:
            self.at += 1
            return byte
        return self.varints(1)[0]

    def varints(self, count: int) -> list[int]:
        """`count` numbers of unsigned LEB128. Most are one or two bytes, which is what this is laid out for."""
        data, at = self.data, self.at
        piece = data[at : at + count]
        if len(piece) == count and piece.isascii():
            self.at = at + count
            return list(piece)
        numbers: list[int] = []
        append = numbers.append
        for _ in repeat(None, count):
            byte = data[at]
            if byte < 128:
                at += 1
                append(byte)
                continue
            second = data[at + 1]
            if second < 128:
                at += 2
                append(second << 7 | byte & 127)
                continue
            number, at = self._long(at)
            append(number)
        self.at = at
        return numbers

    def _long(self, at: int) -> tuple[int, int]:
        """The number at a place, and the place after it."""
        number = shift = 0
        while shift <= 63:
            byte = self.data[at]
            at += 1
            number |= (byte & 127) << shift
            if byte < 128:
                if number >> 64:
                    raise BatchError("a varint does not fit into 64 bits")
                return number, at
            shift += 7
        raise BatchError("a varint has more than 10 bytes")
