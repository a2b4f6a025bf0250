# SPDX-License-Identifier: Apache-2.0
"""Eastron SDM630-Modbus V2, three-phase meter.

Source: Eastron, "SDM630Modbus Smart Meter Modbus Protocol Implementation" V1.8, section 1.2.1 (input
registers, function 04, IEEE 754 single precision, high word first), 1.3.1 (holding registers, functions 03
and 16, one parameter a message), 3.11 (exception codes) and 3.12 (function 08: sub-function 0 only; no
function 43). Checked against volkszaehler/mbmd, meters/rs485/sdm.go, and nmakel/sdm_modbus,
src/sdm_modbus/sdm.py.

What the document says and this model does: a request takes at most 40 parameters; an odd address or an odd
count would split a float and gets exception 02; gaps between parameters read zero; the power factor has the
sign of the current's direction. Maximum demands, VAh and Ah are not simulated and read zero.
"""

from struct import pack, unpack
from typing import ClassVar

from wattfleet_lab.meters.description import Unit
from wattfleet_lab.meters.models.base import (
    DIAGNOSTICS,
    FLOAT32,
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    READ_HOLDING,
    READ_INPUT,
    WRITE_REGISTERS,
    Block,
    Field,
    Image,
    ModbusError,
    Model,
)
from wattfleet_lab.meters.site import PHASES, Values

_LINES = ("l1_l2", "l2_l3", "l3_l1")
_KWH = 0.001  # register in kWh or kvarh, point in W.h or var.h

# Holding registers: address, value at delivery, values that may be written.
_HOLDING: dict[int, tuple[float, tuple[float, ...]]] = {
    0x0002: (60, (0, 5, 8, 10, 15, 20, 30, 60)),  # demand period, min
    0x000A: (3, ()),  # system type: 3 is 3p4w; protected by the password
    0x000C: (100, (60, 100, 200)),  # pulse 1 width, ms
    0x000E: (0, ()),  # password lock: 0 is locked
    0x0012: (0, (0, 1, 2, 3)),  # parity and stop bits: 0 is N and 1
    0x0014: (1, tuple(range(1, 248))),  # network node; takes effect after a restart
    0x0016: (0, (0, 1, 2, 3, 4, 5)),  # pulse 1 divisor
    0x0018: (0, (0,)),  # password
    0x001C: (2, (0, 1, 2, 3, 4)),  # baud rate: 2 is 9600
    0x0056: (4, (1, 2, 4, 5, 6, 8)),  # pulse 1 energy type
}
_SERIAL = 0xFC00


def _three(point: str, address: int, scale: float = 1.0, step: float = 0.0) -> list[Field]:
    return [
        Field(f"{point}_{phase}", address + 2 * index, FLOAT32, scale, step)
        for index, phase in enumerate(PHASES)
    ]


class Sdm630(Model):
    """Points in the site's view: the meter counts what the site takes as import."""

    functions: ClassVar[frozenset[int]] = frozenset({READ_HOLDING, READ_INPUT, DIAGNOSTICS, WRITE_REGISTERS})
    max_read: ClassVar[int] = 80
    vendor: ClassVar[str] = "Eastron"
    product: ClassVar[str] = "SDM630-Modbus V2"
    revision: ClassVar[str] = "1.8"
    default_diagnostics: ClassVar[str] = "loopback"

    def __init__(self, unit: Unit) -> None:
        super().__init__(unit)
        self.holding = {address: value for address, (value, _) in _HOLDING.items()}
        self.holding[0x0014] = float(unit.unit)
        self._serial = int(str(unit.options.get("serial", "20000000")).strip() or "0") & 0xFFFFFFFF

    def make_blocks(self) -> list[Block]:
        return [Block(0x0000, 0x6C), Block(0x00C8, 0x46), Block(0x014E, 0x30)]

    def make_fields(self) -> list[Field]:
        return [
            *_three("voltage", 0x0000),
            *_three("current", 0x0006),
            *_three("active_power", 0x000C),
            *_three("apparent_power", 0x0012),
            *_three("reactive_power", 0x0018),
            *_three("power_factor", 0x001E),
            *_three("phase_angle", 0x0024),
            Field("voltage_ln", 0x002A, FLOAT32),
            Field("current_average", 0x002E, FLOAT32),
            Field("current_sum", 0x0030, FLOAT32),
            Field("active_power", 0x0034, FLOAT32),
            Field("apparent_power", 0x0038, FLOAT32),
            Field("reactive_power", 0x003C, FLOAT32),
            Field("power_factor", 0x003E, FLOAT32),
            Field("phase_angle", 0x0042, FLOAT32),
            Field("frequency", 0x0046, FLOAT32),
            Field("energy_import", 0x0048, FLOAT32, _KWH, 0.001),
            Field("energy_export", 0x004A, FLOAT32, _KWH, 0.001),
            Field("reactive_energy_import", 0x004C, FLOAT32, _KWH, 0.001),
            Field("reactive_energy_export", 0x004E, FLOAT32, _KWH, 0.001),
            *(Field(f"voltage_{line}", 0x00C8 + 2 * index, FLOAT32) for index, line in enumerate(_LINES)),
            Field("voltage_ll", 0x00CE, FLOAT32),
            Field("current_n", 0x00E0, FLOAT32),
            Field("energy_sum", 0x0156, FLOAT32, _KWH, 0.001),
            Field("reactive_energy_sum", 0x0158, FLOAT32, _KWH, 0.001),
            *_three("energy_import", 0x015A, _KWH, 0.001),
            *_three("energy_export", 0x0160, _KWH, 0.001),
            *_three("energy_sum", 0x0166, _KWH, 0.001),
            *_three("reactive_energy_import", 0x016C, _KWH, 0.001),
            *_three("reactive_energy_sum", 0x0178, _KWH, 0.001),
        ]

    def prepare(self, values: Values) -> Values:
        more = dict(values)
        more["voltage_ln"] = sum(values[f"voltage_{phase}"] for phase in PHASES) / 3
        more["voltage_ll"] = sum(values[f"voltage_{line}"] for line in _LINES) / 3
        more["current_sum"] = sum(values[f"current_{phase}"] for phase in PHASES)
        more["current_average"] = more["current_sum"] / 3
        for suffix in ("", *(f"_{phase}" for phase in PHASES)):
            more[f"energy_sum{suffix}"] = values[f"energy_import{suffix}"] + values[f"energy_export{suffix}"]
            more[f"reactive_energy_sum{suffix}"] = values[f"reactive_energy_import{suffix}"]
        return more

    def read(self, function: int, address: int, count: int, image: Image) -> bytes:
        self.check_count(count)
        if address % 2 or count % 2:
            raise ModbusError(ILLEGAL_ADDRESS)
        if function == READ_INPUT:
            return image.read(address, count)
        if address == _SERIAL and count == 2:
            return pack(">I", self._serial)
        addresses = range(address, address + count, 2)
        if not any(here in self.holding for here in addresses) or addresses[-1] > max(self.holding):
            raise ModbusError(ILLEGAL_ADDRESS)
        return b"".join(pack(">f", self.holding.get(here, 0.0)) for here in addresses)

    def write(self, address: int, data: bytes) -> None:
        if len(data) != 4 or address not in self.holding:
            raise ModbusError(ILLEGAL_ADDRESS)
        value = float(unpack(">f", data)[0])
        if value not in _HOLDING[address][1]:
            raise ModbusError(ILLEGAL_VALUE)
        self.holding[address] = value
