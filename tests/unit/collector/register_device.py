# SPDX-License-Identifier: Apache-2.0
"""A Modbus TCP device in the test's own loop: it has some registers, refuses the others, and remembers what it was
asked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections.abc import AsyncIterator, Callable

from energy_collector.bus import Bus
from energy_collector.config import BusConfig
from energy_collector.meters.meter import Meter, Poll
from energy_collector.reading import Reading, readings


class Device:
    """`registers` by address, the same for functions 3 and 4. `asked` has (function, address, count)."""

    def __init__(self, registers: dict[int, int]) -> None:
        self.registers = registers
        self.asked: list[tuple[int, int, int]] = []
        self.silent = False
        # More reasons to refuse: an exception code, or None.
        self.refuses: Callable[[int, int, int], int | None] = lambda function, address, count: None
        self._writers: list[asyncio.StreamWriter] = []

    def put(self, address: int, *registers: int) -> None:
        """Set registers from `address` on."""
        self.registers.update(enumerate(registers, address))

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[Bus]:
        """Listen on loopback; gives a bus that leads here."""
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        bus = Bus(BusConfig("hall", "modbus-tcp", "127.0.0.1", port, timeout=1))
        try:
            yield bus
        finally:
            bus.close()
            server.close()
            await self.hang_up()

    async def hang_up(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()
        await asyncio.sleep(0.05)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                transaction, _, _, unit, function, address, count = struct.unpack(
                    ">HHHBBHH", await reader.readexactly(12)
                )
                if self.silent:
                    continue
                body = self._answer(function, address, count)
                writer.write(struct.pack(">HHHB", transaction, 0, len(body) + 1, unit) + body)

    def _answer(self, function: int, address: int, count: int) -> bytes:
        self.asked.append((function, address, count))
        code = self.refuses(function, address, count)
        wanted = range(address, address + count)
        if code is None and not all(register in self.registers for register in wanted):
            code = 2
        if code is not None:
            return bytes([function | 0x80, code])
        found = [self.registers[register] for register in wanted]
        return struct.pack(f">BB{count}H", function, 2 * count, *found)


class Clockwork:
    """A clock that goes on by one with every look."""

    def __init__(self) -> None:
        self._ticks = itertools.count(1_700_000_000_000)

    def __call__(self) -> int:
        return next(self._ticks)


class Asking:
    """Polls a meter and shows what came, by the points' short names."""

    def __init__(self, meter: Meter, bus: Bus) -> None:
        self.meter = meter
        self.bus = bus
        self.stamp = Clockwork()
        self.last: Poll

    async def poll(self) -> dict[str, tuple[float | None, int]]:
        """Each point once, or the test fails; value and quality."""
        self.last = await self.meter.poll(self.bus, self.stamp)
        found: dict[str, tuple[float | None, int]] = {}
        for one in self.readings():
            name = one.point.split("/")[1]
            assert name not in found, f"{name} came twice"
            found[name] = (one.value, one.quality)
        return found

    def readings(self) -> list[Reading]:
        """Of the last poll."""
        return readings(self.last.records)
