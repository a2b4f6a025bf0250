# SPDX-License-Identifier: Apache-2.0
"""Decoding and scaling, analogue signals, schedules and clocks."""

from __future__ import annotations

import math
import random
import struct
from dataclasses import replace
from fractions import Fraction

import pytest
from energy_collector import profiles, quality
from energy_collector.config import ChannelConfig, MeterConfig
from energy_collector.meters import values
from energy_collector.meters.blocks import RegisterMeter
from energy_collector.meters.making import make
from energy_collector.meters.profile import Bits, Point, Profile, point_name
from energy_collector.meters.registers import HIGH_FIRST, TYPES, Field, Order, Unpacker
from hypothesis import given
from hypothesis import strategies as st

METER = MeterConfig("main", "hall", 1, "any", 10.0)
PROFILE = Profile("any", "", "", "registers")

# Canonical names and their units, from docs/reference/gateway-configuration.md.
CANONICAL = {
    "active_power": "W",
    "active_power_l1": "W",
    "reactive_power": "var",
    "apparent_power": "V.A",
    "power_factor": "1",
    "voltage_l1": "V",
    "voltage_l1_l2": "V",
    "current_l1": "A",
    "frequency": "Hz",
    "energy_import": "W.h",
    "energy_export": "W.h",
    "state_of_charge": "%",
    "temperature": "Cel",
}


@pytest.mark.parametrize("name", profiles.names())
def test_profile_cites_its_source_and_uses_canonical_units(name: str) -> None:
    profile = profiles.load(name)
    assert len(profile.source) > 80
    points = [*profile.points, *(point for model in profile.models for point in model.points)]
    assert points or profile.inputs
    for point in points:
        assert CANONICAL.get(point.name, point.unit) == point.unit


def answer(*registers: int, function: int = 3) -> bytes:
    """An answer as the bus hands it over: function code, byte count, registers."""
    return struct.pack(f">BB{len(registers)}H", function, 2 * len(registers), *registers)


def number(registers: list[int], kind: str, order: Order = HIGH_FIRST) -> int | float:
    return Unpacker([Field(0, kind, order)], 0)(answer(*registers))[0]


@pytest.mark.parametrize(
    ("registers", "kind", "low_first", "value"),
    [
        # Eastron, SDM630 protocol, section 1.1: 230.2 V is 43 66 33 34.
        ([0x4366, 0x3334], "float32", False, 230.2),
        # Carlo Gavazzi EM24 E1: low word first, 2300 tenths of a volt.
        ([2300, 0], "int32", True, 2300),
        ([0xFFFE, 0xFFFF], "int32", True, -2),
        ([0xFFFE], "int16", False, -2),
        ([0x0001, 0x0000, 0x0000, 0x0002], "uint64", False, (1 << 48) + 2),
        ([0x0002, 0x0000, 0x0000, 0x0001], "uint64", True, (1 << 48) + 2),
    ],
)
def test_registers_become_numbers(registers: list[int], kind: str, low_first: bool, value: float) -> None:
    assert number(registers, kind, Order(low_first)) == pytest.approx(value, rel=1e-7)


@pytest.mark.parametrize(
    ("registers", "order"),
    [
        ([0x0A0B, 0x0C0D], Order()),
        ([0x0C0D, 0x0A0B], Order(low_word_first=True)),
        ([0x0B0A, 0x0D0C], Order(low_byte_first=True)),
        ([0x0D0C, 0x0B0A], Order(low_word_first=True, low_byte_first=True)),
    ],
)
def test_the_four_byte_orders(registers: list[int], order: Order) -> None:
    assert number(registers, "uint32", order) == 0x0A0B0C0D


@st.composite
def some_fields(draw: st.DrawFn) -> list[Field]:
    """Fields anywhere in a block, overlapping or doubled as they like."""
    kinds = st.sampled_from(sorted(TYPES))
    orders = st.builds(Order, st.booleans(), st.booleans())
    return draw(st.lists(st.builds(Field, st.integers(100, 220), kinds, orders), min_size=1, max_size=30))


