# SPDX-License-Identifier: Apache-2.0
"""The wire format: round trips, the published vectors, and malformed bytes."""

from __future__ import annotations

import json
import math
import zlib

import pytest
from cryptography.exceptions import InvalidSignature
from energy_collector import quality
from energy_collector.batches import batch
from energy_collector.batches.varint import FormatError, Reader, put_varint, put_zigzag
from energy_collector.reading import Reading
from hypothesis import given, settings
from hypothesis import strategies as st

from . import wire_vectors as vectors

VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.decimals(min_value=-(10**9), max_value=10**9, places=2).map(float),
    st.integers(-(10**12), 10**12).map(float),
)


@st.composite
def readings(draw: st.DrawFn) -> list[Reading]:
    out = []
    for index in range(draw(st.integers(1, 4))):
        times = draw(
            st.lists(st.integers(-(1 << 50), 1 << 50), min_size=1, max_size=8, unique=True).map(sorted)
        )
        for time in times:
            code = draw(st.integers(0, 255))
            value = None if quality.is_bad(code) else draw(VALUES)
            out.append(Reading(f"meter/point_{index}", draw(st.just(f"u{index}")), time, value, code))
    return out


@settings(deadline=None)
@given(readings(), st.booleans())
def test_what_goes_in_comes_out(given_readings: list[Reading], compress: bool) -> None:
    data = batch.seal("plant-a", given_readings, b"8bytes!!", 7, bytes(32), vectors.KEY, compress=compress)
    envelope = batch.parse(data)
    envelope.verify(vectors.KEY.public_key())
    body = batch.decode_body(envelope.body)
    assert (envelope.stream, envelope.sequence, body.site) == (b"8bytes!!", 7, "plant-a")
    assert body.readings() == given_readings


@given(st.integers(0, (1 << 64) - 1), st.integers(-(1 << 63), (1 << 63) - 1))
def test_integers_come_back(unsigned: int, signed: int) -> None:
    out = bytearray()
    put_varint(out, unsigned)
    put_zigzag(out, signed)
    reader = Reader(bytes(out))
    assert (reader.varint(), reader.zigzag(), reader.left) == (unsigned, signed, 0)


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 459), st.binary(min_size=1, max_size=4))
def test_malformed_bytes_are_refused_and_never_crash(noise: bytes, at: int, patch: bytes) -> None:
    for body in (noise, _patched(at, patch)):
        try:
            batch.decode_body(body)
        except FormatError:
            continue


def _patched(at: int, patch: bytes) -> bytes:
    body = bytearray(batch.parse(vectors.good_vectors()["3-every-encoding"]).body)
    at %= len(body)
    body[at : at + len(patch)] = patch
    return bytes(body)


@pytest.mark.parametrize("name", sorted(vectors.good_vectors()))
def test_published_vector_is_unchanged(name: str) -> None:
    published = (vectors.FOLDER / f"{name}.bin").read_bytes()
    described = json.loads((vectors.FOLDER / f"{name}.json").read_text())
    assert vectors.describe(published) == described
    made = vectors.good_vectors()[name]
    # Deflate may choose other bytes with another zlib; what they say may not change.
    assert batch.parse(made).body == batch.parse(published).body
    if published[4] == batch.RAW:
        assert made[:21] == published[:21]


def test_published_vectors_are_a_chain() -> None:
    previous = batch.FIRST_PREVIOUS
    for name in sorted(vectors.good_vectors()):
        data = (vectors.FOLDER / f"{name}.bin").read_bytes()
        envelope = batch.parse(data)
        envelope.verify(vectors.KEY.public_key())
        assert envelope.previous == previous
        previous = batch.digest(data)


@pytest.mark.parametrize("name", sorted(vectors.bad_vectors()))
def test_published_bad_vector_is_refused(name: str) -> None:
    data = (vectors.FOLDER / f"{name}.bin").read_bytes()
    with pytest.raises((FormatError, InvalidSignature)):
        _read(data)


