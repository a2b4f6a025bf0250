# SPDX-License-Identifier: Apache-2.0
"""Gateways and devices that a bus talks to in tests: real servers on loopback, with the faults that real ones
have."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import Awaitable, Callable

from pymodbus.framer import FramerRTU

Answerer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def crc(frame: bytes) -> bytes:
    """A frame with its checksum."""
    return frame + FramerRTU.compute_CRC(frame).to_bytes(2, "big")


def registers(unit: int, *numbers: int) -> bytes:
    """An answer to function 3."""
    return bytes([unit, 3, 2 * len(numbers)]) + struct.pack(f">{len(numbers)}H", *numbers)


def mbap(transaction: int, frame: bytes) -> bytes:
    """A frame of Modbus TCP."""
    return struct.pack(">HHH", transaction, 0, len(frame)) + frame


class Peer:
    """A server that answers each request frame of `size` bytes as the test says."""

    def __init__(self, answer: Answerer, size: int) -> None:
        self._answer = answer
        self._size = size
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> Peer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Stop listening, and reset what is connected."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                request = await reader.readexactly(self._size)
                self.requests.append(request)
                await self._answer(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            # The last is the end of the test.
            writer.close()


class SerialGateway:
    """A gateway with a serial line behind it: it takes requests one after the other, `delay` seconds each.

    Units in `dead` do not answer. Modbus TCP (`is_tcp`) waits `patience` seconds for them, in which it can serve
    nobody else, and says 0x0B; a gateway for RTU frames just goes on. Each register holds its address. `overlaps`
    counts requests that came while another one was under way, which no master on such a line may cause.
    """

    def __init__(self, *, is_tcp: bool, delay: float = 0.0, patience: float = 1.0) -> None:
        self.dead: set[int] = set()
        self.overlaps = 0
        self.asked: Counter[int] = Counter()
        self.connections = 0
        self.most_connections = 0
        self.port = 0
        self._is_tcp = is_tcp
        self._delay = delay
        self._patience = patience
        self._under_way = 0
        self._line = asyncio.Lock()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> SerialGateway:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def forget(self) -> None:
        """Lose all connections, as by a restart."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.connections += 1
        self.most_connections = max(self.most_connections, self.connections)
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                request = await reader.readexactly(12 if self._is_tcp else 8)
                # Each request has a task, so that one too many is seen, not queued in the socket.
                task = asyncio.create_task(self._take(request, writer))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()
        finally:
            self.connections -= 1

    async def _take(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        body = request[6:] if self._is_tcp else request[:-2]
        unit, function, address, count = struct.unpack(">BBHH", body)
        self.asked[unit] += 1
        if unit in self.dead and not self._is_tcp:
            return
        self._under_way += 1
        self.overlaps += self._under_way > 1
        try:
            async with self._line:
                await asyncio.sleep(self._patience if unit in self.dead else self._delay)
        finally:
            self._under_way -= 1
        numbers = [(address + index) & 0xFFFF for index in range(count)]
        answer = bytes([unit, function, 2 * count]) + struct.pack(f">{count}H", *numbers)
        if unit in self.dead:
            answer = bytes([unit, function | 0x80, 0x0B])
        writer.write(mbap(int.from_bytes(request[:2], "big"), answer) if self._is_tcp else crc(answer))
