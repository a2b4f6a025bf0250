# SPDX-License-Identifier: Apache-2.0
"""The Modbus server: connections, lines, and how faults change what goes out.

A line is one listening port. On a line with RTU framing one request is answered at a time, whatever
connection it comes from: others wait, and each that comes while another is in flight counts as an overlap.
The server is our own because a correct one cannot send wrong frames.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from math import floor

from wattfleet_lab.meters import description, framing
from wattfleet_lab.meters.answers import KINDS, NO_METER, AnswerLog
from wattfleet_lab.meters.device import Device, LineCounters, request_range
from wattfleet_lab.meters.faults import Fault, Faults
from wattfleet_lab.meters.framing import BadFrameError, Request
from wattfleet_lab.meters.models.base import GATEWAY_TARGET_FAILED, ModbusError

TICK = 10  # Hz: registers are computed for whole tenths of a second
_KIND = {kind: index for index, kind in enumerate(KINDS)}
_BITS_PER_BYTE = 11  # start, eight data, parity or second stop, stop
_STALE = 0.2  # s after which the beginning of an RTU frame is forgotten


@dataclass
class LineStats:
    """Counts of one listener since it was opened."""

    requests: int = 0
    overlaps: int = 0
    connections: int = 0
    open: int = 0
    answered: int = 0
    exceptions: int = 0
    silent: int = 0
    faulty: int = 0


@dataclass(frozen=True)
class Answer:
    """What goes out: a frame (None: silence), after a delay in s, and whether the line is busy until then."""

    frame: bytes | None
    delay: float
    holds_line: bool
    close: bool = False


class Line:
    """One listening port of a site with the units behind it."""

    def __init__(
        self,
        site: str,
        config: description.Listener,
        devices: dict[int, Device],
        counters: LineCounters,
        faults: Faults,
        log: AnswerLog,
    ) -> None:
        self.site = site
        self.config = config
        self.rtu = config.framing == "rtu"
        self.devices = devices
        self.counters = counters
        self.stats = LineStats()
        self.connections: set[Connection] = set()
        self._faults = faults
        self._log = log
        self._in_flight = 0
        self._waiting: deque[tuple[Connection, Request]] = deque()

    def receive(self, connection: "Connection", request: Request) -> None:
        """Take a request; its answer goes to the connection when it is due."""
        self.stats.requests += 1
        self.counters.messages += 1
        if self._in_flight:
            self.stats.overlaps += 1
            if self.rtu:
                self._waiting.append((connection, request))
                return
        self._start(connection, request)

    def bad_frame(self) -> None:
        """A frame came with a wrong CRC: every unit on the line has seen it, none answers."""
        self.stats.requests += 1
        self.counters.errors += 1
        self._record(_now(), NO_METER, 0, 0, b"", "silent")

    def _start(self, connection: "Connection", request: Request) -> None:
        answer = self._answer(request)
        if not answer.delay:
            self._send(connection, answer)
            return
        loop = asyncio.get_running_loop()
        if answer.holds_line:
            self._in_flight += 1
            loop.call_later(answer.delay, self._finish, connection, answer)
        else:
            loop.call_later(answer.delay, self._send, connection, answer)

    def _finish(self, connection: "Connection", answer: Answer) -> None:
        self._in_flight -= 1
        self._send(connection, answer)
        while self._waiting and not self._in_flight:
            self._start(*self._waiting.popleft())

    def _send(self, connection: "Connection", answer: Answer) -> None:
        transport = connection.transport
        if transport is None or transport.is_closing():
            return
        if answer.close:
            transport.abort()
        elif answer.frame is not None:
            transport.write(answer.frame)

    def _answer(self, request: Request) -> Answer:
        at = _now()
        device = self.devices.get(request.unit)
        meter = device.unit.name if device else None
        fault = self._faults.meet(self.site, self.config.name, meter) if self._faults.active() else None
        number = device.index if device else NO_METER
        if fault and fault.kind == "noise" and fault.random.random() < 0.5:
            # Noise on the way in: the unit sees a wrong CRC.
            self.counters.messages -= 1
            self.counters.errors += 1
            self._record(at, number, request.unit, request.pdu[0], request.pdu, "silent")
            self.stats.faulty += 1
            return self._silence()
        pdu, kind = self._respond(device, request, at, fault)
        if fault and fault.kind in ("silent", "drop_connection"):
            kind = "silent" if fault.kind == "silent" else "dropped"
        elif fault and pdu is not None and fault.kind in ("bad_crc", "truncate", "wrong_unit", "noise"):
            kind = "corrupt"
        elif fault and pdu is not None and fault.kind == "late":
            kind = "late"
        self._record(at, number, request.unit, request.pdu[0], request.pdu, kind)
        if device:
            device.counters.messages += 1
            device.counters.exceptions += kind == "exception"
            device.counters.silences += kind == "silent"
        if fault:
            self.stats.faulty += 1
        if pdu is None or kind == "silent":
            return self._silence()
        return self._shape(request, pdu, fault)

    def _respond(
        self, device: Device | None, request: Request, at: float, fault: Fault | None
    ) -> tuple[bytes | None, str]:
        """The response PDU (None: nobody answers) and its kind in the log."""
        if device is None:
            return (None, "silent") if self.rtu else _refusal(request, GATEWAY_TARGET_FAILED)
        if fault and fault.kind == "exception":
            return _refusal(request, fault.code)
        broken = frozenset[str]()
        if self._faults.active() and device.unit.channels:
            broken = self._faults.broken(self.site, self.config.name, device.unit.name)
        try:
            return device.answer(request.pdu, at, broken), "answered"
        except ModbusError as error:
            return _refusal(request, error.code)

    def _shape(self, request: Request, pdu: bytes, fault: Fault | None) -> Answer:
        kind = fault.kind if fault else ""
        unit = request.unit % 247 + 1 if kind == "wrong_unit" else None
        frame = framing.rtu_frame(request, pdu, unit) if self.rtu else framing.tcp_frame(request, pdu, unit)
        delay = self._line_delay(request.size + len(frame))
        if fault is None:
            return Answer(frame, delay, holds_line=True)
        if kind == "bad_crc":
            frame = frame[:-1] + bytes((frame[-1] ^ 0xFF,))
        elif kind == "truncate":
            frame = frame[: max(1, len(frame) // 2)]
        elif kind == "noise":
            place = fault.random.randrange(len(frame))
            frame = (
                frame[:place] + bytes((frame[place] ^ 1 << fault.random.randrange(8),)) + frame[place + 1 :]
            )
        if kind == "late":
            # The unit answers when the client has given up: other requests are not held up meanwhile.
            return Answer(frame, delay + fault.delay, holds_line=False)
        if kind == "slow":
            delay += fault.delay
        return Answer(frame, delay, holds_line=True, close=kind == "drop_connection")

    def _silence(self) -> Answer:
        return Answer(None, self.config.delay, holds_line=True)

    def _line_delay(self, size: int) -> float:
        delay = self.config.delay
        if self.config.baudrate:
            # Two silences of 3.5 characters frame a request and its answer.
            delay += (size + 7) * _BITS_PER_BYTE / self.config.baudrate
        return delay

    def _record(self, at: float, meter: int, unit: int, function: int, pdu: bytes, kind: str) -> None:
        if kind == "answered":
            self.stats.answered += 1
        elif kind == "exception":
            self.stats.exceptions += 1
        elif kind == "silent":
            self.stats.silent += 1
        address, count = request_range(pdu) if pdu else (0, 0)
        self._log.add(at, meter, unit, function, address, count, _KIND[kind])


class Connection(asyncio.Protocol):
    """One client's connection to a line."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):  # what create_server never gives
            raise TypeError(f"a stream is expected, not {transport!r}")
        self.transport = transport
        self.line.connections.add(self)
        self.line.stats.connections += 1
        self.line.stats.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.transport = None
        self.line.connections.discard(self)
        self.line.stats.open -= 1

    def data_received(self, data: bytes) -> None:
        line = self.line
        if line.rtu:
            now = time.monotonic()
            if now - self._last > _STALE:
                self._buffer.clear()
            self._last = now
        self._buffer += data
        take = framing.take_rtu if line.rtu else framing.take_tcp
        try:
            while (request := take(self._buffer)) is not None:
                line.receive(self, request)
        except BadFrameError:
            if line.rtu:
                line.bad_frame()
            elif self.transport is not None:
                self.transport.close()


def _refusal(request: Request, code: int) -> tuple[bytes, str]:
    return bytes((request.pdu[0] | 0x80, code)), "exception"


def _now() -> float:
    return floor(time.time() * TICK) / TICK
