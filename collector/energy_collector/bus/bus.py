# SPDX-License-Identifier: Apache-2.0
"""The owner of one physical endpoint: one request in flight, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from energy_collector.bus.errors import (
    BadFrameError,
    BusError,
    ExceptionAnswerError,
    NoConnectionError,
    TimedOutError,
)
from energy_collector.bus.framing import Framing, RtuFraming, TcpFraming
from energy_collector.bus.line import Line, SerialLine, TcpLine
from energy_collector.bus.requests import Request
from energy_collector.config import BusConfig

COUNTERS = ("requests", "answers", "timeouts", "exceptions", "crc_errors", "frame_errors", "connects")
# So many requests in a row without a sign of life, and the connection itself is suspected.
SILENT_REQUESTS = 3
# After a failed connect the next try waits so long; until then requests fail at once.
RECONNECT_PAUSE = 1.0
# A line that keeps talking after a time-out is hung up after so many time-outs of draining.
MAX_DRAIN = 5
# Modbus over Serial Line V1.02, 2.5.1.1: 3.5 characters between frames, 1.75 ms above 19200 baud. A USB
# adapter adds its own.
FRAME_GAP = 0.00175
CHARACTER_BITS = 11


class Answer(NamedTuple):
    """What came back: function code and data, and the value that `stamp` gave when the request was sent."""

    data: bytes
    stamp: int


def _no_stamp() -> int:
    return 0


class Bus:
    """All traffic of a bus. `counters` counts by bus, `unit_counters` by unit id."""

    def __init__(self, config: BusConfig) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self.unit_counters: dict[int, Counter[str]] = {}
        self.last_error: str | None = None
        self._line: Line | None = None
        self._framing: Framing = TcpFraming() if config.type == "modbus-tcp" else RtuFraming()
        # asyncio's lock serves in the order of arrival, so that a probe waits for one request at most.
        self._turn = asyncio.Lock()
        self._silent = 0
        self._refused_until = 0.0
        self._refusal: NoConnectionError | None = None

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as we know."""
        return self._line is not None and not self._line.gone

    async def call(self, unit: int, request: Request, stamp: Callable[[], int] = _no_stamp) -> Answer:
        """Send a request and wait for its answer; raises BusError. `stamp` is called at the moment of
        sending."""
        async with self._turn:
            counters = self.unit_counters.setdefault(unit, Counter())
            try:
                line = await self._connect()
                self._count(counters, "requests")
                answer = await self._exchange(line, unit, request, stamp)
            except BusError as error:
                if error.kind in COUNTERS:
                    self._count(counters, error.kind)
                self.last_error = error.text
                raise
            self._count(counters, "answers")
            return answer

    def close(self) -> None:
        """Hang up; the next request connects again."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _count(self, counters: Counter[str], what: str) -> None:
        counters[what] += 1
        self.counters[what] += 1

    async def _connect(self) -> Line:
        if self._line is not None and not self._line.gone:
            return self._line
        self.close()
        if self._refusal is not None and time.monotonic() < self._refused_until:
            raise self._refusal
        try:
            self._line = await self._open()
        except OSError as error:
            self._refusal = NoConnectionError(self.config.endpoint, error)
            self._refused_until = time.monotonic() + RECONNECT_PAUSE
            raise self._refusal from error
        self._refusal = None
        self._silent = 0
        self.counters["connects"] += 1
        return self._line

    async def _open(self) -> Line:
        if self.config.type == "rtu":
            return SerialLine.open(self.config)
        # The first packet to a host that is switched off takes the kernel about 3 s to give up on.
        return await TcpLine.open(self.config.host, self.config.port, max(self.config.timeout, 3.5))

    async def _exchange(self, line: Line, unit: int, request: Request, stamp: Callable[[], int]) -> Answer:
        try:
            if not self._framing.has_transactions:
                # Whatever has come since the last answer belongs to nobody.
                if line.discard():
                    await self._drain(line)
                await asyncio.sleep(self._gap())
            frame = self._framing.encode(unit, request.encode())
            line.write(frame)
            sent = stamp()
            data = await self._receive(line, unit, request)
        except OSError as error:
            self.close()
            raise NoConnectionError(self.config.endpoint, error) from error
        self._silent = 0
        if data[0] & 0x80:
            raise ExceptionAnswerError(data[1])
        return Answer(data, sent)

    def _gap(self) -> float:
        if self.config.type != "rtu":
            return 0.0
        return max(FRAME_GAP, 3.5 * CHARACTER_BITS / self.config.baudrate)

    async def _receive(self, line: Line, unit: int, request: Request) -> bytes:
        deadline = time.monotonic() + self.config.timeout
        while True:
            try:
                data = self._framing.take(line.buffer, unit, request)
            except BadFrameError:
                # Where the next frame begins is not known any more.
                await self._resynchronise(line)
                raise
            if data is not None:
                return data
            if not await line.more(deadline - time.monotonic()):
                await self._give_up(line)

    async def _give_up(self, line: Line) -> None:
        """A time-out: make sure that a late answer cannot be taken for the next one."""
        self._silent += 1
        if not self._framing.has_transactions:
            await self._drain(line)
        if self._silent >= SILENT_REQUESTS:
            self._silent = 0
            self.close()
        raise TimedOutError(self.config.timeout)

    async def _resynchronise(self, line: Line) -> None:
        if self._framing.has_transactions:
            self.close()
        else:
            await self._drain(line)

    async def _drain(self, line: Line) -> None:
        """Wait until the line has been quiet for a whole time-out; hang up if it never is.

        A new connection would not do instead: serial device servers pass a late answer on to whoever is
        connected by then.
        """
        deadline = time.monotonic() + MAX_DRAIN * self.config.timeout
        line.discard()
        while await line.more(self.config.timeout):
            line.discard()
            if time.monotonic() > deadline:
                self.close()
                return