def _read(data: bytes) -> batch.Body:
    envelope = batch.parse(data)
    envelope.verify(vectors.KEY.public_key())
    return batch.decode_body(envelope.body)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([Reading("a/b", "W", 5, 1.0, 0), Reading("a/b", "W", 5, 1.0, 0)], "does not ascend"),
        ([Reading("a/b", "W", 5, 1.0, 0), Reading("a/b", "V", 6, 1.0, 0)], "unit changes"),
        ([Reading("a/b", "W", 5, None, 0)], "contradicts"),
        ([Reading("a/b", "W", 5, 1.0, 129)], "contradicts"),
        ([Reading("a/b", "W", 5, math.inf, 0)], "not a finite number"),
    ],
)
def test_contradictions_are_not_sealed(wrong: list[Reading], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batch.seal("plant-a", wrong, b"8bytes!!", 1, bytes(32), vectors.KEY)


def _envelope(stored: bytes, compression: int) -> bytes:
    head = batch.HEADER.pack(batch.MAGIC, compression, b"8bytes!!", 1, bytes(32), len(stored))
    return head + stored + bytes(64)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated"),
        (_envelope(b"x", 7), "unknown compression"),
        (_envelope(b"no zlib", batch.ZLIB), "does not inflate"),
        (_envelope(zlib.compress(b"x") + b"y", batch.ZLIB), "followed by other bytes"),
        (_envelope(zlib.compress(b"xyz" * 50)[:-6], batch.ZLIB), "truncated"),
        (_envelope(zlib.compress(bytes(batch.MAX_BODY + 1)), batch.ZLIB), "over 16777216 bytes"),
        (_envelope(b"x", batch.RAW) + b"y", "do not fit"),
    ],
)
def test_bad_envelope_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        batch.parse(data)


def test_a_small_body_cannot_claim_millions_of_readings() -> None:
    out = bytearray()
    out += b"\x01x\x00\x01"
    put_varint(out, 3000)
    out += b"\x00" + b"\x02" + b"\x00" * 2998
    put_varint(out, 400)
    for index in range(400):
        name = f"p{index}".encode()
        out += bytes([len(name)]) + name + b"\x01W\x00\x01"
        put_varint(out, 129 << 1 | 1)
        put_varint(out, 3000)
        out += b"\x00\x00"
    with pytest.raises(FormatError, match="more than 200000 readings"):
        batch.decode_body(bytes(out))


def test_times_of_which_no_series_has_any_are_bounded_too() -> None:
    out = bytearray(b"\x01x\x00\x02")
    for count in (150_000, 50_001):
        put_varint(out, count)
        out += b"\x00" + b"\x02" + b"\x00" * (count - 2)
    out += b"\x00"
    with pytest.raises(FormatError, match="more than 200000 times"):
        batch.decode_body(bytes(out))


def test_a_minute_of_eight_ordinary_meters_costs_less_than_three_bytes_a_reading() -> None:
    import random

    rng = random.Random(1)
    out = []
    for meter in range(8):
        power, energy = rng.uniform(1e3, 1e5), rng.uniform(1e6, 1e9)
        for step in range(6):
            time = vectors.T0 + step * 10_000 + rng.randrange(4) + 50 * meter
            volts = [round(rng.gauss(230, 0.6), 1) for _ in range(6)]
            amps = [round(power / 690 * rng.gauss(1, 0.02), 2) for _ in range(3)]
            watts = [round(power * rng.gauss(1, 0.02)) + 0.0 for _ in range(6)]
            counters = [round(energy + step * power / 360) + 0.0 for _ in range(4)]
            for index, value in enumerate([*volts, *amps, *watts, *counters, round(rng.gauss(50, 0.01), 2)]):
                out.append(Reading(f"meter-{meter}/quantity_{index}", "W", time, value, quality.GOOD))
    assert len(out) == 8 * 20 * 6
    data = batch.seal("plant-a", out, b"8bytes!!", 1, bytes(32), vectors.KEY)
    assert len(data) / len(out) < 3
