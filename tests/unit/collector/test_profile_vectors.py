# SPDX-License-Identifier: Apache-2.0
"""Every profile against register words whose meaning is known, read by the real meter from a real server.

A vector gives the words that a device holds, the values that they stand for, and where it comes from:
`manual example` for an answer printed in the maker's manual, `computed from the stated format` for words
that were made from the type and scale which the manual states. The server answers exception 02 to every
request that touches a register outside of the vector. The meter would learn such a hole; where a vector has
all registers of a profile, the plan must not run into one in the first place.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from energy_collector import payloads, profiles, quality
from energy_collector.bus import Bus
from energy_collector.config import BusConfig, ChannelConfig, MeterConfig
from energy_collector.meters import making as meters
from energy_collector.meters.profile import Profile
from energy_collector.reading import readings
from pymodbus.simulator import DataType, SimData, SimDevice

from .collector_support import ModbusServer

FOLDER = Path(__file__).parent / "vectors"
POINTS = Path(__file__).parents[3] / "docs" / "reference" / "points.md"
ORIGINS = ("manual example", "computed from the stated format")
# What a vector does not say of a register that the device has.
FILLER = 0xDEAD


def vectors(name: str) -> list[dict[str, Any]]:
    """The vectors of a profile."""
    found: list[dict[str, Any]] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["vectors"]
    return found


def words(vector: dict[str, Any]) -> dict[int, int]:
    """The registers of a vector, by address."""
    found = {
        address: FILLER for first, last in vector.get("readable", []) for address in range(first, last + 1)
    }
    for first, text in vector["registers"].items():
        found |= {first + number: int(word, 16) for number, word in enumerate(text.split())}
    return found


def device(profile: Profile, registers: dict[int, int]) -> SimDevice:
    """A unit that holds these registers, for the function of the profile, and nothing else."""
    bits = [SimData(0, values=False, datatype=DataType.BITS)]
    unused = [SimData(65535, values=0, datatype=DataType.REGISTERS)]
    blocks: list[SimData] = []
    for address in sorted(registers):
        if blocks and blocks[-1].address + len(blocks[-1].values) == address:
            blocks[-1].values.append(registers[address])
        else:
            blocks.append(SimData(address, values=[registers[address]], datatype=DataType.REGISTERS))
    tables = (blocks, unused) if profile.function == 3 else (unused, blocks)
    return SimDevice(1, simdata=(bits, bits, *tables))


def read(name: str, vector: dict[str, Any]) -> tuple[dict[str, tuple[float | None, int]], int]:
    """What the meter makes of the vector, value and quality by point, and how often the device refused."""
    profile = profiles.load(name)
    channels = tuple(ChannelConfig(**channel) for channel in vector.get("channels", []))
    meter = meters.make(MeterConfig("m", "hall", 1, name, 10.0, channels=channels))

    async def poll(port: int) -> Any:
        bus = Bus(BusConfig("hall", "modbus-tcp", "127.0.0.1", port, timeout=5.0))
        clock = iter(range(1, 10_000))
        try:
            return await meter.poll(bus, lambda: next(clock)), bus.counters["exceptions"]
        finally:
            bus.close()

    with ModbusServer([device(profile, words(vector))]) as server:
        answer, refusals = asyncio.run(poll(server.port))
    found = {
        reading.point.removeprefix("m/"): (reading.value, reading.quality)
        for reading in readings(answer.records)
    }
    return found, refusals


CASES = [(name, number) for name in profiles.names() for number in range(len(vectors(name)))]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_meter_reads_the_values_of_the_vector(name: str, number: int) -> None:
    vector = vectors(name)[number]
    found, refusals = read(name, vector)
    for point, value in vector["values"].items():
        if value is None:
            assert found[point] == (None, quality.BAD_SENSOR), point
        else:
            assert found[point][0] == pytest.approx(value, rel=1e-9, abs=1e-9), point
            assert found[point][1] == quality.GOOD, point
    profile = profiles.load(name)
    if profile.points and vector["values"].keys() >= {point.name for point in profile.points}:
        assert refusals == 0, "the plan reads registers that the device does not have"


@pytest.mark.parametrize("name", profiles.names())
def test_every_point_has_a_vector_and_every_vector_an_origin(name: str) -> None:
    profile = profiles.load(name)
    points = [*profile.points, *(point for model in profile.models for point in model.points)]
    covered = {
        point for vector in vectors(name) for point, value in vector["values"].items() if value is not None
    }
    assert {point.name for point in points} <= covered
    for vector in vectors(name):
        assert vector["origin"] in ORIGINS
        assert len(vector["source"]) > 20


def test_most_models_of_the_field_are_there_and_some_are_proven_by_their_manual() -> None:
    """The figures that the documentation gives."""
    proven = [
        name
        for name in profiles.names()
        if any(vector["origin"] == "manual example" for vector in vectors(name))
    ]
    assert len(profiles.names()) >= 16
    assert len(proven) >= 17


def vocabulary() -> dict[str, str]:
    """Point names and units of docs/reference/points.md; `_l1` stands for all three phases there."""
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| `([^`]+)` \|", POINTS.read_text(), re.MULTILINE)
    found = dict(rows)
    for name, unit in rows:
        if name.endswith("_l1_l2"):
            found |= {name.removesuffix("l1_l2") + line: unit for line in ("l2_l3", "l3_l1")}
        elif name.endswith("_l1"):
            found |= {name.removesuffix("1") + phase: unit for phase in "23"}
    return found


@pytest.mark.parametrize("name", payloads.names())
def test_payload_file_uses_the_common_names_and_units(name: str) -> None:
    known = vocabulary()
    assert [
        (one.name, one.unit) for one in payloads.load(name).points if known.get(one.name) != one.unit
    ] == []


@pytest.mark.parametrize("name", profiles.names())
def test_profile_uses_the_common_names_and_units(name: str) -> None:
    known = vocabulary()
    profile = profiles.load(name)
    for point in [*profile.points, *(point for model in profile.models for point in model.points)]:
        assert known.get(point.name) == point.unit, point.name
