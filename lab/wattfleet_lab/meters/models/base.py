# SPDX-License-Identifier: Apache-2.0
"""What all device models share: register tables, their encoding, and the way back to points."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from struct import pack, unpack
from typing import Any, ClassVar

from wattfleet_lab.meters.description import Unit
from wattfleet_lab.meters.site import Values

ILLEGAL_FUNCTION = 1
ILLEGAL_ADDRESS = 2
ILLEGAL_VALUE = 3
GATEWAY_TARGET_FAILED = 0x0B

READ_HOLDING = 3
READ_INPUT = 4
WRITE_REGISTER = 6
DIAGNOSTICS = 8
WRITE_REGISTERS = 16
ENCAPSULATED = 0x2B


class ModbusError(Exception):
    """The device answers with this exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code:#04x}")
        self.code = code


@dataclass(frozen=True)
class Encoding:
    """How a number lies in registers: a struct code, its registers, and whether the low word comes first."""

    code: str
    size: int
    low_word_first: bool = False

    def put(self, number: float) -> bytes:
        if self.code == "f":
            return pack(">f", number)
        bits = 16 * self.size
        whole = round(number)
        if self.code.islower():
            whole = max(-(1 << bits - 1), min((1 << bits - 1) - 1, whole))
        elif self.code == "I":
            whole %= 1 << bits  # counters run over
        else:
            whole = max(0, min((1 << bits) - 1, whole))
        data = pack(f">{self.code}", whole)
        return data[2:] + data[:2] if self.low_word_first else data

    def take(self, data: bytes) -> float:
        if self.low_word_first:
            data = data[2:] + data[:2]
        return float(unpack(f">{self.code}", data)[0])


FLOAT32 = Encoding("f", 2)
INT16 = Encoding("h", 1)
UINT16 = Encoding("H", 1)
UINT32 = Encoding("I", 2)
UINT64 = Encoding("Q", 4)
INT32_LOW = Encoding("i", 2, low_word_first=True)


@dataclass(frozen=True)
class Field:
    """A point in the registers: register = point x scale.

    `step`, where it is not zero, is the counter's resolution in register units: a counter shows what is
    complete.
    """

    point: str
    address: int
    encoding: Encoding
    scale: float = 1.0
    step: float = 0.0

    def put(self, value: float) -> bytes:
        number = value * self.scale
        if self.step:
            # The small addition keeps rounding errors of sums from showing as a counter that steps back.
            number = floor(number / self.step + 1e-6) * self.step
        return self.encoding.put(number)

    def take(self, data: bytes) -> float:
        return self.encoding.take(data) / self.scale + 0.0  # never minus zero


class Block:
    """A range of readable registers with a template for what never changes."""

    def __init__(self, start: int, size: int, fill: int = 0) -> None:
        self.start = start
        self.size = size
        self.template = bytearray(pack(">H", fill) * size)

    def set(self, address: int, data: bytes) -> None:
        offset = 2 * (address - self.start)
        self.template[offset : offset + len(data)] = data

    def holds(self, address: int, count: int = 1) -> bool:
        return self.start <= address and address + count <= self.start + self.size


class Image:
    """All registers of a device at one instant."""

    def __init__(self, blocks: list[tuple[Block, bytearray]]) -> None:
        self._blocks = blocks

    def read(self, address: int, count: int) -> bytes:
        """Register bytes. Raises ModbusError 02 for a range that the device does not have."""
        for block, data in self._blocks:
            if block.holds(address, count):
                offset = 2 * (address - block.start)
                return bytes(data[offset : offset + 2 * count])
        raise ModbusError(ILLEGAL_ADDRESS)


class Model:
    """A device model. Subclasses fill in the tables and override what their product does differently.

    `diagnostics` is what function 08 offers: "none", "loopback" (sub-function 0), "counters" (also 0x0A to
    0x12). The unit's options `diagnostics` and `identification` override what the real product has.
    """

    functions: ClassVar[frozenset[int]] = frozenset({READ_HOLDING, READ_INPUT})
    max_read: ClassVar[int] = 125
    vendor: ClassVar[str] = ""
    product: ClassVar[str] = ""
    revision: ClassVar[str] = ""
    default_diagnostics: ClassVar[str] = "none"
    default_identification: ClassVar[bool] = False

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.diagnostics = str(unit.options.get("diagnostics", self.default_diagnostics))
        self.identification = bool(unit.options.get("identification", self.default_identification))
        self.blocks = self.make_blocks()
        self.fields = [_on_secondary_side(field, unit) for field in self.make_fields()]
        self._points = {field.point: field for field in reversed(self.fields)}
        self._places = [(field, self._block_of(field)) for field in self.fields]

    def make_blocks(self) -> list[Block]:
        raise NotImplementedError

    def make_fields(self) -> list[Field]:
        raise NotImplementedError

    def prepare(self, values: Values) -> Values:
        """Add what this product derives from the quantities of the site."""
        return values

    def _block_of(self, field: Field) -> Block:
        return next(block for block in self.blocks if block.holds(field.address, field.encoding.size))

    def image(self, values: Values, broken: frozenset[str] = frozenset()) -> Image:
        """All registers for these values; `broken` names the channels whose wire is broken."""
        del broken  # only analogue inputs have wires to break
        prepared = self.prepare(values)
        images = {id(block): bytearray(block.template) for block in self.blocks}
        for field, block in self._places:
            data = field.put(prepared[field.point])
            offset = 2 * (field.address - block.start)
            images[id(block)][offset : offset + len(data)] = data
        return Image([(block, images[id(block)]) for block in self.blocks])

    def points(self) -> tuple[str, ...]:
        """Names of the points that can be read from this device."""
        return tuple(self._points)

    def reading(self, point: str, values: Values) -> float:
        """What a perfect reader of the registers gets, on the primary side. Raises KeyError."""
        field = self._points[point]
        return field.take(field.put(self.prepare(values)[point]))

    def read(self, function: int, address: int, count: int, image: Image) -> bytes:
        """Answer functions 03 and 04. Raises ModbusError."""
        del function  # most products give the same registers with both
        self.check_count(count)
        return image.read(address, count)

    def check_count(self, count: int) -> None:
        if not 1 <= count <= self.max_read:
            raise ModbusError(ILLEGAL_VALUE)

    def write(self, address: int, data: bytes) -> None:
        """Answer functions 06 and 16. Raises ModbusError."""
        del address, data  # a product without writable registers refuses them all
        raise ModbusError(ILLEGAL_ADDRESS)


def _on_secondary_side(field: Field, unit: Unit) -> Field:
    """A device that is not programmed with its transformers' ratios shows what their secondary sides give."""
    ratio = transformer_ratio(field.point, unit)
    if ratio == 1:
        return field
    return Field(field.point, field.address, field.encoding, field.scale / ratio, field.step)


def transformer_ratio(point: str, unit: Unit) -> float:
    """Primary over secondary for a point of a unit."""
    if point.startswith("voltage"):
        return unit.pt
    if point.startswith("current"):
        return unit.ct
    if "power" in point.removeprefix("power_factor") or "energy" in point:
        return unit.ct * unit.pt
    return 1.0


def text_registers(text: str, size: int) -> bytes:
    """ASCII, padded with zeros, two characters a register."""
    return text.encode("ascii", "replace")[: 2 * size].ljust(2 * size, b"\0")


def text_option(options: Mapping[str, Any], name: str, default: str) -> str:
    return str(options.get(name, default))
