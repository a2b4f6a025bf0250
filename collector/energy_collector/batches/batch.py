# SPDX-License-Identifier: Apache-2.0
"""Batches as docs/reference/wire-format.md describes them: made by `seal`, read by `parse` and
`decode_body`."""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from energy_collector import quality
from energy_collector.batches.encoding import (
    DECIMAL,
    FLOAT32,
    FLOAT64,
    MAX_EXPONENT,
    MAX_MANTISSA,
    POWERS,
    Block,
    Column,
    Encoder,
    head,
    runs,
)
from energy_collector.batches.varint import FormatError, Reader
from energy_collector.reading import Reading

if TYPE_CHECKING:
    # The polling service opens the buffer too, and is spared the 15 MB of it.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAGIC = b"WFB1"
SIGNED_PREFIX = b"energy/v1/batch\0"
HEADER = struct.Struct(">4sB8sQ32sI")
SIGNATURE_SIZE = 64
DIGEST_SIZE = 32
STREAM_SIZE = 8
FIRST_PREVIOUS = bytes(DIGEST_SIZE)
MAX_BODY = 16 << 20
# Of readings, and of times in all vectors. Series share time vectors, so that a small body could claim any number of
# them. Twice what is ever sealed.
MAX_READINGS = 200_000

RAW, ZLIB = 0, 1
# Of zlib: 6 and 9 take longer and make nothing smaller (docs/decisions/0020-buffer-in-chunks.md).
LEVEL = 5


class Series(NamedTuple):
    """All readings of one point in a batch; the three lists have one length."""

    point: str
    unit: str
    times: list[int]
    values: list[float | None]
    qualities: list[int]


class Body(NamedTuple):
    """What a batch says, unpacked."""

    site: str
    series: list[Series]

    def readings(self) -> list[Reading]:
        """All readings, series by series."""
        return [
            Reading(series.point, series.unit, *row)
            for series in self.series
            for row in zip(series.times, series.values, series.qualities, strict=True)
        ]


class Batch(NamedTuple):
    """The envelope of a batch. `signed` is what the signature covers, `body` is inflated."""

    stream: bytes
    sequence: int
    previous: bytes
    body: bytes
    signed: bytes
    signature: bytes

    def verify(self, key: Ed25519PublicKey) -> None:
        """Raise cryptography's InvalidSignature unless `key` signed this batch."""
        key.verify(self.signature, SIGNED_PREFIX + self.signed)


def digest(data: bytes) -> bytes:
    """What the next batch of the stream carries as `previous`."""
    return hashlib.sha256(data).digest()


def collect(readings: Iterable[Reading]) -> list[Series]:
    """Group readings by point, in order of first appearance.

    Raises ValueError for a time that does not ascend, a unit that changes, and a value that contradicts its
    quality.
    """
    found: dict[str, Series] = {}
    for point, unit, time, value, code in readings:
        series = found.get(point)
        if series is None:
            series = found[point] = Series(point, unit, [], [], [])
        elif series.unit != unit:
            raise ValueError(f"{point}: unit changes from {series.unit} to {unit} within a batch")
        elif time <= series.times[-1]:
            raise ValueError(f"{point}: time {time} does not ascend after {series.times[-1]}")
        if (value is None) != quality.is_bad(code):
            raise ValueError(f"{point}: value {value} contradicts quality {quality.name(code)}")
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{point}: {value} is not a finite number")
        series.times.append(time)
        series.values.append(value)
        series.qualities.append(code)
    return list(found.values())


def encode_body(site: str, series: Sequence[Series]) -> bytes:
    """The body, not compressed."""
    blocks = [
        Block(
            one.times,
            1,
            [
                Column(
                    head(one.point, one.unit),
                    runs(one.qualities),
                    [value for value in one.values if value is not None],
                )
            ],
        )
        for one in series
    ]
    return Encoder().body(site, blocks)


def seal(
    site: str,
    readings: Iterable[Reading],
    stream: bytes,
    sequence: int,
    previous: bytes,
    key: Ed25519PrivateKey,
    *,
    compress: bool = True,
) -> bytes:
    """The bytes of a batch, signed. Raises ValueError as `collect` does."""
    return sign(encode_body(site, collect(readings)), stream, sequence, previous, key, compress=compress)


def sign(
    body: bytes,
    stream: bytes,
    sequence: int,
    previous: bytes,
    key: Ed25519PrivateKey,
    *,
    compress: bool = True,
) -> bytes:
    """The bytes of a batch with this body, signed. Raises ValueError for a body that is too long."""
    if len(body) > MAX_BODY:
        raise ValueError(f"a body of {len(body)} bytes is over the limit of {MAX_BODY}")
    stored = zlib.compress(body, LEVEL) if compress else body
    compression = ZLIB if compress else RAW
    signed = HEADER.pack(MAGIC, compression, stream, sequence, previous, len(stored)) + stored
    return signed + key.sign(SIGNED_PREFIX + signed)


