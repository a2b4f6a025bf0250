# SPDX-License-Identifier: Apache-2.0
"""What decoding and scaling cost a point, from the answer of a request to its record; no bus, no asyncio.

    .venv/bin/python tests/bench/bench_values.py [--runs 7]

Beside it pymodbus's own way: `registers` of its response, `convert_from_registers` for each value, multiplied and
rounded. The two take turns and their values are compared first; the figures are medians. Writes
build/bench/values.json, a list of {name, value, unit, against, ratio}.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from energy_collector.config import MeterConfig
from energy_collector.meters.plan import Span, plan
from energy_collector.meters.profile import Point, Profile
from energy_collector.meters.registers import Order, Unpacker
from energy_collector.meters.values import Conversion, Decoder
from energy_collector.reading import Layout, Record
from pymodbus.client import AsyncModbusTcpClient as Client
from pymodbus.pdu.register_message import ReadHoldingRegistersResponse

ROOT = Path(__file__).parents[2]
METER = MeterConfig("m", "b", 1, "bench", 1.0)
PROFILE = Profile("bench", "", "", "registers")
LOOPS = 300


def points(count: int, kind: str, low: bool = False, **more: object) -> list[Point]:
    """Points one after the other."""
    size = 2 if kind.endswith("32") else 1
    order = Order(low_word_first=low)
    return [
        Point(f"p{index}", "V", index * size, kind, 1, scale=0.1, order=order, **more)  # type: ignore[arg-type]  # arguments of several types
        for index in range(count)
    ]


def answer(found: Sequence[Point], seed: int = 1) -> bytes:
    """An answer with a number for each of them."""
    source = random.Random(seed)
    body = b""
    for point in found:
        if point.type == "float32":
            data = struct.pack(">f", source.uniform(0, 4000))
        elif point.type == "int32":
            data = struct.pack(">i", source.randrange(-(1 << 30), 1 << 30))
        else:
            data = struct.pack(">H", source.randrange(60000))
        body += data[2:] + data[:2] if point.order.low_word_first else data
    return bytes([3, len(body)]) + body


def ours(found: Sequence[Point]) -> Callable[[bytes], Sequence[float]]:
    """As a meter does it."""
    blocks = plan([Span(one.name, one.address, one.size) for one in found], 125, 10)
    assert len(blocks) == 1
    unpack = Unpacker([one.field for one in found], 0)
    decode = Decoder(unpack, Conversion(found, METER, PROFILE))
    layout = Layout(tuple(one.name for one in found), tuple(one.unit for one in found))

    def take(data: bytes) -> Sequence[float]:
        return Record(layout, 0, *decode(data)).values

    return take


def theirs(found: Sequence[Point]) -> Callable[[bytes], Sequence[float]]:
    """With pymodbus's helpers."""
    kinds = {
        "uint16": Client.DATATYPE.UINT16,
        "int32": Client.DATATYPE.INT32,
        "float32": Client.DATATYPE.FLOAT32,
    }
    about = [
        (
            one.address,
            one.address + one.size,
            kinds[one.type],
            "little" if one.order.low_word_first else "big",
            one.scale,
            one.decimals,
        )
        for one in found
    ]

    def take(data: bytes) -> Sequence[float]:
        response = ReadHoldingRegistersResponse()
        response.decode(data[1:])
        registers = response.registers
        return [
            round(
                Client.convert_from_registers(registers[first:last], kind, word_order=order) * scale,  # type: ignore[arg-type, operator]  # one register or several, all numbers
                decimals,
            )
            for first, last, kind, order, scale, decimals in about
        ]

    return take


def cost(take: Callable[[bytes], Sequence[float]], data: bytes) -> float:
    """Seconds of CPU for one answer."""
    start = time.process_time()
    for _ in range(LOOPS):
        take(data)
    return (time.process_time() - start) / LOOPS


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    cases = {
        "100 uint16, scale 0.1": points(100, "uint16"),
        "50 float32": points(50, "float32"),
        "50 int32, low word first": points(50, "int32", low=True),
        "100 uint16 with sentinel and valid range": points(
            100, "uint16", missing=(0xFFFF,), valid=(0.0, 10000.0)
        ),
    }
    rows = []
    for name, found in cases.items():
        data = answer(found)
        mine, other = ours(found), theirs(found)
        assert [*mine(data)] == [*other(data)], name
        costs = [(cost(mine, data), cost(other, data)) for _ in range(runs)]
        value, against = (statistics.median(one) / len(found) * 1e6 for one in zip(*costs, strict=True))
        rows.append(
            {
                "name": f"decode and scale a point: {name}",
                "value": round(value, 3),
                "unit": "us",
                "against": f"pymodbus convert_from_registers: {against:.3f}",
                "ratio": round(against / value, 1),
            }
        )
        print(f"{name:45} {value:7.3f} us a point   pymodbus {against:7.3f}   {against / value:5.1f} times")
    target = ROOT / "build" / "bench" / "values.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
