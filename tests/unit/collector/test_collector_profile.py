# SPDX-License-Identifier: Apache-2.0
"""How a profile is written, and what is told of a bad one."""

from __future__ import annotations

from typing import Any

import pytest
from energy_collector.meters.profile import Bits, Serial
from energy_collector.meters.profile_file import parse
from energy_collector.meters.registers import Order

GOOD: dict[str, Any] = {
    "model": "Example PM-1",
    "source": "Example AG, PM-1 register map, edition 3",
    "function": 4,
    "word_order": "low",
    "missing": {"uint16": 0xFFFF},
    "serial": {"address": 80, "size": 8, "function": 3},
    "points": {
        "active_power": {
            "unit": "W",
            "address": 0,
            "type": "int32",
            "byte_order": "low",
            "word_order": "high",
        },
        "energy_import": {
            "unit": "W.h",
            "address": 2,
            "type": "uint32",
            "scale": 10,
            "offset": 5,
            "function": 3,
            "counter": {"max": 99999999},
        },
        "closed": {"unit": "1", "address": 4, "type": "uint16", "bits": {"first": 3, "count": 2}},
    },
}


def with_point(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "points": {"p": {"unit": "V", "address": 10, "type": "uint16", **changes}}}


def test_what_a_profile_says() -> None:
    profile = parse("example", GOOD)
    power, energy, closed = profile.points
    assert power.order == Order(low_word_first=False, low_byte_first=True)
    assert energy.order == Order(low_word_first=True)
    assert (power.function, energy.function) == (4, 3)
    assert (energy.scale, energy.offset, energy.counter_max) == (10.0, 5.0, 99999999.0)
    assert (closed.bits, closed.missing) == (Bits(3, 2), (0xFFFF,))
    assert profile.serial == Serial(80, "string", 8, 3, Order(low_word_first=True))
    assert profile.point_names(reverse=True) == ["active_power", "energy_export", "closed"]


def test_a_digest_changes_with_the_profile() -> None:
    assert parse("x", GOOD).digest == parse("x", dict(reversed(GOOD.items()))).digest
    assert parse("x", GOOD).digest != parse("x", {**GOOD, "max_gap": 11}).digest


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ({**GOOD, "source": " "}, "x.source: cites nothing"),
        ({**GOOD, "byte_order": "big"}, "x.byte_order: 'big' is not one of high, low"),
        ({**GOOD, "holes": [[7]]}, r"x.holes: \[7\] is not a list of two numbers"),
        ({**GOOD, "holes": [[3, 9]]}, "x.points.energy_import.address: 2 lies in the hole 3 to 9"),
        ({**GOOD, "missing": {"int17": 1}}, "x.missing.int17: is not one of the types"),
        ({**GOOD, "serial": {"address": 1}}, "x.serial.size: missing"),
        ({**GOOD, "serial": {"address": 1, "type": "float32"}}, "x.serial.type: 'float32' is not one of"),
        ({**GOOD, "max_block": 1}, "x.points.active_power.address: 2 registers are more than max_block, 1"),
        (with_point(type="int7"), "x.points.p.type: 'int7' is not one of"),
        (with_point(type="string"), "x.points.p.type: 'string' is not one of"),
        (with_point(type="int16", bits={"first": 1}), "x.points.p.type: int16 has no bits to name"),
        (
            with_point(bits={"first": 10, "count": 7}),
            "x.points.p.bits.count: 7 bits from 10 on are more than",
        ),
        (with_point(counter={"max": 0}), "x.points.p.counter.max: 0 is not above zero"),
        (with_point(counter={}), "x.points.p.counter.max: missing"),
        (with_point(valid=[5, 1]), r"x.points.p.valid: \[5, 1\] is not a list of two numbers"),
        (with_point(missing="none"), "x.points.p.missing: 'none' is not a number"),
        (with_point(address=65535, type="uint32"), "65535 leaves no room for 2 registers"),
        (with_point(scales=2), "x.points.p.scales: unknown key; did you mean scale?"),
    ],
)
def test_a_fault_of_a_profile_is_told_with_its_place(data: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse("x", data)
