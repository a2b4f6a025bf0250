# SPDX-License-Identifier: Apache-2.0
"""What can be asked of the buses and meters from outside: by the control socket, and by the command line
when none runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from energy_collector import quality
from energy_collector.bus import Bus, BusError, Diagnostics, Identify, ReadBits, ReadRegisters
from energy_collector.bus.bus import COUNTERS
from energy_collector.bus.errors import ExceptionAnswerError, TimedOutError
from energy_collector.clock import SourceClock
from energy_collector.control import RequestError
from energy_collector.meters.sunspec import BASES, MARKER
from energy_collector.polling.poller import PolledMeter
from energy_collector.reading import Record, readings
from energy_collector.times import iso

MAX_REGISTERS = 125
MAX_BITS = 2000
# A device that announces one more object for ever is cut off.
MAX_OBJECT_REQUESTS = 8
# A gateway answers with these for a unit that does not.
GATEWAY_EXCEPTIONS = (0x0A, 0x0B)


def whole(request: Mapping[str, Any], key: str, low: int, high: int, default: int | None = None) -> int:
    """A whole number of a request."""
    value = request.get(key, default)
    if type(value) is not int or not low <= value <= high:
        raise RequestError(
            f"{key} is {value!r}, not a whole number from {low} to {high}", "a fault of the client"
        )
    return value


class Operations:
    """Requests that need a bus."""

    def __init__(
        self,
        buses: Mapping[str, Bus],
        meters: Mapping[str, PolledMeter],
        clock: SourceClock,
        calibrate: Callable[[list[Record]], list[Record]] = list,
    ) -> None:
        self.buses = buses
        self.meters = meters
        self._clock = clock
        self.calibrate = calibrate

    async def handle(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Serve a request; raises RequestError."""
        operations = {
            "read": self.read,
            "diagnostics": self.diagnostics,
            "identify": self.identify,
            "read_meter": self.read_meter,
            "scan": self.scan,
        }
        operation = operations.get(str(request.get("op")))
        if operation is None:
            known = ", ".join(["status", "counters", "reload", *operations])
            raise RequestError(f"unknown op {request.get('op')!r}", f"known are {known}")
        try:
            return await operation(request)
        except BusError as error:
            raise RequestError(error.text, error.cause) from error

    def _bus(self, request: Mapping[str, Any]) -> Bus:
        bus = self.buses.get(str(request.get("bus")))
        if bus is None:
            raise RequestError(
                f"no bus {request.get('bus')!r}", f"the buses are {', '.join(self.buses) or 'none'}"
            )
        return bus

    async def read(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Functions 1 to 4."""
        bus, unit = self._bus(request), whole(request, "unit", 0, 255)
        function = whole(request, "function", 1, 4, 3)
        address = whole(request, "address", 0, 65535)
        count = whole(request, "count", 1, MAX_BITS if function < 3 else MAX_REGISTERS, 1)
        if function < 3:
            bits = ReadBits(function, address, count)
            return {"bits": bits.decode((await bus.call(unit, bits)).data)}
        registers = ReadRegisters(function, address, count)
        return {"registers": registers.decode((await bus.call(unit, registers)).data)}

    async def diagnostics(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Function 08."""
        bus, unit = self._bus(request), whole(request, "unit", 0, 255)
        message = Diagnostics(whole(request, "subfunction", 0, 0xFFFF), whole(request, "data", 0, 0xFFFF, 0))
        return {"data": message.decode((await bus.call(unit, message)).data)}

    async def identify(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Function 43/14, all basic objects."""
        bus, unit = self._bus(request), whole(request, "unit", 0, 255)
        objects: dict[str, str] = {}
        following = 0
        for _ in range(MAX_OBJECT_REQUESTS):
            message = Identify(following)
            answer = (await bus.call(unit, message)).data
            objects.update(message.decode(answer))
            following = message.follows(answer)
            if not following:
                break
        return {"objects": objects}

    async def scan(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Whether anybody answers to a unit id, and who it says it is. Silence is an answer here."""
        bus, unit = self._bus(request), whole(request, "unit", 0, 255)
        try:
            await bus.call(unit, ReadRegisters(3, 0, 1))
            how = "registers"
        except ExceptionAnswerError as error:
            if error.code in GATEWAY_EXCEPTIONS:
                return {"answers": False, "how": error.text}
            # Whoever refuses is there.
            how = error.text
        except TimedOutError as error:
            return {"answers": False, "how": error.text}
        return {
            "answers": True,
            "how": how,
            "identity": await self._identity(request),
            "sunspec": await self._sunspec_base(bus, unit),
        }

    async def _identity(self, request: Mapping[str, Any]) -> dict[str, str]:
        """Function 43/14, which few devices know."""
        try:
            identity: dict[str, str] = (await self.identify(request))["objects"]
        except (ExceptionAnswerError, TimedOutError):
            return {}
        return identity

    @staticmethod
    async def _sunspec_base(bus: Bus, unit: int) -> int | None:
        for base in BASES:
            request = ReadRegisters(3, base, len(MARKER))
            try:
                if request.decode((await bus.call(unit, request)).data) == MARKER:
                    return base
            except (ExceptionAnswerError, TimedOutError):
                continue
        return None

    async def read_meter(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """All points of a meter, now; they are not stored."""
        meter = self.meters.get(str(request.get("meter")))
        if meter is None:
            known = ", ".join(self.meters) or "none"
            raise RequestError(f"no meter {request.get('meter')!r}", f"the meters are {known}")
        poll = await meter.probe(self.buses[meter.meter.config.bus], self._clock.now)
        found = readings(self.calibrate(poll.records))
        if poll.error is not None and all(reading.value is None for reading in found):
            raise poll.error
        shown = [
            {"point": one.point, "value": one.value, "unit": one.unit, "quality": quality.name(one.quality)}
            for one in found
        ]
        return {"time": iso(max((one.time for one in found), default=None)), "readings": shown}

    def counters(self) -> dict[str, Any]:
        """Counts since the start, by bus and by meter."""
        return {
            "buses": {
                name: {what: bus.counters[what] for what in COUNTERS} for name, bus in self.buses.items()
            },
            "meters": {name: self._meter_counters(meter) for name, meter in self.meters.items()},
        }

    def _meter_counters(self, meter: PolledMeter) -> dict[str, int]:
        bus = self.buses[meter.meter.config.bus]
        counted: Mapping[str, int] = bus.unit_counters.get(meter.meter.config.unit, {})
        # The connection belongs to the bus: its connects are counted there.
        found = {what: counted.get(what, 0) for what in COUNTERS}
        return {**found, "connects": bus.counters["connects"], "missed_polls": meter.schedule.missed}