def slowly(field: Field, data: bytes, first: int) -> bytes:
    """The bytes of a field, highest first, picked one by one."""
    start = 2 + 2 * (field.address - first)
    words = [data[start + 2 * word : start + 2 * word + 2] for word in range(TYPES[field.type][1])]
    if field.order.low_word_first:
        words.reverse()
    return b"".join(word[::-1] if field.order.low_byte_first else word for word in words)


@given(some_fields(), st.binary(min_size=250, max_size=250))
def test_a_block_of_any_fields_is_taken_apart(fields: list[Field], body: bytes) -> None:
    data = b"\x03\xfa" + body
    found = Unpacker(fields, 100)(data)
    codes = "".join(TYPES[field.type][0] for field in fields)
    again = struct.pack(f">{codes}", *found)
    assert again == b"".join(slowly(field, data, 100) for field in fields) or any(
        isinstance(value, float) and value != value for value in found
    )


def point(**changes: object) -> Point:
    base: dict[str, object] = {"name": "p", "unit": "W", "address": 0, "type": "int16", "decimals": 1}
    return Point(**{**base, **changes})  # type: ignore[arg-type]  # arguments of several types


def one(
    raw: float,
    about: Point,
    meter: MeterConfig = METER,
    profile: Profile = PROFILE,
    scale_factor: int = 0,
    direction: int | None = None,
) -> values.Value:
    found, codes = values.Conversion([about], meter, profile, [scale_factor], direction)([raw])
    code = codes[0] if codes else quality.GOOD
    return values.Value(None if quality.is_bad(code) else found[0], code)


def test_transformers_multiply() -> None:
    meter = MeterConfig("main", "hall", 1, "any", 10.0, ct_ratio=40.0, pt_ratio=100.0)
    for ratio, value in {"none": 5.0, "current": 200.0, "voltage": 500.0, "power": 20000.0}.items():
        assert one(5, point(ratio=ratio), meter).value == value


def test_signs_are_the_sites() -> None:
    source = Profile("any", "", "", "sunspec", view="source")
    flow = point(flow=True)
    assert one(7, flow).value == 7
    assert one(7, flow, profile=source).value == -7
    assert one(7, point(), profile=source).value == 7
    # A battery whose own sign is not told by the model: its charge status decides.
    assert one(7, flow, profile=source, direction=values.CHARGING).value == 7
    assert one(-7, flow, profile=source, direction=values.CHARGING).value == 7
    assert one(7, flow, profile=source, direction=values.DISCHARGING).value == -7
    assert one(7, flow, profile=source, direction=6).value == -7


def test_a_reversed_meter_changes_signs_and_swaps_its_counters() -> None:
    meter = MeterConfig("main", "hall", 1, "any", 10.0, reverse=True)
    assert one(7, point(flow=True), meter).value == -7
    assert one(7, point(flow=True), meter, direction=values.CHARGING).value == -7
    assert point_name("energy_import", reverse=True) == "energy_export"
    assert point_name("reactive_energy_export", reverse=True) == "reactive_energy_import"
    assert point_name("voltage_l1", reverse=True) == "voltage_l1"
    assert point_name("energy_import", reverse=False) == "energy_import"


def test_sentinels_nan_and_scale_factors() -> None:
    assert one(-0x8000, point(missing=(-0x8000,))) == values.MISSING
    assert one(123, point(), scale_factor=-2).value == 1.2
    assert one(123, point(), scale_factor=-0x8000) == values.MISSING
    for bad in ("nan", "inf", "-inf"):
        assert one(float(bad), point(type="float32")) == values.MISSING
    assert one(-2, point(valid=(0.0, 1.0))) == values.Value(-2.0, quality.UNCERTAIN_OUT_OF_RANGE)
    # A sentinel of a float32 is the one that its registers can hold.
    held = struct.unpack("f", struct.pack("f", 1234.56))[0]
    assert one(held, point(type="float32", missing=(1234.56,))) == values.MISSING


