# SPDX-License-Identifier: Apache-2.0
"""Profiles, decoding, planning, schedules and clocks."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from energy_collector import profiles, quality, values
from energy_collector.config import ChannelConfig, MeterConfig
from energy_collector.plan import plan
from energy_collector.profile import Point, Profile
from energy_collector.registers import decode
from energy_collector.schedule import Backoff, Schedule
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


def float_registers(value: float) -> list[int]:
    return list(struct.unpack(">2H", struct.pack(">f", value)))


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
    assert decode(registers, kind, low_word_first=low_first) == pytest.approx(value, rel=1e-7)


def point(**changes: object) -> Point:
    base: dict[str, object] = {"name": "p", "unit": "W", "address": 0, "type": "int16", "decimals": 1}
    return Point(**{**base, **changes})  # type: ignore[arg-type]


def one(
    raw: int, about: Point, meter: MeterConfig = METER, profile: Profile = PROFILE, **more: int
) -> values.Value:
    return values.from_registers([raw & 0xFFFF], about, meter, profile, **more)


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


def test_a_reversed_meter_changes_signs_and_swaps_its_counters() -> None:
    meter = MeterConfig("main", "hall", 1, "any", 10.0, reverse=True)
    assert one(7, point(flow=True), meter).value == -7
    assert values.point_name(point(name="energy_import"), meter) == "energy_export"
    assert values.point_name(point(name="reactive_energy_export"), meter) == "reactive_energy_import"
    assert values.point_name(point(name="voltage_l1"), meter) == "voltage_l1"


def test_sentinels_nan_and_scale_factors() -> None:
    assert one(-0x8000, point(missing=(-0x8000,))) == values.MISSING
    assert one(123, point(), scale_factor=-2).value == 1.2
    assert one(123, point(), scale_factor=values.SCALE_FACTOR_MISSING) == values.MISSING
    nan = values.from_registers(float_registers(float("nan")), point(type="float32"), METER, PROFILE)
    assert nan == values.MISSING
    assert one(-2, point(valid=(0.0, 1.0))) == values.Value(-2.0, quality.UNCERTAIN_OUT_OF_RANGE)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_every_float_pattern_is_a_finite_value_or_none(high: int, low: int) -> None:
    found = values.from_registers([high, low], point(type="float32", scale=1000.0), METER, PROFILE)
    assert (found.value is None) == quality.is_bad(found.quality)
    assert str(found.value) not in ("nan", "inf", "-inf", "-0.0")


def channel(signal: str, low: float = 0, high: float = 150) -> ChannelConfig:
    return ChannelConfig("flow", 1, signal, low, high, "Cel")


@pytest.mark.parametrize(
    ("milliamperes", "value"),
    [(4.0, 0.0), (12.0, 75.0), (20.0, 150.0), (3.8, -1.9), (3.61, -3.7), (3.59, None), (0.0, None)],
)
def test_current_loop(milliamperes: float, value: float | None) -> None:
    raw = round(milliamperes / 20 * 65535)
    found = values.from_channel(raw, 65535, channel("4-20mA"))
    assert found.quality == (quality.BAD_SENSOR if value is None else quality.GOOD)
    assert found.value == (None if value is None else pytest.approx(value, abs=0.06))


def test_voltage_input() -> None:
    assert values.from_channel(0, 65535, channel("0-10V", -50, 50)).value == -50
    assert values.from_channel(65535, 65535, channel("0-10V", -50, 50)).value == 50


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 4)), min_size=1, max_size=40),
    st.integers(4, 125),
    st.integers(0, 30),
)
def test_a_plan_covers_every_field_within_the_limits(
    fields: list[tuple[int, int]], most: int, gap: int
) -> None:
    named = [(f"f{index}", address, size) for index, (address, size) in enumerate(fields)]
    blocks = plan(named, most, gap)
    where = {name: block for block in blocks for name in block.fields}
    for name, address, size in named:
        block = where[name]
        assert block.address <= address
        assert address + size <= block.address + block.count
    assert all(block.count <= most for block in blocks)
    assert sum(len(block.fields) for block in blocks) == len(named)


def test_the_plans_of_the_meters_are_short() -> None:
    from energy_collector.meter import RegisterMeter

    for name, requests in {"eastron-sdm630": 2, "carlo-gavazzi-em24": 2}.items():
        profile = profiles.load(name)
        meter = RegisterMeter(MeterConfig("m", "b", 1, name, 10.0), profile)
        assert len(meter.blocks) == requests
        assert max(block.count for block in meter.blocks) <= profile.max_block


def test_a_schedule_does_not_drift_and_counts_what_it_missed() -> None:
    schedule = Schedule(100.0, 10.0)
    for index in range(1000):
        assert schedule.due == 100.0 + 10.0 * index
        schedule.advance(schedule.due + 9.5)
    assert schedule.missed == 0
    due = schedule.due
    schedule.advance(due + 35.0)
    assert schedule.missed == 2
    assert schedule.due == due + 30.0


def test_a_dead_unit_is_asked_less_and_less_and_at_once_again_when_it_answers() -> None:
    backoff = Backoff(10.0)
    asked = []
    for poll in range(200):
        now = poll * 10.0
        if backoff.may_ask(now):
            asked.append(now)
            backoff.failed(now)
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert gaps[:6] == [10.0, 10.0, 20.0, 40.0, 80.0, 160.0]
    assert max(gaps) == 300.0
    backoff.succeeded()
    assert backoff.may_ask(2000.0)
