# SPDX-License-Identifier: Apache-2.0
"""The reader against the published vectors and against every fault that the page names."""

from __future__ import annotations

import base64
import json
import random
import struct
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import batch
from energy_hub.batch import MAX_BODY, BatchError, Body, read_body, read_envelope
from energy_hub.trust import batch_is_signed_by

from . import writer

VECTORS = Path(__file__).parents[3] / "docs/reference/wire-format-vectors"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
START = 1_767_225_600_000


def sealed(content: bytes, *, compress: bool = False) -> bytes:
    return writer.seal(KEY, content, b"\x9f" * 8, 1, compress=compress)


def read(payload: bytes) -> Body:
    return read_body(read_envelope(payload))


def plain(body: Body) -> list[dict[str, object]]:
    """Series in the shape of the vectors' JSON."""
    out: list[dict[str, object]] = []
    for series in body.series:
        values = iter(series.values)
        kinds = [(code, null) for code, null, length in series.runs for _ in range(length)]
        out.append(
            {
                "point": series.point,
                "unit": series.unit,
                "times": list(series.times),
                "values": [None if null else next(values) for _, null in kinds],
                "qualities": [code for code, _ in kinds],
            }
        )
    return out


@pytest.mark.parametrize("name", sorted(path.stem for path in VECTORS.glob("*.bin")))
def test_published_vector(name: str) -> None:
    payload = (VECTORS / f"{name}.bin").read_bytes()
    expected = json.loads((VECTORS / f"{name}.json").read_text())
    try:
        envelope = read_envelope(payload)
        body = read_body(envelope)
    except BatchError:
        assert not expected["valid"]
        return
    public = KEY.public_key().public_bytes_raw()
    trusted = batch_is_signed_by(public, envelope.signature, envelope.signed)
    assert trusted == expected["valid"]
    if trusted:
        assert base64.b64decode(expected["public_key"]) == public
        assert envelope.digest.hex() == expected["digest"]
        assert envelope.stream.hex() == expected["stream"]
        assert envelope.sequence == expected["sequence"]
        assert envelope.previous.hex() == expected["previous"]
        assert body.site == expected["site"]
        assert plain(body) == expected["series"]


def test_what_the_writer_writes_is_read() -> None:
    dice = random.Random(7)
    for _ in range(50):
        points = {}
        for number in range(dice.randint(1, 5)):
            time = START + dice.randint(-5000, 5000)
            readings: list[writer.Reading] = []
            for _ in range(dice.randint(1, 40)):
                time += dice.choice((100, 10_000, 10_001, 86_400_000))
                if dice.random() < 0.2:
                    readings.append((time, None, dice.choice((128, 129, 200))))
                else:
                    readings.append((time, dice.uniform(-1e9, 1e9), dice.choice((0, 64))))
            points[f"m/p{number}"] = readings
        body = read(sealed(writer.body("plant-a", points), compress=True))
        found = {
            str(one["point"]): list(zip(one["times"], one["values"], one["qualities"], strict=True))  # type: ignore[call-overload]  # the lists of plain JSON
            for one in plain(body)
        }
        assert found == points


def test_decimals_divide_by_the_power_of_ten() -> None:
    content = head() + writer.series("a/b", "W", 0, [(0, 1.0, 0), (1, 1.0, 0)], writer.decimal([1, 3], -1))
    assert list(read(sealed(content)).series[0].values) == [0.1, 0.3]
    content = head() + writer.series("a/b", "W", 0, [(0, 1.0, 0), (1, 1.0, 0)], writer.decimal([-7, 5], 12))
    assert list(read(sealed(content)).series[0].values) == [-7e12, 5e12]


def head(times: bytes = writer.vector(START, [START, START + 10]), series: int = 1) -> bytes:
    """A body up to its first series, with a vector of two times unless told otherwise."""
    return writer.string("plant-a") + writer.zigzag(START) + writer.varint(1) + times + writer.varint(series)


TWO: list[writer.Reading] = [(0, 1.0, 0), (1, 2.0, 0)]
ONE_SERIES = writer.series("a/b", "W", 0, TWO)

FAULTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "truncated"),
    "no series yet": (head()[:-1], "truncated"),
    "cut in a series": ((head() + ONE_SERIES)[:-1], "truncated"),
    "left over": (head() + ONE_SERIES + b"\0", "1 bytes left over"),
    "vector is not there": (head() + writer.series("a/b", "W", 1, TWO), "time vector 1, there are 1"),
    "runs too long": (head() + writer.series("a/b", "W", 0, [*TWO, (2, 3.0, 0)]), "cover 3 readings of 2"),
    "runs too short": (head() + writer.series("a/b", "W", 0, TWO[:1]), "cover 1 readings of 2"),
    "null and good": (head() + writer.series("a/b", "W", 0, [(0, None, 0), (1, None, 0)]), "without a value"),
    "bad and a value": (
        head() + writer.series("a/b", "W", 0, [(0, 1.0, 129), (1, 1.0, 129)]),
        "with a value",
    ),
    "quality of two bytes": (head() + writer.series("a/b", "W", 0, [(0, None, 256), (1, None, 256)]), "256"),
    "point twice": (head(series=2) + 2 * ONE_SERIES, "a/b occurs twice"),
    "not a number": (head() + writer.series("a/b", "W", 0, [(0, float("nan"), 0), TWO[1]]), "not a finite"),
    "infinite": (head() + writer.series("a/b", "W", 0, [(0, float("-inf"), 0), TWO[1]]), "not a finite"),
    "encoding": (head() + writer.series("a/b", "W", 0, TWO, b"\x03" + bytes(16)), "encoding 3"),
    "exponent": (head() + writer.series("a/b", "W", 0, TWO, writer.decimal([1, 1], 13)), "exponent 13"),
    "mantissa": (
        head() + writer.series("a/b", "W", 0, TWO, writer.decimal([1, 2**53 + 1], 0)),
        "beyond 2\\^53",
    ),
    "times stand still": (head(writer.vector(0, [5, 5])) + ONE_SERIES, "do not ascend"),
    "time before the year 1": (head(writer.vector(0, [-(2**60), 5])) + ONE_SERIES, "years 1 to 9999"),
    "time after 9999": (head(writer.vector(START, [5, 2**60])) + ONE_SERIES, "years 1 to 9999"),
    "empty vector": (head(b"\0") + ONE_SERIES, "vector is empty"),
    "varint too long": (b"\xff" * 11, "10 bytes"),
    "varint too big": (b"\xff" * 9 + b"\x7f", "64 bits"),
    "site is not text": (b"\x02\xff\xff", "not UTF-8"),
    "control character": (b"\x02a\n", "printable"),
    "more series than bytes": (head(series=1_000_000), "do not fit"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_body_fault(fault: str) -> None:
    content, message = FAULTS[fault]
    with pytest.raises(BatchError, match=message):
        read(sealed(content))


def test_runs_of_null_do_not_multiply_without_bound() -> None:
    times = writer.varint(200_000) + writer.zigzag(0) + writer.zigzag(1) + b"\0" * 199_998
    content = head(times, series=100)
    for number in range(100):
        content += writer.string(f"a/{number}") + writer.string("W") + writer.varint(0) + writer.varint(1)
        content += writer.varint(129 << 1 | 1) + writer.varint(200_000) + writer.decimal([], 0)
    with pytest.raises(BatchError, match="more than 200000 readings"):
        read(sealed(content, compress=True))


def even(count: int) -> bytes:
    """A vector of times that lie 1 ms apart."""
    return writer.varint(count) + writer.zigzag(0) + writer.zigzag(1) + bytes(count - 2)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many numbers were asked for, each time that several were."""
    asked: list[int] = []
    whole = batch._Reader.varints

    def varints(self: batch._Reader, count: int) -> list[int]:
        if count > 1:
            asked.append(count)
        return whole(self, count)

    monkeypatch.setattr(batch._Reader, "varints", varints)
    return asked


@pytest.mark.parametrize("vectors", [[16_000_000], [150_000, 50_001], [1000] * 201])
def test_times_are_bounded_in_all_though_no_series_has_them(
    vectors: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = writer.string("plant-a") + writer.zigzag(START) + writer.varint(len(vectors))
    payload = sealed(content + b"".join(map(even, vectors)) + writer.varint(0), compress=True)
    assert len(payload) < 20_000
    asked = counted(monkeypatch)
    with pytest.raises(BatchError, match="more than 200000 times"):
        read(payload)
    assert sum(asked) <= batch.MAX_READINGS


def test_quality_runs_are_no_more_than_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = writer.varint(1_000_000) + b"\0\1" * 1_000_000
    content = head() + writer.string("a/b") + writer.string("W") + writer.varint(0) + runs
    asked = counted(monkeypatch)
    with pytest.raises(BatchError, match="a/b: 1000000 quality runs of 2 readings"):
        read(sealed(content, compress=True))
    assert sum(asked) < 10


def test_a_point_that_occurs_twice_is_met_while_the_points_are_read() -> None:
    with pytest.raises(BatchError, match="a/b occurs twice"):
        read(sealed(head(series=3) + 2 * ONE_SERIES + b"\xff\xff"))
    names = [f"m/{number}" for number in range(50_000)]
    content = head(writer.vector(0, [0]), series=len(names) + 1)
    content += b"".join(writer.series(name, "W", 0, [(0, None, 129)]) for name in (*names, names[-1]))
    with pytest.raises(BatchError, match="point m/49999 occurs twice"):
        read(sealed(content, compress=True))


def test_what_a_collector_may_seal_is_read() -> None:
    """100,000 readings (its `batch.max_readings`), each point with a time of its own."""
    count = 100_000
    content = writer.string("plant-a") + writer.zigzag(START) + writer.varint(count)
    content += b"".join(writer.vector(0, [number]) for number in range(count)) + writer.varint(count)
    content += b"".join(
        writer.series(f"m/{number}", "W", number, [(0, None, 129)]) for number in range(count)
    )
    assert read(sealed(content, compress=True)).readings == count


def test_envelope_faults() -> None:
    good = sealed(head() + ONE_SERIES)
    for payload, message in (
        (good[:50], "at least"),
        (b"WFB2" + good[4:], "starts with"),
        (good[:4] + b"\x02" + good[5:], "compression 2"),
        (good[:-1], "length field"),
        (good + b"\0", "length field"),
        (good[:13] + bytes(8) + good[21:], "sequence 0"),
    ):
        with pytest.raises(BatchError, match=message):
            read_envelope(payload)


def test_inflate_bomb_is_refused_without_being_inflated() -> None:
    bomb = zlib.compress(bytes(MAX_BODY + 1))
    payload = struct.pack(">4sB8sQ32sI", b"WFB1", 1, bytes(8), 1, bytes(32), len(bomb)) + bomb + bytes(64)
    with pytest.raises(BatchError, match="inflates to more than"):
        read(payload)


def test_compressed_body_is_exactly_one_zlib_stream() -> None:
    stream = zlib.compress(head() + ONE_SERIES)
    for stored, message in (
        (stream[:-1], "truncated"),
        (stream + b"\0", "after the end"),
        (b"abc", "not inflate"),
    ):
        payload = (
            struct.pack(">4sB8sQ32sI", b"WFB1", 1, bytes(8), 1, bytes(32), len(stored)) + stored + bytes(64)
        )
        with pytest.raises(BatchError, match=message):
            read(payload)


def test_no_mutation_gets_past_as_anything_but_a_batch_error() -> None:
    dice = random.Random(11)
    content = head(series=2) + ONE_SERIES + writer.series("a/c", "W", 0, TWO, writer.decimal([100, 90], -2))
    for _ in range(3000):
        changed = bytearray(content)
        for _ in range(dice.randint(1, 4)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        try:
            read(sealed(bytes(changed[: dice.randint(1, len(changed))])))
        except BatchError:
            continue