def test_a_missing_point_leaves_the_others_of_its_block_as_they_are() -> None:
    points = [
        point(name="a", scale=0.1, missing=(0xFFFF,)),
        point(name="b", scale=0.1, missing=(0,)),
        point(name="c", scale=0.1, valid=(0.0, 10.0)),
    ]
    convert = values.Conversion(points, METER, PROFILE)
    assert convert([0, 7, 9]) == ([0.0, 0.7, 0.9], b"")
    assert convert([0xFFFF, 7, 9]) == ([0.0, 0.7, 0.9], bytes([quality.BAD_SENSOR, 0, 0]))
    assert convert([5, 0, 900]) == (
        [0.5, 0.0, 90.0],
        bytes([0, quality.BAD_SENSOR, quality.UNCERTAIN_OUT_OF_RANGE]),
    )


def test_bits_are_numbers() -> None:
    status = [
        point(name="closed", type="uint16", bits=Bits(3, 1)),
        point(name="mode", type="uint16", bits=Bits(8, 4), missing=(0xFFFF,)),
    ]
    convert = values.Conversion(status, METER, PROFILE)
    assert convert([0x0508, 0x0508]) == ([1.0, 5.0], b"")
    # "No value" is a pattern of the whole register.
    assert convert([0, 0xFFFF]) == ([0.0, 0.0], bytes([0, quality.BAD_SENSOR]))


def test_an_offset_is_added_after_the_scale_and_before_the_transformers() -> None:
    meter = MeterConfig("main", "hall", 1, "any", 10.0, ct_ratio=40.0)
    assert one(2981, point(unit="Cel", scale=0.1, offset=-273.15, decimals=2)).value == 24.95
    assert one(100, point(scale=0.1, offset=-2.0, ratio="current"), meter).value == 320.0


def test_a_counter_tells_how_far_it_counts() -> None:
    meter = MeterConfig("main", "hall", 1, "any", 10.0, ct_ratio=40.0)
    energy = point(type="uint32", scale=0.1, ratio="power", counter_max=999999999)
    assert values.counter(energy, meter) == values.Counter(999999999 * 4.0, 4.0)
    assert values.counter(point(), meter) is None
    assert values.counter(point(type="float32", counter_max=1e6), METER) == values.Counter(1e6, 0.0)


DECIMAL_SCALES = st.sampled_from([1.0, 0.1, 0.01, 0.001, 10.0, 100.0, 0.5, 0.05])


@given(st.integers(-(1 << 63), (1 << 64) - 1), DECIMAL_SCALES, st.integers(-3, 9), st.integers(-10, 4))
def test_whole_numbers_become_the_decimal_they_stand_for(
    raw: int, scale: float, decimals: int, exponent: int
) -> None:
    about = point(type="int64" if raw < 0 else "uint64", scale=scale, decimals=decimals)
    exact = raw * Fraction(str(scale)) * Fraction(10) ** exponent
    found = one(raw, about, scale_factor=exponent).value
    assert found is not None
    assert str(found) != "-0.0"
    step = Fraction(10) ** -decimals
    if abs(exact / step) < 1 << 50:
        # The nearest float to a decimal with so many digits, at most half a digit from the exact value.
        assert found == float(round(Fraction(found) / step) * step)
        assert abs(Fraction(found) - exact) <= step / 2 * (1 + Fraction(1, 1 << 40)) + abs(exact) / (1 << 52)
    else:
        assert found == pytest.approx(float(exact), rel=1e-15)


def test_a_tie_is_a_tie_of_the_decimal() -> None:
    # 45 x 0.7 is 31.5, and 31.499999999999996 with the binary fraction next to 0.7.
    assert one(45, point(scale=0.7, decimals=0)).value == 32.0


