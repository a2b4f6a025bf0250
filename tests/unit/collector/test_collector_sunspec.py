# SPDX-License-Identifier: Apache-2.0
"""SunSpec devices, their maps built from the SunSpec Alliance's model definitions (pysunspec2)."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from energy_collector import profiles, quality
from energy_collector.config import MeterConfig
from energy_collector.journal import Faults
from energy_collector.meters.learned import Learned
from energy_collector.meters.making import make
from energy_collector.meters.sunspec import SunSpecMeter
from energy_collector.meters.values import Counter
from sunspec2.device import Model

from .register_device import Asking, Device

MISSING = (None, quality.BAD_SENSOR)
INVERTER = {
    "A": 4321, "AphA": 1444, "AphB": 1440, "AphC": 1437, "A_SF": -2,
    "PhVphA": 2301, "PhVphB": 2298, "PhVphC": 2305, "V_SF": -1,
    "W": 9870, "W_SF": 0, "Hz": 5001, "Hz_SF": -2, "VA": 9900, "VA_SF": 0, "VAr": -120, "VAr_SF": 0,
    "PF": -997, "PF_SF": -1, "WH": 123456789, "WH_SF": 0, "DCA": 150, "DCA_SF": -1,
    "DCV": 6550, "DCV_SF": -1, "DCW": 9825, "DCW_SF": 0, "TmpCab": 412, "Tmp_SF": -1,
}  # fmt: skip


def model(number: int, **points: Any) -> bytes:
    """The registers of a model; what is not given is "not implemented"."""
    made = Model(model_id=number)
    for name, value in points.items():
        made.points[name].value = value
    data = bytes(made.get_mb())
    return struct.pack(">HH", number, len(data) // 2 - 2) + data[4:]


def common(serial: str) -> bytes:
    return model(1, Mn="Example", Md="I-10", SN=serial, DA=1)


def sunspec_map(base: int, *models: bytes) -> Device:
    """A device with such models, and nothing else."""
    device = Device({})
    place(device, base, *models)
    return device


def place(device: Device, base: int, *models: bytes) -> None:
    device.registers.clear()
    data = b"SunS" + b"".join(models) + struct.pack(">HH", 0xFFFF, 0)
    device.put(base, *struct.unpack(f">{len(data) // 2}H", data))


def meter(profile: str = "sunspec-inverter", **more: Any) -> SunSpecMeter:
    found = make(MeterConfig("m", "hall", 1, profile, 1.0, **more))
    assert isinstance(found, SunSpecMeter)
    return found


def good(value: float) -> tuple[float, int]:
    return value, quality.GOOD


@pytest.mark.parametrize("base", [40000, 50000, 0])
def test_an_inverter_is_found_wherever_it_is(base: int) -> None:
    async def run() -> None:
        # Models that the profile does not know lie before and after it.
        models = (common("S-1"), model(11), model(103, **INVERTER), model(120), model(122))
        async with sunspec_map(base, *models).serve() as bus:
            asking = Asking(meter(), bus)
            found = await asking.poll()
            assert asking.last.error is None
            assert asking.meter.serial == "S-1"
            assert found == {
                "current_l1": good(14.44),
                "current_l2": good(14.40),
                "current_l3": good(14.37),
                "voltage_l1_l2": MISSING,
                "voltage_l2_l3": MISSING,
                "voltage_l3_l1": MISSING,
                "voltage_l1": good(230.1),
                "voltage_l2": good(229.8),
                "voltage_l3": good(230.5),
                # What a source gives is negative seen from the site.
                "active_power": good(-9870.0),
                "frequency": good(50.01),
                "apparent_power": good(9900.0),
                "reactive_power": good(120.0),
                "power_factor": good(0.997),
                "energy_export": good(123456789.0),
                "dc_current": good(15.0),
                "dc_voltage": good(655.0),
                "dc_power": good(9825.0),
                "temperature": good(41.2),
            }

    asyncio.run(run())


def test_scale_factors_are_read_with_every_poll() -> None:
    async def run() -> None:
        device = sunspec_map(40000, common("S-1"), model(103, **INVERTER))
        async with device.serve() as bus:
            asking = Asking(meter(), bus)
            assert (await asking.poll())["active_power"] == good(-9870.0)
            device.asked.clear()
            place(device, 40000, common("S-1"), model(103, **{**INVERTER, "W": 987, "W_SF": 1}))
            assert (await asking.poll())["active_power"] == good(-9870.0)
            place(device, 40000, common("S-1"), model(103, **{**INVERTER, "W_SF": None, "V_SF": 11}))
            found = await asking.poll()
            assert found["active_power"] == MISSING
            assert found["voltage_l1"] == MISSING
            assert found["frequency"] == good(50.01)
            # One request a poll: nothing is looked for again.
            assert len(device.asked) == 2

    asyncio.run(run())


def test_floats_that_are_not_implemented_are_null() -> None:
    async def run() -> None:
        device = sunspec_map(40000, common("S-1"), model(113, W=2500.4, Hz=49.987, WH=1e6))
        async with device.serve() as bus:
            found = await Asking(meter(), bus).poll()
            assert found["active_power"] == good(-2500.0)
            assert found["frequency"] == good(49.99)
            assert found["energy_export"] == good(1e6)
            assert found["voltage_l1"] == MISSING

    asyncio.run(run())


def battery(**more: Any) -> bytes:
    values = {"SoC": 805, "SoC_SF": -1, "V": 512, "V_SF": 0, "A": 10, "A_SF": 0, "W": 5120, "W_SF": 0, **more}
    return model(802, **values)


def test_a_battery_in_two_models_one_of_them_longer_than_a_request() -> None:
    async def run() -> None:
        meter_701 = model(701, TotWhInj=7_000_000_001, TotWhAbs=8_000_000_002, TotWh_SF=0)
        device = sunspec_map(40000, common("B-1"), battery(ChaSt=3), meter_701)
        async with device.serve() as bus:
            asking = Asking(meter("sunspec-battery"), bus)
            found = await asking.poll()
            assert found["state_of_charge"] == good(80.5)
            assert found["active_power"] == good(-5120.0)
            assert found["energy_export"] == good(7_000_000_001.0)
            assert found["energy_import"] == good(8_000_000_002.0)
            assert len({one.time for one in asking.readings()}) > 1
            # Charging: the status decides, whatever the sign of the register.
            place(device, 40000, common("B-1"), battery(ChaSt=4), meter_701)
            assert (await asking.poll())["active_power"] == good(5120.0)

    asyncio.run(run())


def test_a_device_that_comes_back_with_another_layout_is_read_on() -> None:
    async def run() -> None:
        device = sunspec_map(40000, common("S-1"), model(103, **INVERTER))
        async with device.serve() as bus:
            asking = Asking(meter(), bus)
            await asking.poll()
            # With a new connection, as after a restart: not even one poll is lost.
            place(device, 50000, common("S-1"), model(11), model(113, W=1000.0))
            await device.hang_up()
            assert (await asking.poll())["active_power"] == good(-1000.0)
            # Without one: the poll that notices is null, the next one is right.
            place(device, 50000, common("S-1"), model(103, **INVERTER))
            found = await asking.poll()
            assert {code for _, code in found.values()} & {
                quality.BAD_CONFIGURATION,
                quality.BAD_DEVICE_FAILURE,
            }
            assert (await asking.poll())["active_power"] == good(-9870.0)
            assert not asking.meter.exchanged

    asyncio.run(run())


def test_another_model_in_the_same_place_is_never_taken_for_the_old_one() -> None:
    async def run() -> None:
        device = sunspec_map(40000, common("S-1"), model(103, **INVERTER))
        async with device.serve() as bus:
            asking = Asking(meter(), bus)
            await asking.poll()
            # Model 111 lies where 103 was, and is longer: its floats would be nonsense as whole numbers.
            place(device, 40000, common("S-1"), model(111, W=1000.0))
            found = await asking.poll()
            assert all(value is None for value, _ in found.values())
            assert asking.last.error is not None
            assert "model 111 has come where 103 was" in asking.last.error.text
            assert (await asking.poll())["active_power"] == good(-1000.0)

    asyncio.run(run())


def test_an_exchanged_device_is_noticed() -> None:
    async def run() -> None:
        device = sunspec_map(40000, common("S-1"), model(103, **INVERTER))
        async with device.serve() as bus:
            asking = Asking(meter(), bus)
            await asking.poll()
            assert not asking.meter.exchanged
            place(device, 40000, common("S-2"), model(103, **INVERTER))
            await device.hang_up()
            assert (await asking.poll())["active_power"] == good(-9870.0)
            assert asking.meter.serial == "S-2"
            assert asking.meter.exchanged
            await asking.poll()
            assert not asking.meter.exchanged

    asyncio.run(run())


def test_only_the_points_asked_for_are_read() -> None:
    async def run() -> None:
        device = sunspec_map(40000, common("S-1"), model(103, **INVERTER))
        async with device.serve() as bus:
            asking = Asking(meter(points=("active_power", "energy_export")), bus)
            assert await asking.poll() == {"active_power": good(-9870.0), "energy_export": good(123456789.0)}
            assert set(asking.meter.points) == {"m/active_power", "m/energy_export"}

    asyncio.run(run())


def test_points_that_the_device_does_not_have_are_never_null() -> None:
    async def run() -> None:
        device = sunspec_map(40000, common("B-1"), battery(ChaSt=3))
        async with device.serve() as bus:
            asking = Asking(meter("sunspec-battery"), bus)
            found = await asking.poll()
            assert "energy_import" not in found
            device.silent = True
            assert set(await asking.poll()) == set(found)
            device.silent = False
            only = Asking(meter("sunspec-battery", points=("energy_import",)), bus)
            await only.poll()
            assert only.last.error is not None
            assert "none of the points asked for" in only.last.error.text

    asyncio.run(run())


def test_a_counter_counts_as_far_as_its_scale_factor_says() -> None:
    async def run() -> None:
        device = sunspec_map(40000, common("S-1"), model(103, **{**INVERTER, "WH_SF": 1}))
        async with device.serve() as bus:
            asking = Asking(meter(), bus)
            await asking.poll()
            assert asking.meter.counters == {"m/energy_export": Counter(42949672950.0, 10.0)}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("models", "text"),
    [
        ([], "has none of the models 101, 102, 103, 111, 112, 113"),
        # A map whose last model runs over the end of all addresses.
        ([struct.pack(">HH", 64000, 65000)], "has none of the models"),
    ],
)
def test_a_map_without_our_model_is_told(models: list[bytes], text: str) -> None:
    async def run() -> None:
        async with sunspec_map(40000, common("S-1"), *models).serve() as bus:
            asking = Asking(meter(), bus)
            found = await asking.poll()
            assert {code for _, code in found.values()} == {quality.BAD_CONFIGURATION}
            assert asking.last.error is not None
            assert text in asking.last.error.text

    asyncio.run(run())


def test_the_profiles_addresses_are_those_of_the_definitions() -> None:
    offsets = {
        (103, "active_power"): "W", (103, "energy_export"): "WH", (103, "temperature"): "TmpCab",
        (113, "active_power"): "W", (113, "dc_power"): "DCW", (802, "state_of_charge"): "SoC",
        (802, "active_power"): "W", (701, "energy_export"): "TotWhInj", (701, "energy_import"): "TotWhAbs",
    }  # fmt: skip
    found = {
        (number, point.name): point.address
        for name in ("sunspec-inverter", "sunspec-battery")
        for one in profiles.load(name).models
        for number in one.ids
        for point in one.points
    }
    for (number, name), theirs in offsets.items():
        assert found[number, name] == Model(model_id=number).points[theirs].offset, name


def test_a_meter_made_twice_knows_the_device_of_before() -> None:
    async def run() -> None:
        learned = Learned(None, Faults())
        device = sunspec_map(40000, common("S-1"), model(103, **INVERTER))
        async with device.serve() as bus:
            profile = profiles.load("sunspec-inverter")
            config = MeterConfig("m", "hall", 1, "sunspec-inverter", 1.0)
            await Asking(SunSpecMeter(config, profile, learned), bus).poll()
            place(device, 40000, common("S-2"), model(103, **INVERTER))
            second = Asking(SunSpecMeter(config, profile, learned), bus)
            await second.poll()
            assert second.meter.exchanged

    asyncio.run(run())
