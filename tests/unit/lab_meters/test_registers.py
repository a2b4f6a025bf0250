# SPDX-License-Identifier: Apache-2.0
"""Each model's registers, read with pymodbus and pysunspec2 and decoded here, against the truth."""

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from pymodbus import FramerType
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusIOException
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP  # type: ignore[import-untyped]  # it ships no types
from wattfleet_lab.meters import truth

from .conftest import CHANNELS, Simulator


@pytest.fixture
def tcp(simulator: Simulator) -> Iterator[ModbusTcpClient]:
    with ModbusTcpClient("127.0.1.1", port=simulator.port("127.0.1.1"), retries=0) as client:
        yield client


@pytest.fixture
def rtu(simulator: Simulator) -> Iterator[ModbusTcpClient]:
    port = simulator.port("127.0.1.2")
    with ModbusTcpClient("127.0.1.2", port=port, framer=FramerType.RTU, retries=0) as client:
        yield client


def asked(answer: object) -> Any:
    """An answer whose class pymodbus does not name in its types."""
    return answer


def last_time(simulator: Simulator, meter: str) -> float:
    """The instant for which the last answer of a meter was computed."""
    return next(float(row[1]) for row in reversed(simulator.answers()) if row[3] == meter)


def floats(registers: Sequence[int]) -> list[float]:
    return list(struct.unpack(f">{len(registers) // 2}f", struct.pack(f">{len(registers)}H", *registers)))


def low_first(registers: list[int]) -> int:
    return int(struct.unpack(">i", struct.pack(">HH", registers[1], registers[0]))[0])


def expect(simulator: Simulator, meter: str, found: dict[str, float], **tolerance: Any) -> None:
    at = last_time(simulator, meter)
    for point, value in found.items():
        wanted = truth.reading(simulator.description, "plant-a", meter, point, at)
        assert value == pytest.approx(wanted, rel=1e-9, abs=1e-9), point
    exact = truth.exact(simulator.description, "plant-a", meter, at)
    for point, allowed in tolerance.items():
        assert found[point] == pytest.approx(exact[point], abs=allowed), point


def test_sdm630(simulator: Simulator, tcp: ModbusTcpClient) -> None:
    values = floats(tcp.read_input_registers(0, count=80, device_id=1).registers)
    places = {
        "voltage_l1": 0,
        "voltage_l3": 2,
        "current_l1": 3,
        "current_l2": 4,
        "active_power_l1": 6,
        "apparent_power_l2": 10,
        "reactive_power_l3": 14,
        "power_factor_l1": 15,
        "active_power": 26,
        "apparent_power": 28,
        "reactive_power": 30,
        "power_factor": 31,
        "frequency": 35,
    }
    found = {point: values[index] for point, index in places.items()}
    kwh = {
        "energy_import": 36,
        "energy_export": 37,
        "reactive_energy_import": 38,
        "reactive_energy_export": 39,
    }
    found |= {point: values[index] * 1000 for point, index in kwh.items()}
    # W.h: a half of what single precision tells apart from 131,072 to 262,144 kWh, and one that is not complete yet.
    most = 0.5 * 2**-6 * 1000 + 1
    expect(
        simulator, "main", found, active_power=0.02, voltage_l1=1e-4, energy_import=most, energy_export=most
    )
    lines = floats(tcp.read_input_registers(0xC8, count=6, device_id=1).registers)
    expect(
        simulator, "main", dict(zip(("voltage_l1_l2", "voltage_l2_l3", "voltage_l3_l1"), lines, strict=True))
    )
    parts = floats(tcp.read_input_registers(0x15A, count=6, device_id=1).registers)
    expect(simulator, "main", {f"energy_import_l{n + 1}": value * 1000 for n, value in enumerate(parts)})


def test_sdm630_behind_a_current_transformer(simulator: Simulator, rtu: ModbusTcpClient) -> None:
    """A meter that is not programmed with 200:5 shows a fortieth; the truth is what is multiplied back."""
    values = floats(rtu.read_input_registers(0, count=80, device_id=12).registers)
    found = {"current_l1": values[3] * 40, "active_power": values[26] * 40, "voltage_l1": values[0]}
    found["energy_import"] = values[36] * 1000 * 40
    expect(simulator, "oven", found, active_power=0.02, energy_import=80)


