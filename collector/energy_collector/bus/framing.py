# SPDX-License-Identifier: Apache-2.0
"""Frames on the line: Modbus TCP (MBAP) and RTU, strictly checked.

`take` looks at what has arrived so far. It returns the answer (function code and data), or None while more
has to come, and raises BadFrameError for bytes that can never become an answer to the request.
"""

from __future__ import annotations

from typing import Protocol

from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU

from energy_collector.bus.errors import BadFrameError
from energy_collector.bus.requests import Request

MBAP_SIZE = 7
MAX_PDU = 253
_DECODER = DecodePDU(False)


class Framing(Protocol):
    """One of the two ways to wrap a message."""

    # Whether a late answer can be told from the answer to the next request.
    has_transactions: bool

    def encode(self, unit: int, message: bytes) -> bytes:
        """The frame of a new request."""

    def take(self, buffer: bytearray, unit: int, request: Request) -> bytes | None:
        """The answer to the newest request, taken off `buffer`."""


class TcpFraming:
    """Modbus TCP. Answers to older requests are dropped and counted in `stale`."""

    has_transactions = True

    def __init__(self) -> None:
        self._framer = FramerSocket(_DECODER)
        self._transaction = 0
        self.stale = 0

    def encode(self, unit: int, message: bytes) -> bytes:
        """The frame of a new request; 0 is left out, since some devices answer with it when they know no
        other."""
        self._transaction = self._transaction % 0xFFFF + 1
        return self._framer.encode(message, unit, self._transaction)

    def take(self, buffer: bytearray, unit: int, request: Request) -> bytes | None:
        """The answer with our transaction id."""
        while len(buffer) >= MBAP_SIZE:
            length = int.from_bytes(buffer[4:6], "big")
            if buffer[2:4] != b"\0\0" or not 3 <= length <= MAX_PDU + 1:
                raise BadFrameError(f"{bytes(buffer[:MBAP_SIZE]).hex()} is no Modbus TCP header")
            if len(buffer) < 6 + length:
                return None
            transaction, sender = int.from_bytes(buffer[:2], "big"), buffer[6]
            answer = bytes(buffer[MBAP_SIZE : 6 + length])
            del buffer[: 6 + length]
            if transaction != self._transaction:
                self.stale += 1
                continue
            if sender != unit:
                raise BadFrameError(f"unit {unit} was asked, unit {sender} answers")
            _check(answer, request)
            return answer
        return None


class RtuFraming:
    """Modbus RTU, on a serial line or through a TCP connection."""

    has_transactions = False

    def __init__(self) -> None:
        self._framer = FramerRTU(_DECODER)

    def encode(self, unit: int, message: bytes) -> bytes:
        """Unit id, message, CRC-16."""
        return self._framer.encode(message, unit, 0)

    def take(self, buffer: bytearray, unit: int, request: Request) -> bytes | None:
        """The answer of `unit` to this function, of the length asked for, with a right checksum, and
        nothing after it."""
        if len(buffer) < 2:
            return None
        # The CRC comes last: a frame of the wrong sender or function is as wrong with a right one.
        if buffer[0] != unit:
            raise BadFrameError(f"unit {unit} was asked, {buffer[0]} answers")
        if buffer[1] & 0x7F != request.function:
            raise BadFrameError(f"function {request.function} was asked for, {buffer[1] & 0x7F} answers")
        size = 2 if buffer[1] & 0x80 else request.answer_size(bytes(buffer[1:]))
        if size is None or len(buffer) < 1 + size + 2:
            return None
        frame = bytes(buffer[: 1 + size + 2])
        rest = len(buffer) - len(frame)
        buffer.clear()
        if not FramerRTU.check_CRC(frame[:-2], int.from_bytes(frame[-2:], "big")):
            raise BadFrameError(f"checksum of {frame[:8].hex()}… is wrong", crc=True)
        if rest:
            raise BadFrameError(f"{rest} bytes follow the answer")
        answer = frame[1:-2]
        _check(answer, request)
        return answer


def _check(answer: bytes, request: Request) -> None:
    if answer[0] == request.function | 0x80:
        if len(answer) != 2:
            raise BadFrameError(f"an exception of {len(answer)} bytes")
    elif answer[0] != request.function:
        raise BadFrameError(f"function {request.function} was asked for, {answer[0]} answers")
    else:
        request.check(answer)
