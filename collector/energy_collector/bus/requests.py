# SPDX-License-Identifier: Apache-2.0
"""The requests that we send, built and read with pymodbus's messages; each knows what a right answer looks
like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import (
    ReadCoilsRequest,
    ReadCoilsResponse,
    ReadDiscreteInputsRequest,
    ReadDiscreteInputsResponse,
)
from pymodbus.pdu.mei_message import ReadDeviceInformationRequest, ReadDeviceInformationResponse
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadHoldingRegistersResponse,
    ReadInputRegistersRequest,
    ReadInputRegistersResponse,
)

from energy_collector.bus.errors import BadFrameError

REGISTER_MESSAGES: dict[int, tuple[type[ModbusPDU], type[ModbusPDU]]] = {
    3: (ReadHoldingRegistersRequest, ReadHoldingRegistersResponse),
    4: (ReadInputRegistersRequest, ReadInputRegistersResponse),
}
BIT_MESSAGES: dict[int, tuple[type[ModbusPDU], type[ModbusPDU]]] = {
    1: (ReadCoilsRequest, ReadCoilsResponse),
    2: (ReadDiscreteInputsRequest, ReadDiscreteInputsResponse),
}
OBJECT_NAMES = {
    0: "VendorName",
    1: "ProductCode",
    2: "MajorMinorRevision",
    3: "VendorUrl",
    4: "ProductName",
    5: "ModelName",
    6: "UserApplicationName",
}


class Request(Protocol):
    """A request. Answers are passed as function code and data, without unit id and checksum."""

    @property
    def function(self) -> int:
        """The function code."""

    def encode(self) -> bytes:
        """Function code and data."""

    def answer_size(self, start: bytes, /) -> int | None:
        """The length of the answer that begins with `start`, None while that is too short to tell."""

    def check(self, answer: bytes) -> None:
        """Raise BadFrameError when a whole, sound answer is none to this request."""


@dataclass(frozen=True)
class ReadRegisters:
    """Functions 03 and 04: `count` registers (1 to 125) from `address`."""

    function: int
    address: int
    count: int

    def encode(self) -> bytes:
        """Function code and data."""
        message = REGISTER_MESSAGES[self.function][0](address=self.address, count=self.count)
        return bytes([self.function]) + message.encode()

    def answer_size(self, _start: bytes, /) -> int | None:
        """Function, byte count, and the registers that we asked for: nothing else is an answer to us."""
        return 2 + 2 * self.count

    def check(self, answer: bytes) -> None:
        """The byte count has to be that of the registers asked for."""
        if len(answer) != 2 + 2 * self.count or answer[1] != 2 * self.count:
            raise BadFrameError(
                f"{self.count} registers asked for, {answer[1]} bytes announced, {len(answer) - 2} came"
            )

    def decode(self, answer: bytes) -> list[int]:
        """The registers."""
        message = REGISTER_MESSAGES[self.function][1]()
        message.decode(answer[1:])
        return list(message.registers)


@dataclass(frozen=True)
class ReadBits:
    """Functions 01 and 02: `count` bits (1 to 2000) from `address`."""

    function: int
    address: int
    count: int

    def encode(self) -> bytes:
        """Function code and data."""
        message = BIT_MESSAGES[self.function][0](address=self.address, count=self.count)
        return bytes([self.function]) + message.encode()

    def answer_size(self, _start: bytes, /) -> int | None:
        """Function, byte count, and the bits, eight a byte."""
        return 2 + (self.count + 7) // 8

    def check(self, answer: bytes) -> None:
        """The byte count has to be that of the bits asked for."""
        wanted = (self.count + 7) // 8
        if len(answer) != 2 + wanted or answer[1] != wanted:
            raise BadFrameError(
                f"{self.count} bits asked for, {answer[1]} bytes announced, {len(answer) - 2} came"
            )

    def decode(self, answer: bytes) -> list[bool]:
        """The bits."""
        message = BIT_MESSAGES[self.function][1]()
        message.decode(answer[1:])
        return list(message.bits)[: self.count]


@dataclass(frozen=True)
class Diagnostics:
    """Function 08, with one word of data each way."""

    subfunction: int
    data: int = 0
    function: int = 8

    def encode(self) -> bytes:
        """Function code, subfunction and data. pymodbus has a class for each subfunction; we take any."""
        return bytes([8]) + self.subfunction.to_bytes(2, "big") + self.data.to_bytes(2, "big")

    def answer_size(self, _start: bytes, /) -> int | None:
        """Function, subfunction and one word."""
        return 5

    def check(self, answer: bytes) -> None:
        """The subfunction comes back."""
        if len(answer) != 5 or int.from_bytes(answer[1:3], "big") != self.subfunction:
            raise BadFrameError(f"the answer to diagnostics {self.subfunction} is {answer.hex()}")

    def decode(self, answer: bytes) -> int:
        """The word of data."""
        return int.from_bytes(answer[3:5], "big")


@dataclass(frozen=True)
class Identify:
    """Function 43/14, the basic objects from `first` on."""

    first: int = 0
    function: int = 0x2B

    def encode(self) -> bytes:
        """Function code and data."""
        message = ReadDeviceInformationRequest(read_code=1, object_id=self.first)
        return bytes([self.function]) + message.encode()

    def answer_size(self, start: bytes, /) -> int | None:
        """Seven bytes, then every object with its own length."""
        size = 7
        if len(start) < size:
            return None
        for _ in range(start[6]):
            if len(start) < size + 2:
                return None
            size += 2 + start[size + 1]
        return size

    def check(self, answer: bytes) -> None:
        """Type 14, and objects that fill the answer exactly."""
        if len(answer) < 7 or answer[1] != 0x0E or self.answer_size(answer) != len(answer):
            raise BadFrameError(f"the answer to a device identification is {answer[:16].hex()}")

    def decode(self, answer: bytes) -> dict[str, str]:
        """Texts by object name."""
        message = ReadDeviceInformationResponse()
        message.decode(answer[1:])
        found = {}
        for number, value in message.information.items():
            for data in value if isinstance(value, list) else [value]:
                text = data.decode("utf-8", "replace") if isinstance(data, bytes) else str(data)
                found[OBJECT_NAMES.get(number, f"object_{number}")] = text
        return found

    @staticmethod
    def follows(answer: bytes) -> int:
        """The object that the next request should start with, 0 when this answer was the last."""
        return answer[5] if answer[4] == 0xFF else 0