@given(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.integers(0, 4),
    st.sampled_from([1.0, 1000.0]),
)
def test_floats_are_rounded(raw: float, decimals: int, scale: float) -> None:
    found = one(raw, point(type="float32", scale=scale, decimals=decimals)).value
    assert found is not None
    assert found == pytest.approx(round(raw * scale, decimals), rel=1e-15, abs=1.01 * 10.0**-decimals)
    assert abs(found - raw * scale) <= 0.5000001 * 10.0**-decimals + 1e-15 * abs(found)


@given(st.binary(min_size=8, max_size=8), st.sampled_from(["float32", "float64"]))
def test_every_float_pattern_is_a_finite_value_or_none(data: bytes, kind: str) -> None:
    about = point(type=kind, scale=1000.0, decimals=9)
    decode = values.Decoder(Unpacker([about.field], 0), values.Conversion([about], METER, PROFILE))
    (value,), codes = decode(b"\3\4" + data)
    assert str(value) not in ("nan", "inf", "-inf", "-0.0")
    raw = struct.unpack(">f", data[:4])[0] if kind == "float32" else struct.unpack(">d", data)[0]
    if math.isnan(raw) or abs(raw) > 1e300:
        assert codes == bytes([quality.BAD_SENSOR])
    elif abs(raw) < 1e290:
        assert codes == b""


@pytest.mark.parametrize("name", [name for name in profiles.names() if profiles.load(name).points])
def test_any_bytes_become_finite_values_or_none(name: str) -> None:
    meter = make(MeterConfig("m", "hall", 1, name, 1.0, ct_ratio=40.0, pt_ratio=100.0))
    assert isinstance(meter, RegisterMeter)
    source = random.Random(1)
    for block in meter.blocks:
        decode = meter._decoder(block.spans, block.address)
        for _ in range(500):
            data = bytes([3, 2 * block.count]) + source.choice([source.randbytes, bytes, b"\xff".__mul__])(
                2 * block.count
            )
            found, codes = decode(data)
            assert len(found) == len(block.spans)
            assert all(map(math.isfinite, found))
            assert len(codes) in (0, len(found))


def channel(signal: str, low: float = 0, high: float = 150) -> ChannelConfig:
    return ChannelConfig("flow", 1, signal, low, high, "Cel")


@pytest.mark.parametrize(
    ("milliamperes", "value", "code"),
    [
        (4.0, 0.0, quality.GOOD),
        (12.0, 75.0, quality.GOOD),
        (20.0, 150.0, quality.GOOD),
        # NAMUR NE 43: 3.8 to 20.5 mA are a measurement, a fault is signalled up to 3.6 and from 21 mA on.
        (3.81, -1.8, quality.GOOD),
        (20.49, 154.6, quality.GOOD),
        (3.79, -2.0, quality.UNCERTAIN_OUT_OF_RANGE),
        (3.61, -3.7, quality.UNCERTAIN_OUT_OF_RANGE),
        (20.51, 154.8, quality.UNCERTAIN_OUT_OF_RANGE),
        (20.99, 159.3, quality.UNCERTAIN_OUT_OF_RANGE),
        (21.01, None, quality.BAD_SENSOR),
        (3.59, None, quality.BAD_SENSOR),
        (0.0, None, quality.BAD_SENSOR),
    ],
)
def test_current_loop(milliamperes: float, value: float | None, code: int) -> None:
    # A module with room above 20 mA: full scale is what stands for 20 mA.
    raw = round(milliamperes / 20 * 20000)
    found = values.from_channel(raw, 20000, channel("4-20mA"))
    assert found.quality == code
    assert found.value == (None if value is None else pytest.approx(value, abs=0.06))


def test_a_channel_says_where_its_wire_counts_as_broken() -> None:
    loop = replace(channel("4-20mA"), broken_below=3.9)
    assert values.from_channel(3850, 20000, loop) == values.MISSING
    assert values.from_channel(3950, 20000, loop).quality == quality.GOOD


def test_voltage_input() -> None:
    assert values.from_channel(0, 65535, channel("0-10V", -50, 50)).value == -50
    assert values.from_channel(65535, 65535, channel("0-10V", -50, 50)).value == 50