def parse(data: bytes) -> Batch:
    """Unpack the envelope; raises FormatError. The signature is not checked here: `Batch.verify` does."""
    if len(data) < HEADER.size + SIGNATURE_SIZE:
        raise FormatError(f"truncated: {len(data)} bytes are less than an empty batch")
    magic, compression, stream, sequence, previous, length = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise FormatError(f"magic is {magic!r}, not {MAGIC!r}")
    if len(data) != HEADER.size + length + SIGNATURE_SIZE:
        raise FormatError(f"{len(data)} bytes do not fit a body of {length}")
    if sequence < 1:
        raise FormatError("sequence 0")
    signed = data[: HEADER.size + length]
    body = _inflate(signed[HEADER.size :], compression)
    return Batch(stream, sequence, previous, body, signed, data[-SIGNATURE_SIZE:])


def _inflate(stored: bytes, compression: int) -> bytes:
    if compression == RAW:
        if len(stored) > MAX_BODY:
            raise FormatError(f"body is over {MAX_BODY} bytes")
        return stored
    if compression != ZLIB:
        raise FormatError(f"unknown compression {compression}")
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(stored, MAX_BODY + 1)
    except zlib.error as error:
        raise FormatError(f"body does not inflate: {error}") from error
    if len(body) > MAX_BODY:
        raise FormatError(f"body is over {MAX_BODY} bytes when inflated")
    if not inflater.eof or inflater.unused_data:
        raise FormatError("body is truncated or followed by other bytes")
    return body


def decode_body(data: bytes) -> Body:
    """Unpack an inflated body; raises FormatError."""
    reader = Reader(data)
    site = reader.string()
    base = reader.zigzag()
    vectors: list[list[int]] = []
    room = MAX_READINGS
    for _ in range(_count(reader)):
        vectors.append(_times(reader, base, room))
        room -= len(vectors[-1])
    points: set[str] = set()
    series: list[Series] = []
    readings = 0
    for _ in range(_count(reader)):
        one = _series(reader, vectors)
        readings += len(one.times)
        if readings > MAX_READINGS:
            raise FormatError(f"more than {MAX_READINGS} readings")
        if one.point in points:
            raise FormatError(f"{one.point} occurs twice")
        points.add(one.point)
        series.append(one)
    if reader.left:
        raise FormatError(f"{reader.left} bytes follow the last series")
    return Body(site, series)


def _count(reader: Reader) -> int:
    """A number of things that take at least a byte each, so that a lie cannot make us allocate."""
    count = reader.varint()
    if count > reader.left:
        raise FormatError(f"{count} items announced, {reader.left} bytes left")
    return count


def _times(reader: Reader, base: int, most: int) -> list[int]:
    count = _count(reader)
    if not count:
        raise FormatError("empty time vector")
    if count > most:
        raise FormatError(f"more than {MAX_READINGS} times")
    times = [base + reader.zigzag()]
    step = 0
    for _ in range(count - 1):
        step += reader.zigzag()
        if step <= 0:
            raise FormatError(f"times do not ascend after {times[-1]}")
        times.append(times[-1] + step)
    return times


def _series(reader: Reader, vectors: list[list[int]]) -> Series:
    point, unit, vector = reader.string(), reader.string(), reader.varint()
    if vector >= len(vectors):
        raise FormatError(f"{point}: time vector {vector} of {len(vectors)}")
    times = vectors[vector]
    qualities: list[int] = []
    for _ in range(_count(reader)):
        flags, length = reader.varint(), reader.varint()
        code = flags >> 1
        if code > 0xFF or bool(flags & 1) != quality.is_bad(code):
            raise FormatError(f"{point}: quality {code} with null {flags & 1}")
        if not 0 < length <= len(times) - len(qualities):
            raise FormatError(f"{point}: quality runs do not add up to {len(times)} readings")
        qualities += [code] * length
    if len(qualities) != len(times):
        raise FormatError(f"{point}: quality runs do not add up to {len(times)} readings")
    present = sum(not quality.is_bad(code) for code in qualities)
    found = iter(_values(reader, present, point))
    values = [None if quality.is_bad(code) else next(found) for code in qualities]
    return Series(point, unit, times, values, qualities)


def _values(reader: Reader, count: int, point: str) -> list[float]:
    encoding = reader.take(1)[0]
    if encoding == DECIMAL:
        return _decimals(reader, count, point)
    if encoding not in (FLOAT32, FLOAT64):
        raise FormatError(f"{point}: unknown encoding {encoding}")
    values = reader.planes(count, "f" if encoding == FLOAT32 else "d")
    if not all(map(math.isfinite, values)):
        raise FormatError(f"{point}: a value is not a finite number")
    return values


def _decimals(reader: Reader, count: int, point: str) -> list[float]:
    exponent = reader.zigzag()
    if abs(exponent) > MAX_EXPONENT:
        raise FormatError(f"{point}: exponent {exponent}")
    values = []
    mantissa = 0
    for _ in range(count):
        mantissa += reader.zigzag()
        if abs(mantissa) > MAX_MANTISSA:
            raise FormatError(f"{point}: mantissa {mantissa} is over 2^53")
        power = POWERS[abs(exponent)]
        values.append(mantissa / power if exponent < 0 else mantissa * power)
    return values
