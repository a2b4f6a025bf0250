# SPDX-License-Identifier: Apache-2.0
"""The owner of one physical endpoint: all requests to it go through here, in the order in which they were asked
for, one in flight (a Modbus TCP bus with `pipeline`: so many)."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from energy_collector.bus.connector import Connector
from energy_collector.bus.errors import (
    BadFrameError,
    BusError,
    ExceptionAnswerError,
    NoConnectionError,
    StillLateError,
    TimedOutError,
)
from energy_collector.bus.framing import Exchange, Framing, RtuFraming, TcpFraming
from energy_collector.bus.line import Line
from energy_collector.bus.requests import Request
from energy_collector.bus.turns import Turns
from energy_collector.bus.unit import LATEST_ANSWER, LEAST, LEAST_SERIAL, Unit
from energy_collector.config import BusConfig

COUNTERS = (
    "requests",
    "answers",
    "timeouts",
    "exceptions",
    "crc_errors",
    "frame_errors",
    "connects",
    "retries",
    "short",
    "stale",
)
# So many requests in a row, and at least a whole time-out, without a sign of life, and the connection itself is
# suspected.
SILENT_REQUESTS = 3
# A new connection that brings no answer either is not the cure; the next one waits twice as long, up to so many.
MAX_SILENT_REQUESTS = 48
# After bytes that belong to nobody, the line has to be quiet for so long, in s: longer than the pauses in a
# frame that comes through a USB adapter (16 ms) or in several packets.
QUIET = 0.1
# A line that is never quiet is hung up after so long, in s.
MAX_NOISE = 5.0
# Modbus over Serial Line V1.02, 2.5.1.1: 3.5 characters between frames, 1.75 ms above 19200 baud.
FRAME_GAP = 0.00175
CHARACTER_BITS = 11
LONGEST_FRAME = 256
# How long a busy device is left alone before it is asked again, in s. 05 says that it works on it, 06 that it
# cannot take the request now.
BUSY_PAUSES = {0x05: (0.2, 0.4), 0x06: (0.05, 0.1, 0.2)}
# Nobody waits longer for a connection; it is tried on without them.
MAX_CONNECT = 3.5
# Exchanges on Modbus TCP that timed out lately are remembered, so that a late answer shows how slow its unit is.
MAX_REMEMBERED = 64


class Answer(NamedTuple):
    """What came back: function code and data, and the value that `stamp` gave when the request was sent."""

    data: bytes
    stamp: int


class Traffic(ABC):
    """Whoever knows what else the bus has to do. Both are asked for each request, before it is sent."""

    @abstractmethod
    def pause(self, unit: Unit) -> float:
        """How long a request of this unit has to wait so that it does not disturb others, in s; mostly 0."""

    @abstractmethod
    def limit(self, unit: Unit) -> float:
        """How long it may hold the line, in s."""


class _NoTraffic(Traffic):
    def pause(self, _unit: Unit) -> float:
        return 0.0

    def limit(self, _unit: Unit) -> float:
        return float("inf")


def _no_stamp() -> int:
    return 0


class Bus:
    """All traffic of a bus. `counters` counts by bus, `unit_counters` by unit id.

    After a time-out on RTU framing, a late answer must not be taken for that of the next request:

    - A request to another unit goes out at once. The late answer then comes before the one waited for, behind
      it, or between two exchanges; it is known by its unit id, form and CRC, and dropped. Where both collide on
      the wire, the CRC is wrong and neither counts.
    - The same unit is not asked until its late answer has been dropped, or cannot come any more: three of its
      time-outs after the request (two after giving up), and a whole one after the last bytes that nobody could
      make sense of, since those may have been it.
    - A new connection proves nothing: serial device servers pass a late answer on to whoever is connected by
      then. So a unit that owes an answer owes it beyond a reconnect.
    - Noise (a wrong CRC, a wrong sender, half a frame) is not searched for a frame: the line is used again when
      it has been quiet.
    """

    def __init__(self, config: BusConfig) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self.unit_counters: dict[int, Counter[str]] = {}
        self.last_error: str | None = None
        self.traffic: Traffic = _NoTraffic()
        self._units: dict[int, Unit] = {}
        self._connector = Connector(config, self._attach)
        self._is_tcp = config.type == "modbus-tcp"
        self._framing: Framing = (
            TcpFraming(self._stale_transaction) if self._is_tcp else RtuFraming(self._late, self._stale_unit)
        )
        self._turns = Turns(config.pipeline)
        self._flight: dict[int, Exchange] = {}
        self._remembered: OrderedDict[int, tuple[Unit, float]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._gap = config.request_gap
        self._least = LEAST if self._is_tcp else LEAST_SERIAL
        if config.type == "rtu":
            self._least += LONGEST_FRAME * CHARACTER_BITS / config.baudrate
            self._gap = max(self._gap, FRAME_GAP, 3.5 * CHARACTER_BITS / config.baudrate)
        self._is_noisy = False
        # Until when a Modbus TCP gateway may still wait for a unit that we have given up, and serve nobody else.
        self._held_up_until = 0.0
        self._silent = 0
        self._patient_for = SILENT_REQUESTS
        self._sign_of_life = 0.0
        # Whether this connection has brought an answer.
        self._is_proven = False

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as we know."""
        return self._connector.line is not None and self._connector.line.lost is None

    def unit(self, number: int) -> Unit:
        """What is known of a unit."""
        unit = self._units.get(number)
        if unit is None:
            unit = self._units[number] = Unit(self.config.name, number, self.config.timeout, self._least)
            self.unit_counters[number] = unit.counters
        return unit

    async def call(self, unit: int, request: Request, stamp: Callable[[], int] = _no_stamp) -> Answer:
        """Send a request and wait for its answer; raises BusError. `stamp` is called at the moment of
        sending."""
        asked = self.unit(unit)
        while (pause := self.traffic.pause(asked)) > 0:
            await asyncio.sleep(pause)
        retries = 0
        while True:
            try:
                return await self._ask(asked, request, stamp)
            except BusError as error:
                if error.kind in COUNTERS:
                    self._count(asked, error.kind)
                self.last_error = error.text
                pause = self._pause_before_retry(error, asked, retries)
                if pause < 0:
                    raise
            retries += 1
            self._count(asked, "retries")
            # Without the line: others may use it meanwhile.
            await asyncio.sleep(pause)

    def close(self) -> None:
        """Hang up; the next request connects again."""
        self._fail_all(ConnectionAbortedError("the connection is closed"))
        self._connector.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # One request.

    def _pause_before_retry(self, error: BusError, unit: Unit, retries: int) -> float:
        """How long to wait before the same request is sent again; -1 when it is not."""
        if isinstance(error, ExceptionAnswerError):
            pauses = BUSY_PAUSES.get(error.code, ())
            if retries < len(pauses) and pauses[retries] + unit.least <= self.traffic.limit(unit):
                return pauses[retries]
        # A gateway that was restarted, or that has hung up while nobody asked, says so only when it is asked.
        # On RTU framing the first request may have gone through, and its answer would be one too many.
        elif isinstance(error, NoConnectionError) and self._is_tcp and error.had_answered and not retries:
            return 0.0
        return -1.0

    async def _ask(self, unit: Unit, request: Request, stamp: Callable[[], int]) -> Answer:
        await self._turns.take()
        while unit.late is not None:
            # Looked at with the line in our hands: whoever had it before us may have asked the same unit in vain.
            self._turns.give()
            await self._wait_for_late(unit)
            await self._turns.take()
        try:
            line = self._connector.line
            if line is None or line.lost is not None:
                line = await self._connect(unit)
            if self._gap or self._is_noisy or line.buffer:
                await self._settle(line)
                if line.lost is not None:
                    line = await self._connect(unit)
            framing = self._framing
            transaction = framing.transaction()
            frame = framing.encode(unit.number, request, transaction)
            exchange = Exchange(unit, request, transaction, asyncio.get_running_loop().create_future())
            timeout = min(unit.timeout, self._patience(unit))
            self._count(unit, "requests")
            # Before it leaves: the device may have measured long before a process goes on that is held up in between.
            stamped = stamp()
            try:
                line.write(frame)
            except OSError as error:
                raise self._lost(error) from error
            exchange.sent = time.monotonic()
            exchange.deadline = exchange.sent + timeout
            self._flight[transaction] = exchange
            if self._timer is None or exchange.deadline < self._timer.when():
                self._arm(exchange.deadline)
            try:
                data = await exchange.answer
            except asyncio.CancelledError:
                self._forget(exchange)
                raise
        finally:
            self._turns.give()
        if data[0] & 0x80:
            raise self._refused(unit, data[1])
        self._count(unit, "answers")
        return Answer(data, stamped)

    async def _connect(self, unit: Unit) -> Line:
        return await self._connector.connect(min(MAX_CONNECT, self._patience(unit)))

    def _patience(self, unit: Unit) -> float:
        """How long the line may be held for a unit: as long as others can wait, but long enough for the unit to
        show that it lives; and a gateway that is held up by another one has to get free first."""
        least = unit.least
        if self._held_up_until:
            least += max(self._held_up_until - time.monotonic(), 0.0)
        return max(self.traffic.limit(unit), least)

    def _count(self, unit: Unit, what: str) -> None:
        unit.counters[what] += 1
        self.counters[what] += 1

    def _refused(self, unit: Unit, code: int) -> ExceptionAnswerError:
        error = ExceptionAnswerError(code)
        if code == 0x0B:
            unit.raise_timeout(error.text)
        return error

    # What arrives.

    def _attach(self, line: Line) -> None:
        line.listener = self._arrived
        self.counters["connects"] += 1
        self._silent = 0
        self._is_noisy = False
        self._held_up_until = 0.0
        self._is_proven = False

    def _arrived(self) -> None:
        line = self._connector.line
        if line is None:
            return
        if line.lost is not None:
            self._fail_all(line.lost)
            return
        if self._is_noisy:
            self._hear_noise(line)
            return
        try:
            while (taken := self._framing.take(line.buffer, self._flight)) is not None:
                self._finish(*taken)
        except BadFrameError as error:
            self._spoilt(line, error)

    def _finish(self, exchange: Exchange, data: bytes) -> None:
        del self._flight[exchange.transaction]
        now = time.monotonic()
        self._silent = 0
        self._sign_of_life = now
        self._held_up_until = 0.0
        self._is_proven = True
        self._patient_for = SILENT_REQUESTS
        took = now - exchange.sent
        if not data[0] & 0x80:
            exchange.unit.answered(took)
        elif data[1] == 0x0B:
            exchange.unit.hold = took
        if not exchange.answer.done():
            exchange.answer.set_result(data)

    def _spoilt(self, line: Line, error: BadFrameError) -> None:
        """Bytes came that are no answer: where the next frame begins is not known any more."""
        exchange = self._flight.pop(error.transaction if error.transaction is not None else 0, None)
        if exchange is None and self._flight:
            # A broken header on Modbus TCP: it was meant for one of those that wait.
            exchange = self._flight.pop(next(iter(self._flight)))
        if exchange is not None:
            self._silent = 0
            self._sign_of_life = time.monotonic()
            if not self._is_tcp and not error.is_whole:
                # What came need not have been its answer.
                self._owes(exchange, 1)
            if not exchange.answer.done():
                exchange.answer.set_exception(error)
        else:
            self.counters[error.kind] += 1
        if self._is_tcp:
            self._connector.drop()
            self._fail_all(ConnectionAbortedError("another answer on the connection was broken"))
        else:
            self._hear_noise(line)

    def _hear_noise(self, line: Line) -> None:
        self._is_noisy = True
        line.buffer.clear()
        # It may have been any of the answers that are owed; whoever owes one is not asked for a while.
        for unit in self._units.values():
            if unit.late is not None:
                unit.late_until = max(unit.late_until, line.heard + unit.timeout)

    def _stale_transaction(self, transaction: int, answer: bytes) -> None:
        self._held_up_until = 0.0
        unit, sent = self._remembered.pop(transaction, (None, 0.0))
        if unit is None:
            self.counters["stale"] += 1
            return
        self._count(unit, "stale")
        took = time.monotonic() - sent
        if answer[0] & 0x80:
            # The gateway has given up on it: for so long it could serve nobody else.
            unit.hold = took
        else:
            unit.answered_late(took)

    def _stale_unit(self, unit: Unit) -> None:
        self._count(unit, "stale")
        _, sent = self._remembered.pop(unit.number, (unit, 0.0))
        unit.answered_late(time.monotonic() - sent)

    def _late(self, number: int) -> Unit | None:
        unit = self._units.get(number)
        return unit if unit is not None and unit.late is not None else None

    # What does not arrive.

    def _arm(self, deadline: float) -> None:
        # One timer for all requests: it is set anew when it goes off, not for each of them.
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        now = time.monotonic()
        for exchange in list(self._flight.values()):
            if exchange.deadline <= now:
                self._time_out(exchange, now)
        if self._flight:
            self._arm(min(one.deadline for one in self._flight.values()))

    def _time_out(self, exchange: Exchange, now: float) -> None:
        came = 0
        line = self._connector.line
        if line is not None and line.buffer and len(self._flight) == 1:
            came = len(line.buffer)
            self._count(exchange.unit, "short")
            if not self._is_tcp:
                self._hear_noise(line)
        self._forget(exchange)
        if not exchange.answer.done():
            # A millisecond is less than anybody cuts, and more than a sum of floats is wrong by.
            is_cut = exchange.deadline - exchange.sent < exchange.unit.timeout - 0.001
            exchange.answer.set_exception(TimedOutError(exchange.unit.timeout, came, is_cut=is_cut))
        if self._is_tcp:
            # A gateway waits for its unit as long as it likes, whatever we do; requests to others queue there.
            self._held_up_until = exchange.sent + max(exchange.unit.timeout, exchange.unit.hold)
        self._silent += 1
        if self._silent >= self._patient_for and now - self._sign_of_life >= self.config.timeout:
            if not self._is_proven:
                self._patient_for = min(2 * self._patient_for, MAX_SILENT_REQUESTS)
            self._silent = 0
            self._connector.drop()
            self._fail_all(ConnectionAbortedError("the device was silent for too long"))

    def _forget(self, exchange: Exchange) -> None:
        """Stop waiting for an answer that may still come."""
        self._flight.pop(exchange.transaction, None)
        if self._is_tcp:
            self._remembered[exchange.transaction] = exchange.unit, exchange.sent
            while len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        else:
            self._owes(exchange, LATEST_ANSWER)

    def _owes(self, exchange: Exchange, timeouts: int) -> None:
        unit = exchange.unit
        self._remembered[unit.number] = unit, exchange.sent
        unit.expect_late(exchange.request, exchange.sent + timeouts * unit.timeout)

    def _fail_all(self, error: OSError) -> None:
        """The connection is lost, and with it all that was under way."""
        exchanges = list(self._flight.values())
        self._flight.clear()
        for exchange in exchanges:
            if not self._is_tcp:
                self._owes(exchange, 1)
            if not exchange.answer.done():
                exchange.answer.set_exception(self._lost(error))

    def _lost(self, error: OSError) -> NoConnectionError:
        return NoConnectionError(self.config.endpoint, error, had_answered=self._is_proven)

    # Before the next request.

    async def _wait_for_late(self, unit: Unit) -> None:
        """Wait, without the line, until the unit owes us nothing any more."""
        if unit.late_until - time.monotonic() > self.traffic.limit(unit):
            raise StillLateError
        while unit.late is not None and (rest := unit.late_until - time.monotonic()) > 0:
            await asyncio.sleep(min(rest, QUIET))
        unit.late = None

    async def _settle(self, line: Line) -> None:
        """Wait until the line is fit for a request: the gap since the last bytes is over, noise has ended, and
        half a late answer has become a whole one."""
        if self._is_tcp:
            # Only the gap: half an answer belongs to another exchange, or to none.
            await _sleep_until(line.heard + self._gap)
        else:
            end = time.monotonic() + MAX_NOISE
            while True:
                is_quiet = not self._is_noisy and not line.buffer
                fit = line.heard + (self._gap if is_quiet else max(QUIET, self._gap))
                if fit <= time.monotonic():
                    break
                if time.monotonic() > end:
                    self._connector.drop()
                    raise BadFrameError(f"the line has not been quiet for {MAX_NOISE:g} s")
                await _sleep_until(fit)
            self._is_noisy = False
            line.buffer.clear()


async def _sleep_until(moment: float) -> None:
    rest = moment - time.monotonic()
    if rest > 0:
        await asyncio.sleep(rest)