def test_sdm630_holding_registers(tcp: ModbusTcpClient) -> None:
    assert floats(tcp.read_holding_registers(0x0014, count=2, device_id=1).registers) == [1]
    assert floats(tcp.read_holding_registers(0x000C, count=2, device_id=1).registers) == [100]
    write = list(struct.unpack(">HH", struct.pack(">f", 200)))
    assert not tcp.write_registers(0x000C, write, device_id=1).isError()
    assert floats(tcp.read_holding_registers(0x000C, count=2, device_id=1).registers) == [200]
    refused = list(struct.unpack(">HH", struct.pack(">f", 150)))
    assert tcp.write_registers(0x000C, refused, device_id=1).exception_code == 3
    assert tcp.write_register(0x000C, 1, device_id=1).exception_code == 1
    assert tcp.read_holding_registers(0xFC00, count=2, device_id=1).registers == [0x0131, 0x2D00]


@pytest.mark.parametrize(
    ("address", "count", "code"),
    [(0x0001, 2, 2), (0x0000, 3, 2), (0x0000, 82, 3), (0x0080, 2, 2), (0x0180, 2, 2)],
)
def test_sdm630_refuses(tcp: ModbusTcpClient, address: int, count: int, code: int) -> None:
    assert tcp.read_input_registers(address, count=count, device_id=1).exception_code == code


@pytest.mark.parametrize("function", ["read_input_registers", "read_holding_registers"])
def test_em24(simulator: Simulator, tcp: ModbusTcpClient, function: str) -> None:
    registers = getattr(tcp, function)(0, count=50, device_id=2).registers
    places = {
        "voltage_l1": (0x00, 10),
        "voltage_l3_l1": (0x0A, 10),
        "current_l2": (0x0E, 1000),
        "active_power_l1": (0x12, 10),
        "apparent_power_l1": (0x18, 10),
        "reactive_power_l1": (0x1E, 10),
        "active_power": (0x28, 10),
        "apparent_power": (0x2A, 10),
        "reactive_power": (0x2C, 10),
    }
    found = {
        point: low_first(registers[address : address + 2]) / scale
        for point, (address, scale) in places.items()
    }
    found["power_factor"] = registers[0x31] / 1000
    expect(simulator, "hall", found, active_power=0.051, current_l2=0.00051, power_factor=0.00051)
    registers = getattr(tcp, function)(0x33, count=0x1F, device_id=2).registers
    found = {"frequency": registers[0] / 10, "energy_import": low_first(registers[1:3]) * 100.0}
    found |= {
        "reactive_energy_import": low_first(registers[3:5]) * 100.0,
        "energy_export": low_first(registers[0x1B:0x1D]) * 100.0,
    }
    expect(simulator, "hall", found, energy_import=100)


def test_em24_identity_and_settings(tcp: ModbusTcpClient) -> None:
    assert tcp.read_holding_registers(0x000B, count=1, device_id=2).registers == [1648]
    assert tcp.read_holding_registers(0x5000, count=7, device_id=2).registers == [ord(c) for c in "BX00001"]
    assert tcp.read_holding_registers(0xA000, count=1, device_id=2).registers == [7]
    assert not tcp.write_register(0x1002, 0, device_id=2).isError()
    assert tcp.write_register(0x1002, 9, device_id=2).exception_code == 3
    assert tcp.read_holding_registers(0x0060, count=2, device_id=2).exception_code == 2


def test_sunspec_inverter(simulator: Simulator) -> None:
    device = SunSpecModbusClientDeviceTCP(3, "127.0.1.1", simulator.port("127.0.1.1"), timeout=5)
    device.scan()
    assert [number for number in device.models if isinstance(number, int)] == [1, 103]
    assert device.common[0].Mn.cvalue == "Wattfleet"
    model = device.models[103][0]
    model.read()
    device.close()
    found = {
        "active_power": -model.W.cvalue,
        "energy_export": model.WH.cvalue,
        "frequency": model.Hz.cvalue,
        "voltage_l2": model.PhVphB.cvalue,
        "current_l3": model.AphC.cvalue,
        "apparent_power": model.VA.cvalue,
        "power_factor": -model.PF.cvalue / 100,
        "dc_voltage": model.DCV.cvalue,
        "temperature": model.TmpCab.cvalue,
        "voltage_l1_l2": model.PPVphAB.cvalue,
    }
    expect(simulator, "roof", found, active_power=5.001, energy_export=1, voltage_l2=0.051, temperature=0.051)
    assert model.St.cvalue in (2, 4)


def test_sunspec_battery(simulator: Simulator) -> None:
    device = SunSpecModbusClientDeviceTCP(4, "127.0.1.1", simulator.port("127.0.1.1"), timeout=5)
    device.scan()
    assert [number for number in device.models if isinstance(number, int)] == [1, 802, 713, 701]
    bank, storage, ac = (device.models[number][0] for number in (802, 713, 701))
    bank.read()
    found = {"state_of_charge": bank.SoC.cvalue, "active_power": -bank.W.cvalue, "dc_voltage": bank.V.cvalue}
    expect(simulator, "battery", found, state_of_charge=0.051, active_power=5.001)
    ac.read()
    expect(simulator, "battery", {"energy_import": ac.TotWhAbs.cvalue, "energy_export": ac.TotWhInj.cvalue})
    device.close()
    assert storage.WHRtg.cvalue == bank.WHRtg.cvalue == 200_000
    assert bank.ChaSt.cvalue in (2, 3, 4, 5, 6)


