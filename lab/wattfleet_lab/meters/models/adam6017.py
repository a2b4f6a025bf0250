# SPDX-License-Identifier: Apache-2.0
"""Advantech ADAM-6017, eight analogue inputs over Modbus TCP.

Source: Advantech, "ADAM-6000 Series User Manual", edition 9, appendix B.2 (40001 to 40008: channels 0 to 7
as 0 to 65535 over the channel's range; 40201 to 40208: type code of each channel; 40211: module name
0x6017). Type codes 0x0182 (0 to 20 mA) and 0x0148 (0 to 10 V) and the register numbers were checked against
two public drivers of the module (a Python one that reads inputs with function 03 and one that reads type
codes at 200 with function 04). Neither function 08 nor 43.

A 4-20 mA signal comes on the range 0 to 20 mA, so that a broken wire (0 mA) can be told from the low end.
Inputs without a channel in the description read zero. Average, maximum, minimum and status registers are
not simulated.
"""

from typing import ClassVar

from wattfleet_lab.meters.description import Channel, Unit
from wattfleet_lab.meters.models.base import READ_HOLDING, READ_INPUT, UINT16, Block, Field, Image, Model
from wattfleet_lab.meters.site import Values

FULL_SCALE = 65535
_TYPE_CODES = {"4-20mA": 0x0182, "0-10V": 0x0148}


def to_raw(channel: Channel, value: float) -> int:
    """The register for a value in engineering units."""
    part = (value - channel.low) / (channel.high - channel.low)
    signal = (4 + 16 * part) / 20 if channel.signal == "4-20mA" else part
    return min(max(round(signal * FULL_SCALE), 0), FULL_SCALE)


def from_raw(channel: Channel, raw: int) -> float:
    """The value in engineering units of a register."""
    signal = raw / FULL_SCALE
    part = (20 * signal - 4) / 16 if channel.signal == "4-20mA" else signal
    return channel.low + (channel.high - channel.low) * part


class Adam6017(Model):
    """Points are named as the channels are."""

    functions: ClassVar[frozenset[int]] = frozenset({READ_HOLDING, READ_INPUT})
    vendor: ClassVar[str] = "Advantech"
    product: ClassVar[str] = "ADAM-6017"
    revision: ClassVar[str] = "9"

    def __init__(self, unit: Unit) -> None:
        self._channels = {channel.name: channel for channel in unit.channels}
        super().__init__(unit)

    def make_blocks(self) -> list[Block]:
        inputs, types, name = Block(0, 8), Block(200, 8, fill=_TYPE_CODES["4-20mA"]), Block(210, 2)
        for channel in self._channels.values():
            types.set(199 + channel.input, _TYPE_CODES[channel.signal].to_bytes(2, "big"))
        name.set(210, b"\x60\x17\x00\x00")
        return [inputs, types, name]

    def make_fields(self) -> list[Field]:
        return [Field(channel.name, channel.input - 1, UINT16) for channel in self._channels.values()]

    def image(self, values: Values, broken: frozenset[str] = frozenset()) -> Image:
        raw = {
            name: 0 if name in broken else to_raw(channel, values[name])
            for name, channel in self._channels.items()
        }
        return super().image({name: float(number) for name, number in raw.items()})

    def reading(self, point: str, values: Values) -> float:
        channel = self._channels[point]
        return from_raw(channel, to_raw(channel, values[point]))
