# SPDX-License-Identifier: Apache-2.0
"""Modbus TCP meters that log every request they answered, with the value they gave.

Every answer of a unit carries the next number of that unit as float32 in all of its registers: plain in the counters of
energy, which ascend, and scattered over 24 bits in all others, so that a batch weighs what one of a restless site does.
So each reading in the database names the answer it comes from, whatever its time says, and both ends can be counted
exactly.
The points are those of the Eastron SDM630 (SDM630Modbus Smart Meter Modbus Protocol Implementation V1.8, section 1.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import threading
import time
from typing import NamedTuple

from tests.fault.rig.process import wait_for

PROFILE = "eastron-sdm630"
# Point: address of its two registers. Energies come in kWh and are stored in W.h.
ADDRESSES = {
    "voltage_l1": 0x0000,
    "voltage_l2": 0x0002,
    "voltage_l3": 0x0004,
    "current_l1": 0x0006,
    "current_l2": 0x0008,
    "current_l3": 0x000A,
    "active_power_l1": 0x000C,
    "active_power_l2": 0x000E,
    "active_power_l3": 0x0010,
    "active_power": 0x0034,
    "apparent_power": 0x0038,
    "reactive_power": 0x003C,
    "power_factor": 0x003E,
    "frequency": 0x0046,
    "energy_import": 0x0048,
    "energy_export": 0x004A,
    "reactive_energy_import": 0x004C,
    "reactive_energy_export": 0x004E,
    "voltage_l1_l2": 0x00C8,
    "voltage_l2_l3": 0x00CA,
    "voltage_l3_l1": 0x00CC,
}
FACTORS = {point: 1000 for point in ADDRESSES if "energy" in point}

_HEADER = struct.Struct(
    ">HHHB"
)  # MODBUS Messaging on TCP/IP V1.0b, 3.1.3: transaction, protocol, length, unit
_REQUEST = struct.Struct(">BHH")
READ_HOLDING, READ_INPUT = 3, 4
ILLEGAL_FUNCTION, ILLEGAL_VALUE = 1, 3
MOST_REGISTERS = 125
# s within which a connection ends for the meters after it has for the one who made it.
SETTLES = 30.0


class Answer(NamedTuple):
    """One request that was answered. `time` is Unix seconds of the right clock, `number` is in every register."""

    number: int
    unit: int
    address: int
    registers: int
    time: float

    def points(self) -> list[str]:
        """The points that lie in it whole."""
        end = self.address + self.registers
        return [point for point, at in ADDRESSES.items() if self.address <= at and at + 2 <= end]


# Whole numbers below 2^24 are exact in a float32. What scatters them can be undone: the factor is odd, and folding the
# upper half into the lower one twice changes nothing.
_SPACE = 1 << 24
_SCATTER = 0x9E3779
_HALF = 12
_GATHER = pow(_SCATTER, -1, _SPACE)
_ENERGIES = {ADDRESSES[point] for point in FACTORS}


def value_at(number: int, address: int) -> int:
    """What the two registers at an even address hold in answer `number`."""
    if address in _ENERGIES:
        return number
    return _fold(_fold((number + address) * _SCATTER % _SPACE) * _SCATTER % _SPACE)


def _fold(number: int) -> int:
    return number ^ number >> _HALF


def number_of(point: str, value: float) -> int | None:
    """The answer that a stored value comes from; None when no answer gives such a value."""
    raw = value / FACTORS.get(point, 1)
    if not raw.is_integer():
        return None
    address = ADDRESSES[point]
    if address in _ENERGIES:
        return int(raw)
    return (_fold(_fold(int(raw)) * _GATHER % _SPACE) * _GATHER - address) % _SPACE


def registers(number: int, address: int, count: int) -> bytes:
    """The registers of answer `number`: float32, high word at even addresses."""
    first = address - address % 2
    values = [value_at(number, at) for at in range(first, address + count, 2)]
    return struct.pack(f">{len(values)}f", *values)[2 * (address - first) :][: 2 * count]


class MeterServer:
    """All units on one port, in a thread of its own. `silent` meters hear requests and answer none."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: list[Answer] = []
        self.silent = False
        self._numbers: dict[int, itertools.count[int]] = {}
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._stop = asyncio.Event()
        self._accepted = 0
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Listen on a free port of loopback."""
        self._thread.start()
        assert self._listening.wait(10), "the meters do not listen"

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def settle(self) -> None:
        """Wait until everybody who has connected is gone, and what they asked is answered."""
        before = self._accepted
        # Whoever is accepted after all that were before it.
        socket.create_connection(("127.0.0.1", self.port)).close()
        wait_for(
            lambda: self._accepted > before and not self._connections,
            "the meters see the connections end",
            SETTLES,
        )

    def last_poll(self) -> list[Answer]:
        """The answers to the newest poll: blocks of one meter, one after the other."""
        found: list[Answer] = []
        for answer in reversed(self.answers):
            if found and (answer.unit != found[-1].unit or answer.address >= found[-1].address):
                break
            found.append(answer)
        return found

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self._accepted += 1
        try:
            # A client that was killed ends its connection in one of these ways.
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    transaction, _, length, unit = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                    request = await reader.readexactly(length - 1)
                    if not self.silent:
                        answer = self._answer(unit, request)
                        writer.write(_HEADER.pack(transaction, 0, len(answer) + 1, unit) + answer)
                        await writer.drain()
        finally:
            self._connections.discard(task)
            writer.close()

    def _answer(self, unit: int, request: bytes) -> bytes:
        function = request[0]
        if function not in (READ_HOLDING, READ_INPUT) or len(request) != _REQUEST.size:
            return bytes((function | 0x80, ILLEGAL_FUNCTION))
        _, address, count = _REQUEST.unpack(request)
        if not 1 <= count <= MOST_REGISTERS:
            return bytes((function | 0x80, ILLEGAL_VALUE))
        number = next(self._numbers.setdefault(unit, itertools.count(1)))
        self.answers.append(Answer(number, unit, address, count, time.time()))
        return bytes((function, 2 * count)) + registers(number, address, count)
