# SPDX-License-Identifier: Apache-2.0
"""A unit on a line: its registers at an instant, its answers to functions, and its diagnostic counters.

Functions by the Modbus Application Protocol V1.1b3; diagnostic counters by its section 6.8 (sub-functions
0x0B to 0x12).
"""

from dataclasses import dataclass, field
from struct import error as struct_error
from struct import pack, unpack_from

from wattfleet_lab.meters.description import Unit
from wattfleet_lab.meters.models import make
from wattfleet_lab.meters.models.base import (
    DIAGNOSTICS,
    ENCAPSULATED,
    ILLEGAL_ADDRESS,
    ILLEGAL_FUNCTION,
    ILLEGAL_VALUE,
    READ_HOLDING,
    READ_INPUT,
    WRITE_REGISTER,
    WRITE_REGISTERS,
    Image,
    ModbusError,
)
from wattfleet_lab.meters.site import Site

_READS = (READ_HOLDING, READ_INPUT)
_CLEAR_COUNTERS = 0x0A
_FIRST_COUNTER = 0x0B


@dataclass
class LineCounters:
    """What every unit on a line hears: frames without and with a communication error."""

    messages: int = 0
    errors: int = 0


@dataclass
class Counters:
    """A unit's diagnostic counters; bus counters are those of its line since the unit's counters were
    cleared.
    """

    line: LineCounters
    cleared: LineCounters = field(default_factory=LineCounters)
    exceptions: int = 0
    messages: int = 0
    silences: int = 0

    def clear(self) -> None:
        self.cleared = LineCounters(self.line.messages, self.line.errors)
        self.exceptions = self.messages = self.silences = 0

    def by_subfunction(self) -> tuple[int, ...]:
        """From 0x0B: bus messages, bus errors, exceptions, messages, no response, NAK, busy, overrun."""
        return (
            self.line.messages - self.cleared.messages,
            self.line.errors - self.cleared.errors,
            self.exceptions,
            self.messages,
            self.silences,
            0,
            0,
            0,
        )


class Device:
    """One simulated unit. `index` is its place in the site's list of meters."""

    def __init__(self, unit: Unit, index: int, site: Site, line: LineCounters) -> None:
        self.unit = unit
        self.index = index
        self.site = site
        self.model = make(unit)
        self.counters = Counters(line)
        self._cached: tuple[float, frozenset[str], Image] | None = None

    def image(self, at: float, broken: frozenset[str]) -> Image:
        """All registers at an instant, computed once for it."""
        if self._cached is None or self._cached[:2] != (at, broken):
            values = self.site.values(self.unit.name, at)
            self._cached = at, broken, self.model.image(values, broken)
        return self._cached[2]

    def answer(self, pdu: bytes, at: float, broken: frozenset[str] = frozenset()) -> bytes:
        """The response PDU. Raises ModbusError with the exception code."""
        function = pdu[0]
        model = self.model
        try:
            if function in _READS and function in model.functions:
                address, count = unpack_from(">HH", pdu, 1)
                data = model.read(function, address, count, self.image(at, broken))
                return bytes((function, len(data))) + data
            if function == WRITE_REGISTER and function in model.functions:
                address = unpack_from(">H", pdu, 1)[0]
                model.write(address, pdu[3:5])
                return pdu[:5]
            if function == WRITE_REGISTERS and function in model.functions:
                address, count, size = unpack_from(">HHB", pdu, 1)
                if size != 2 * count or len(pdu) != 6 + size:
                    raise ModbusError(ILLEGAL_VALUE)
                model.write(address, pdu[6:])
                return pdu[:5]
            if function == DIAGNOSTICS and model.diagnostics != "none":
                return self._diagnose(pdu)
            if function == ENCAPSULATED and model.identification:
                return self._identify(pdu)
        except struct_error as error:  # the request is shorter than its function says
            raise ModbusError(ILLEGAL_VALUE) from error
        raise ModbusError(ILLEGAL_FUNCTION)

    def _diagnose(self, pdu: bytes) -> bytes:
        subfunction = unpack_from(">H", pdu, 1)[0]
        if subfunction == 0:
            return pdu
        if self.model.diagnostics == "counters":
            if subfunction == _CLEAR_COUNTERS:
                self.counters.clear()
                return pdu
            values = self.counters.by_subfunction()
            if 0 <= subfunction - _FIRST_COUNTER < len(values):
                return pdu[:3] + pack(">H", values[subfunction - _FIRST_COUNTER] & 0xFFFF)
        raise ModbusError(ILLEGAL_FUNCTION)

    def _identify(self, pdu: bytes) -> bytes:
        """Function 43/14: basic identification (objects 0 to 2), as a stream or one object."""
        kind, code, wanted = unpack_from(">BBB", pdu, 1)
        if kind != 14:
            raise ModbusError(ILLEGAL_FUNCTION)
        model = self.model
        objects = [text.encode("ascii", "replace") for text in (model.vendor, model.product, model.revision)]
        if code not in (1, 2, 3, 4):
            raise ModbusError(ILLEGAL_VALUE)
        if code == 4:
            if wanted >= len(objects):
                raise ModbusError(ILLEGAL_ADDRESS)
            chosen = [wanted]
        else:
            chosen = list(range(wanted if wanted < len(objects) else 0, len(objects)))
        head = bytes((ENCAPSULATED, 14, code, 0x81, 0, 0, len(chosen)))
        return head + b"".join(bytes((number, len(objects[number]))) + objects[number] for number in chosen)


def request_range(pdu: bytes) -> tuple[int, int]:
    """Address and count of a request for the log: the sub-function for 08, zeros where there is none."""
    function = pdu[0]
    if function in (*_READS, WRITE_REGISTERS) and len(pdu) >= 5:
        address, count = unpack_from(">HH", pdu, 1)
        return int(address), int(count)
    if function in (WRITE_REGISTER, DIAGNOSTICS) and len(pdu) >= 3:
        return int(unpack_from(">H", pdu, 1)[0]), 1
    return 0, 0
