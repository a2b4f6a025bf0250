# SPDX-License-Identifier: Apache-2.0
"""Frames on the line: Modbus TCP (MBAP) and RTU, strictly checked.

`take` looks at what has arrived so far. It returns an exchange and its answer (function code and data), or None
while more has to come, and raises BadFrameError for bytes that can never become an answer.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU

from energy_collector.bus.errors import BadFrameError
from energy_collector.bus.requests import Request
from energy_collector.bus.unit import Unit

MBAP_SIZE = 7
MAX_PDU = 253
EXCEPTION_SIZE = 2
_DECODER = DecodePDU(False)
# Probes may ask for anything; polls ask for the same things for ever, and these are kept.
MAX_CACHED = 1024


class Exchange:
    """A request under way. `answer` gets its data, or the error."""

    __slots__ = ("answer", "deadline", "request", "sent", "transaction", "unit")

    def __init__(self, unit: Unit, request: Request, transaction: int, answer: asyncio.Future[bytes]) -> None:
        self.unit = unit
        self.request = request
        self.transaction = transaction
        self.answer = answer
        self.sent = 0.0
        self.deadline = 0.0


Taken = tuple[Exchange, bytes]


class Framing(ABC):
    """One of the two ways to wrap a message. `flight` are the exchanges under way, by transaction."""

    def __init__(self) -> None:
        self._cache: dict[tuple[int, Request], bytes] = {}

    @abstractmethod
    def transaction(self) -> int:
        """The number of the next exchange."""

    @abstractmethod
    def encode(self, unit: int, request: Request, transaction: int) -> bytes:
        """The frame of a request."""

    @abstractmethod
    def take(self, buffer: bytearray, flight: Mapping[int, Exchange]) -> Taken | None:
        """The next answer, taken off `buffer`, with the exchange that it belongs to."""

    def _remember(self, key: tuple[int, Request], frame: bytes) -> bytes:
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        self._cache[key] = frame
        return frame


class TcpFraming(Framing):
    """Modbus TCP. Answers to exchanges that are not under way any more are told to `on_stale` by their
    transaction, and dropped."""

    def __init__(self, on_stale: Callable[[int, bytes], None]) -> None:
        super().__init__()
        self._framer = FramerSocket(_DECODER)
        self._transaction = 0
        self._on_stale = on_stale

    def transaction(self) -> int:
        """0 is left out, since some devices answer with it when they know no other."""
        self._transaction = self._transaction % 0xFFFF + 1
        return self._transaction

    def encode(self, unit: int, request: Request, transaction: int) -> bytes:
        """The transaction's number, then what is the same each time."""
        key = (unit, request)
        rest = self._cache.get(key)
        if rest is None:
            rest = self._remember(key, self._framer.encode(request.encode(), unit, 0)[2:])
        return transaction.to_bytes(2, "big") + rest

    def take(self, buffer: bytearray, flight: Mapping[int, Exchange]) -> Taken | None:
        """The next answer to any of the exchanges under way, in whatever order they come."""
        while len(buffer) >= MBAP_SIZE:
            length = buffer[4] << 8 | buffer[5]
            if buffer[2] or buffer[3] or not 3 <= length <= MAX_PDU + 1:
                raise BadFrameError(f"{bytes(buffer[:MBAP_SIZE]).hex()} is no Modbus TCP header")
            end = 6 + length
            if len(buffer) < end:
                return None
            transaction, sender = buffer[0] << 8 | buffer[1], buffer[6]
            answer = bytes(buffer[MBAP_SIZE:end])
            del buffer[:end]
            exchange = flight.get(transaction)
            if exchange is None:
                self._on_stale(transaction, answer)
                continue
            try:
                _check_sender(sender, exchange.unit.number)
                _check(answer, exchange.request)
            except BadFrameError as error:
                error.transaction = transaction
                raise
            return exchange, answer
        return None


class RtuFraming(Framing):
    """Modbus RTU, on a serial line or through a TCP connection: one exchange at a time.

    An answer has no number. What tells a late one from the one that is waited for is its unit: as long as the
    late answer of a unit may still come, that unit is not asked anything (see `Bus`), so a whole frame of it,
    of the form that its lost request asks for and with a right CRC, can be nothing else. It is told to
    `on_stale` and dropped. `late` finds a unit that owes us an answer.
    """

    def __init__(self, late: Callable[[int], Unit | None], on_stale: Callable[[Unit], None]) -> None:
        super().__init__()
        self._framer = FramerRTU(_DECODER)
        self._late = late
        self._on_stale = on_stale

    def transaction(self) -> int:
        """There is none."""
        return 0

    def encode(self, unit: int, request: Request, _transaction: int) -> bytes:
        """Unit id, message, CRC-16."""
        key = (unit, request)
        frame = self._cache.get(key)
        if frame is None:
            frame = self._remember(key, self._framer.encode(request.encode(), unit, 0))
        return frame

    def take(self, buffer: bytearray, flight: Mapping[int, Exchange]) -> Taken | None:
        """The answer of the unit asked, to this function, of the length asked for, with a right checksum, and
        nothing after it but what may become a late answer of another unit."""
        exchange = flight.get(0)
        while len(buffer) >= 2:
            if exchange is not None and buffer[0] == exchange.unit.number:
                size = _frame_size(buffer, exchange.request)
                if size is None or len(buffer) < size:
                    return None
                try:
                    answer = _cut(buffer, size)
                except BadFrameError as error:
                    error.is_whole = True
                    raise
                if buffer and self._late(buffer[0]) is None:
                    raise BadFrameError(f"{len(buffer)} bytes follow the answer")
                _check(answer, exchange.request)
                return exchange, answer
            unit = self._late(buffer[0])
            if unit is None or unit.late is None:
                asked = f"unit {exchange.unit.number}" if exchange is not None else "nobody"
                raise BadFrameError(f"{asked} was asked, {buffer[0]} answers")
            size = _frame_size(buffer, unit.late)
            if size is None or len(buffer) < size:
                return None
            _check(_cut(buffer, size), unit.late)
            self._on_stale(unit)
        return None


def _frame_size(buffer: bytearray, request: Request) -> int | None:
    """How long the frame in `buffer` is; None while that cannot be told."""
    # The CRC comes last: a frame of the wrong function is as wrong with a right one.
    if buffer[1] & 0x7F != request.function:
        raise BadFrameError(f"function {request.function} was asked for, {buffer[1] & 0x7F} answers")
    size = EXCEPTION_SIZE if buffer[1] & 0x80 else request.answer_size(bytes(buffer[1:]))
    return None if size is None else size + 3


def _cut(buffer: bytearray, size: int) -> bytes:
    """Take a frame off; its answer without unit id and checksum."""
    frame = bytes(buffer[:size])
    del buffer[:size]
    if not FramerRTU.check_CRC(frame[:-2], int.from_bytes(frame[-2:], "big")):
        raise BadFrameError(f"checksum of {frame[:8].hex()}… is wrong", crc=True)
    return frame[1:-2]


def _check_sender(sender: int, asked: int) -> None:
    if sender != asked:
        raise BadFrameError(f"unit {asked} was asked, {sender} answers")


def _check(answer: bytes, request: Request) -> None:
    if answer[0] == request.function | 0x80:
        if len(answer) != EXCEPTION_SIZE:
            raise BadFrameError(f"an exception of {len(answer)} bytes")
    elif answer[0] != request.function:
        raise BadFrameError(f"function {request.function} was asked for, {answer[0]} answers")
    else:
        request.check(answer)
