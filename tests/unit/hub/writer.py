# SPDX-License-Identifier: Apache-2.0
"""A small writer of batches for the tests, made from docs/reference/wire-format.md alone."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Reading = tuple[int, float | None, int]
"""(time in ms, value, quality code)"""


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int) -> bytes:
    return varint((number << 1) ^ (number >> 63))


def string(text: str) -> bytes:
    data = text.encode()
    return varint(len(data)) + data


def vector(base: int, times: Sequence[int]) -> bytes:
    out = varint(len(times)) + zigzag(times[0] - base)
    step = None
    for before, time in pairwise(times):
        out += zigzag(time - before if step is None else time - before - step)
        step = time - before
    return out


def float64(values: Sequence[float]) -> bytes:
    packed = [struct.pack(">d", value) for value in values]
    return b"\x02" + bytes(one[plane] for plane in range(8) for one in packed)


def decimal(mantissas: Sequence[int], exponent: int) -> bytes:
    out = b"\x00" + zigzag(exponent)
    before = 0
    for mantissa in mantissas:
        out += zigzag(mantissa - before)
        before = mantissa
    return out


def series(
    point: str, unit: str, index: int, readings: Sequence[Reading], values: bytes | None = None
) -> bytes:
    runs: list[list[int]] = []
    for _, value, quality in readings:
        key = quality << 1 | (value is None)
        if runs and runs[-1][0] == key:
            runs[-1][1] += 1
        else:
            runs.append([key, 1])
    out = string(point) + string(unit) + varint(index) + varint(len(runs))
    for key, length in runs:
        out += varint(key) + varint(length)
    present = [value for _, value, _ in readings if value is not None]
    if values is None:
        values = float64(present) if present else decimal([], 0)
    return out + values


def body(site: str, points: Mapping[str, Sequence[Reading]], unit: str = "W") -> bytes:
    base = min(readings[0][0] for readings in points.values())
    vectors: list[tuple[int, ...]] = []
    parts = []
    for point, readings in points.items():
        times = tuple(time for time, _, _ in readings)
        if times not in vectors:
            vectors.append(times)
        parts.append(series(point, unit, vectors.index(times), readings))
    return b"".join(
        [
            string(site),
            zigzag(base),
            varint(len(vectors)),
            *(vector(base, times) for times in vectors),
            varint(len(parts)),
            *parts,
        ]
    )


def seal(
    key: Ed25519PrivateKey,
    content: bytes,
    stream: bytes,
    sequence: int,
    previous: bytes = bytes(32),
    *,
    compress: bool = True,
) -> bytes:
    stored = zlib.compress(content) if compress else content
    head = (
        struct.pack(">4sB8sQ32sI", b"WFB1", int(compress), stream, sequence, previous, len(stored)) + stored
    )
    return head + key.sign(b"energy/v1/batch\0" + head)


@dataclass
class Gateway:
    """Writes one stream, as a gateway would."""

    site: str
    key: Ed25519PrivateKey
    stream: bytes = b"\x01" * 8
    sequence: int = 0
    previous: bytes = bytes(32)

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    def batch(self, points: Mapping[str, Sequence[Reading]], unit: str = "W") -> bytes:
        return self.seal(body(self.site, points, unit))

    def seal(self, content: bytes) -> bytes:
        self.sequence += 1
        payload = seal(self.key, content, self.stream, self.sequence, self.previous)
        self.previous = hashlib.sha256(payload).digest()
        return payload
