# SPDX-License-Identifier: Apache-2.0
"""Carlo Gavazzi EM24-DIN E1 (the Ethernet version), three-phase energy analyser.

Source: Carlo Gavazzi, "EM24_E1 (Ethernet) communication protocol", version 0 revision 1.3 (INT32 low word
first, V x10, A x1000, W x10, kWh x10, Hz x10, PF x1000; functions 03, 04 alike; 06; no
function 43; 08 with sub-function 0 is taken from the maker's protocol documents for its sister models).
Checked against victronenergy/dbus-modbus-client, carlo_gavazzi.py (addresses,
identification code 1648, application register A000h, serial number 5000h) and volkszaehler/mbmd,
meters/rs485/carlogavazzi-em24.go (its table ops_em24_e1). The RS-485 version keeps power factors, frequency
and energies elsewhere and is not this model.

The identification code at 000Bh shares its address with the high word of V L3-L1: it answers to a request
for that one word only. The power factor's sign tells inductive (positive) from capacitive, not the
direction; this site's loads are inductive. Demand, partial and tariff counters (0038h to 003Fh, 0046h to
004Dh) are not simulated and read zero.
"""

from struct import pack
from typing import ClassVar

from wattfleet_lab.meters.description import Unit
from wattfleet_lab.meters.models.base import (
    DIAGNOSTICS,
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    INT16,
    INT32_LOW,
    READ_HOLDING,
    READ_INPUT,
    WRITE_REGISTER,
    Block,
    Field,
    Image,
    ModbusError,
    Model,
    text_option,
)
from wattfleet_lab.meters.site import PHASES, Values

_LINES = ("l1_l2", "l2_l3", "l3_l1")
_IDENTIFICATION = 1648  # EM24DINAV23XE1X
_APPLICATION_H = 7
_TENTH_KWH = 0.01  # register in kWh x10, point in W.h


def _three(point: str, address: int, scale: float, step: float = 0.0) -> list[Field]:
    return [
        Field(f"{point}_{phase}", address + 2 * index, INT32_LOW, scale, step)
        for index, phase in enumerate(PHASES)
    ]


class Em24(Model):
    """Points in the site's view: the meter counts what the site takes as kWh (+)."""

    functions: ClassVar[frozenset[int]] = frozenset({READ_HOLDING, READ_INPUT, WRITE_REGISTER, DIAGNOSTICS})
    max_read: ClassVar[int] = 50
    vendor: ClassVar[str] = "Carlo Gavazzi"
    product: ClassVar[str] = "EM24DINAV23XE1X"
    revision: ClassVar[str] = "1.3"
    default_diagnostics: ClassVar[str] = "loopback"

    def __init__(self, unit: Unit) -> None:
        super().__init__(unit)
        serial = text_option(unit.options, "serial", "BX00001").ljust(7)[:7]
        self._single = {
            0x000B: _IDENTIFICATION,
            0x0302: 0x1003,  # version 1.0.3, one nibble, one nibble, one byte
            0x0304: 0x1003,
            0x1002: 0,  # measuring system: 3P.n
            0xA000: _APPLICATION_H,
            0xA100: 3,  # front selector: locked
        }
        self._serial = b"".join(pack(">H", ord(letter)) for letter in serial)

    def make_blocks(self) -> list[Block]:
        return [Block(0x0000, 0x52)]

    def make_fields(self) -> list[Field]:
        return [
            *_three("voltage", 0x0000, 10),
            *(
                Field(f"voltage_{line}", 0x0006 + 2 * index, INT32_LOW, 10)
                for index, line in enumerate(_LINES)
            ),
            *_three("current", 0x000C, 1000),
            *_three("active_power", 0x0012, 10),
            *_three("apparent_power", 0x0018, 10),
            *_three("reactive_power", 0x001E, 10),
            Field("voltage_ln", 0x0024, INT32_LOW, 10),
            Field("voltage_ll", 0x0026, INT32_LOW, 10),
            Field("active_power", 0x0028, INT32_LOW, 10),
            Field("apparent_power", 0x002A, INT32_LOW, 10),
            Field("reactive_power", 0x002C, INT32_LOW, 10),
            *(
                Field(f"power_factor_{phase}", 0x002E + index, INT16, 1000)
                for index, phase in enumerate(PHASES)
            ),
            Field("power_factor", 0x0031, INT16, 1000),
            Field("frequency", 0x0033, INT16, 10),
            Field("energy_import", 0x0034, INT32_LOW, _TENTH_KWH, 1),
            Field("reactive_energy_import", 0x0036, INT32_LOW, _TENTH_KWH, 1),
            *_three("energy_import", 0x0040, _TENTH_KWH, 1),
            Field("energy_export", 0x004E, INT32_LOW, _TENTH_KWH, 1),
            Field("reactive_energy_export", 0x0050, INT32_LOW, _TENTH_KWH, 1),
        ]

    def prepare(self, values: Values) -> Values:
        more = dict(values)
        more["voltage_ln"] = sum(values[f"voltage_{phase}"] for phase in PHASES) / 3
        more["voltage_ll"] = sum(values[f"voltage_{line}"] for line in _LINES) / 3
        for suffix in ("", *(f"_{phase}" for phase in PHASES)):
            more[f"power_factor{suffix}"] = abs(values[f"power_factor{suffix}"])
        return more

    def read(self, function: int, address: int, count: int, image: Image) -> bytes:
        self.check_count(count)
        if count == 1 and address in self._single:
            return pack(">H", self._single[address])
        if address == 0x5000 and count <= 7:
            return self._serial[: 2 * count]
        return super().read(function, address, count, image)

    def write(self, address: int, data: bytes) -> None:
        value = int.from_bytes(data, "big")
        if address not in (0x1002, 0xA000):
            raise ModbusError(ILLEGAL_ADDRESS)
        if value > (4 if address == 0x1002 else _APPLICATION_H):
            raise ModbusError(ILLEGAL_VALUE)
        self._single[address] = value