@pytest.mark.parametrize("function", ["read_input_registers", "read_holding_registers"])
def test_adam6017(simulator: Simulator, function: str) -> None:
    with ModbusTcpClient("127.0.1.3", port=simulator.port("127.0.1.3")) as client:
        codes = getattr(client, function)(200, count=8).registers
        assert getattr(client, function)(210, count=1).registers == [0x6017]
        # Last, since the truth is that of the last answer: a flow moves while a busy machine waits between two.
        raw = getattr(client, function)(0, count=8).registers
    assert raw[1] == raw[3] == 0
    assert (codes[0], codes[7]) == (0x0182, 0x0148)
    found = {
        "flow": (raw[0] / 65535 * 20 - 4) / 16 * 50,
        "flow-temperature": (raw[2] / 65535 * 20 - 4) / 16 * 150,
        "pressure": raw[7] / 65535 * 10,
    }
    assert found.keys() == CHANNELS.keys()
    expect(simulator, "io", found, flow=0.001)


def test_all_points_have_a_truth(simulator: Simulator) -> None:
    for meter in ("main", "hall", "roof", "battery", "press", "oven", "io"):
        readings = truth.readings(simulator.description, "plant-a", meter, 1783000000.0)
        assert readings
        assert all(value == value for value in readings.values())


def test_unknown_unit_on_tcp(tcp: ModbusTcpClient) -> None:
    assert tcp.read_input_registers(0, count=2, device_id=99).exception_code == 0x0B


def test_unknown_unit_on_rtu_is_silent(simulator: Simulator) -> None:
    port = simulator.port("127.0.1.2")
    with (
        ModbusTcpClient("127.0.1.2", port=port, framer=FramerType.RTU, retries=0, timeout=0.3) as client,
        pytest.raises(ModbusIOException),
    ):
        client.read_input_registers(0, count=2, device_id=99)
    assert simulator.answers()[-1][3:] == [None, 99, 4, 0, 2, "silent"]


def test_diagnostics(tcp: ModbusTcpClient, rtu: ModbusTcpClient) -> None:
    assert asked(rtu.diag_query_data(b"\x12\x34", device_id=11)).message == b"\x12\x34"
    rtu.diag_clear_counters(device_id=11)
    rtu.read_input_registers(0, count=2, device_id=11)
    rtu.read_input_registers(1, count=2, device_id=11)
    assert asked(rtu.diag_read_bus_message_count(device_id=11)).message == 3
    assert asked(rtu.diag_read_bus_comm_error_count(device_id=11)).message == 0
    assert asked(rtu.diag_read_bus_exception_error_count(device_id=11)).message == 1
    assert asked(rtu.diag_read_device_message_count(device_id=11)).message >= 5
    # As published: the SDM630 and the EM24 have the loop-back only, SunSpec devices not even that.
    assert rtu.diag_read_bus_message_count(device_id=12).exception_code == 1
    assert asked(tcp.diag_query_data(b"ab", device_id=2)).message == b"ab"
    assert tcp.diag_query_data(b"ab", device_id=3).exception_code == 1


def test_identification(tcp: ModbusTcpClient) -> None:
    answer = tcp.read_device_information(read_code=1, device_id=3)
    assert asked(answer).information == {0: b"Wattfleet", 1: b"simulated inverter", 2: b"1.0"}
    assert asked(tcp.read_device_information(read_code=4, object_id=1, device_id=4)).information == {
        1: b"simulated battery"
    }
    assert tcp.read_device_information(read_code=1, device_id=1).exception_code == 1


def test_totals(simulator: Simulator) -> None:
    answer = simulator.ask(op="totals", at="2026-07-11T10:00:00Z")
    assert answer["ok"]
    assert answer["sites"] == truth.totals(simulator.description, 1783764000.0)
    meters = answer["sites"]["plant-a"]
    subs = sum(meters[name]["active_power"] for name in ("hall", "press", "oven", "roof", "battery"))
    assert meters["main"]["active_power"] == pytest.approx(subs)
    assert meters["roof"]["active_power"] < 0 == meters["roof"]["energy_import"]
    assert "state_of_charge" in meters["battery"]
    assert not simulator.ask(op="totals", at="2020-01-01T00:00:00Z")["ok"]
    assert simulator.ask(op="totals")["ok"]
