# SPDX-License-Identifier: Apache-2.0
"""The batches published in docs/reference/wire-format-vectors; run this file to write them anew.

They change only when the format does. Keys and streams are fixed, so that they come out the same everywhere.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_collector import quality
from energy_collector.batches import batch
from energy_collector.batches.varint import put_string, put_varint, put_zigzag
from energy_collector.reading import Reading

FOLDER = Path(__file__).parents[3] / "docs" / "reference" / "wire-format-vectors"
SEED = bytes(range(32))
KEY = Ed25519PrivateKey.from_private_bytes(SEED)
STREAM = bytes.fromhex("9f0c1122334455aa")
T0 = 1767225600123  # 2026-01-01T00:00:00.123Z


def first() -> list[Reading]:
    """One point, one good value and one null."""
    return [
        Reading("main/active_power", "W", T0, 1234.5, quality.GOOD),
        Reading("main/active_power", "W", T0 + 10_000, None, quality.BAD_NO_ANSWER),
    ]


def ordinary() -> list[Reading]:
    """Two meters over a minute: shared time vectors, jitter, decimals, a counter, an uncertain value."""
    out = []
    for step in range(6):
        main, solar = T0 + 20_000 + step * 10_000 + (step % 3), T0 + 20_037 + step * 10_000 - (step % 2)
        out += [
            Reading("main/active_power", "W", main, 1200.0 + step * 7.5, quality.GOOD),
            Reading("main/voltage_l1", "V", main, 230.1 - step * 0.1 if step != 3 else 229.8, quality.GOOD),
            Reading("main/energy_import", "W.h", main, 123_450_000.0 + step * 100, quality.GOOD),
            Reading(
                "solar/active_power", "W", solar, -3300.0 + step, quality.UNCERTAIN_CLOCK if step < 2 else 0
            ),
            Reading("solar/temperature", "Cel", solar, None, quality.BAD_SENSOR),
        ]
    return [one._replace(value=one.value if one.value is None else round(one.value, 1)) for one in out]


# Those that the first version of the format knew: a published vector does not change.
QUALITIES = (0, 1, 64, 65, 66, 67, 128, 129, 130, 131, 132, 133, 134)


def every_encoding() -> list[Reading]:
    """Decimal with both signs of the exponent, float32, float64, all nulls, every quality, times before
    1970."""
    out = []
    for index, code in enumerate(QUALITIES):
        value = None if quality.is_bad(code) else 0.5 * index - 1
        out.append(Reading("all/qualities", "1", T0 + 70_000 + index, value, code))
    # Numbers that no power of ten shortens; those of the first series are exact in 32 bits.
    singles = [struct.unpack(">f", struct.pack(">f", 1 / n))[0] for n in (3.0, 7.0, 11.0)]
    for index in range(3):
        time = T0 + 80_000 + index
        out += [
            Reading("float/single", "V", time, singles[index], quality.GOOD),
            Reading("float/double", "V", time, 1 / (index + 3) + 1e-17, quality.GOOD),
            Reading("float/huge", "1", time, 1.5e300 + index, quality.GOOD),
            Reading("decimal/tens", "W.h", time, 12_000_000.0 + index * 1000, quality.GOOD),
            Reading("decimal/fine", "A", time, -0.000001 * (index + 1), quality.GOOD),
            Reading("null/all", "Cel", time, None, quality.BAD_CONNECTION),
            Reading("zéro/°", "1", time, 0.0, quality.GOOD),
            Reading("old/early", "W", -1000 + index * 400, 1.0, quality.GOOD),
        ]
    return out


def good_vectors() -> dict[str, bytes]:
    """A chain of three batches, by file name."""
    site = "plant-a"
    one = batch.seal(site, first(), STREAM, 1, batch.FIRST_PREVIOUS, KEY, compress=False)
    two = batch.seal(site, ordinary(), STREAM, 2, batch.digest(one), KEY)
    three = batch.seal(site, every_encoding(), STREAM, 3, batch.digest(two), KEY, compress=False)
    return {"1-first": one, "2-ordinary": two, "3-every-encoding": three}


def _body(write: Callable[[bytearray], None], after: bytes = b"") -> bytes:
    out = bytearray()
    write(out)
    body = bytes(out) + after
    head = batch.HEADER.pack(batch.MAGIC, batch.RAW, STREAM, 1, batch.FIRST_PREVIOUS, len(body))
    return head + body + KEY.sign(batch.SIGNED_PREFIX + head + body)


def _plain(
    out: bytearray, *, runs: tuple[tuple[int, int], ...] = ((0, 2),), step: int = 1000, vector: int = 0
) -> None:
    """A body of one series of two zeros, with something wrong if asked for."""
    put_string(out, "plant-a")
    put_zigzag(out, T0)
    put_varint(out, 1)
    put_varint(out, 2)
    put_zigzag(out, 0)
    put_zigzag(out, step)
    put_varint(out, 1)
    put_string(out, "main/active_power")
    put_string(out, "W")
    put_varint(out, vector)
    put_varint(out, len(runs))
    for flags, length in runs:
        put_varint(out, flags)
        put_varint(out, length)
    out.append(batch.DECIMAL)
    put_zigzag(out, 0)
    put_zigzag(out, 0)
    put_zigzag(out, 0)


def bad_vectors() -> dict[str, tuple[str, bytes]]:
    """Batches to refuse: why, and the bytes. All but the one about it carry a valid signature."""
    good = good_vectors()["1-first"]
    return {
        "bad-magic": ("magic is not WFB1", b"WFB2" + good[4:]),
        "bad-signature": ("the signature does not verify", good[:-1] + bytes([good[-1] ^ 1])),
        "bad-truncated": ("the batch ends early", good[:-70]),
        "bad-left-over": ("a byte follows the last series", _body(_plain, b"\0")),
        "bad-runs-short": ("quality runs add up to 1 of 2", _body(lambda out: _plain(out, runs=((0, 1),)))),
        "bad-runs-long": ("quality runs add up to 3 of 2", _body(lambda out: _plain(out, runs=((0, 3),)))),
        "bad-null-good": ("null with quality good", _body(lambda out: _plain(out, runs=((1, 2),)))),
        "bad-times": ("times do not ascend", _body(lambda out: _plain(out, step=0))),
        "bad-vector": ("time vector 1 of 1", _body(lambda out: _plain(out, vector=1))),
    }


def describe(data: bytes) -> dict[str, Any]:
    """What the JSON beside a good vector says."""
    envelope = batch.parse(data)
    body = batch.decode_body(envelope.body)
    return {
        "valid": True,
        "public_key": base64.b64encode(
            KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        ).decode(),
        "private_key_seed": SEED.hex(),
        "digest": batch.digest(data).hex(),
        "compression": data[4],
        "stream": envelope.stream.hex(),
        "sequence": envelope.sequence,
        "previous": envelope.previous.hex(),
        "site": body.site,
        "series": [one._asdict() for one in body.series],
    }


def main() -> None:
    """Write all files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, data in good_vectors().items():
        (FOLDER / f"{name}.bin").write_bytes(data)
        (FOLDER / f"{name}.json").write_text(json.dumps(describe(data), indent=1, ensure_ascii=False) + "\n")
    for name, (why, data) in bad_vectors().items():
        (FOLDER / f"{name}.bin").write_bytes(data)
        (FOLDER / f"{name}.json").write_text(json.dumps({"valid": False, "why": why}, indent=1) + "\n")


if __name__ == "__main__":
    main()
