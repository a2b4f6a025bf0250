# SPDX-License-Identifier: Apache-2.0
"""SunSpec devices: the models are found at run time, then read as they lie.

SunSpec Device Information Model Specification 1.1: the map begins with "SunS" at 40000, 50000 or 0; then
come models, each with
its id and its length, until the id 0xFFFF. The length does not count the two registers of id and length.
"""

from __future__ import annotations

from collections.abc import Sequence

from energy_collector import quality
from energy_collector.bus import Bus, BusError, ReadRegisters
from energy_collector.config import MeterConfig
from energy_collector.meter import Meter, Poll, Stamp
from energy_collector.plan import Block, plan
from energy_collector.profile import Point, Profile
from energy_collector.registers import decode
from energy_collector.values import Value, from_registers, point_name

BASES = (40000, 50000, 0)
MARKER = [0x5375, 0x6E53]
END = 0xFFFF
HEADER_SIZE = 2
# More models than any device has: a map that never ends is no map.
MAX_MODELS = 64
LAST_ADDRESS = 65535


class ModelNotFoundError(BusError):
    """The device has no SunSpec map, or not the model that its profile is about."""

    def __init__(self, text: str) -> None:
        cause = "switch SunSpec on in the device, or check the unit id and the meter's profile"
        super().__init__("exceptions", f"REGISTER_READ_FAILURE: {text}", cause, quality.BAD_CONFIGURATION)


class SunSpecMeter(Meter):
    """A SunSpec device. The layout found is kept until the device refuses it or shows another model in its
    place."""

    def __init__(self, config: MeterConfig, profile: Profile) -> None:
        super().__init__(config, profile)
        for _, points in profile.models:
            self.points.update({self._full(point): point.unit for point in points})
        self._base: int | None = None
        self._model: Sequence[Point] = ()
        self._length = 0
        self._blocks: list[Block] = []

    def _full(self, point: Point) -> str:
        return self._name(point_name(point, self.config))

    async def poll(self, bus: Bus, stamp: Stamp) -> Poll:
        """Find the model if need be, and read it."""
        try:
            if self._base is None:
                await self._discover(bus)
            registers, times = await self._read_model(bus, stamp)
        except BusError as error:
            if error.quality != quality.BAD_NO_ANSWER:
                self._base = None
            return self.unanswered(stamp(), error)
        readings = []
        for point in self._model:
            name = self._full(point)
            readings.append(self._reading(name, times[name], self._value(point, registers)))
        return Poll(readings, None)

    async def _read(self, bus: Bus, address: int, count: int) -> list[int]:
        request = ReadRegisters(self.profile.function, address, count)
        answer = await bus.call(self.config.unit, request)
        return request.decode(answer.data)

    async def _discover(self, bus: Bus) -> None:
        base = await self._find_base(bus)
        known = {number: points for numbers, points in self.profile.models for number in numbers}
        address = base + len(MARKER)
        for _ in range(MAX_MODELS):
            if address + HEADER_SIZE > LAST_ADDRESS:
                break
            number, length = await self._read(bus, address, HEADER_SIZE)
            if number in known:
                self._use(address, length, known[number])
                return
            if number == END:
                break
            address += HEADER_SIZE + length
        wanted = ", ".join(map(str, known))
        raise ModelNotFoundError(f"the SunSpec map at {base} has none of the models {wanted}")

    async def _find_base(self, bus: Bus) -> int:
        for base in BASES:
            try:
                if await self._read(bus, base, len(MARKER)) == MARKER:
                    return base
            except BusError as error:  # noqa: PERF203  (each request fails for itself)
                # A device may refuse addresses that it has not, or hold its tongue about them.
                if error.quality != quality.BAD_DEVICE_FAILURE:
                    raise
        raise ModelNotFoundError(f"no SunSpec map at {', '.join(map(str, BASES))}")

    def _use(self, address: int, length: int, points: Sequence[Point]) -> None:
        """Keep what lies within the model: older devices have shorter ones."""
        end = HEADER_SIZE + length
        self._model = [
            point
            for point in points
            if max(point.address + point.size, (point.scale_address or 0) + 1) <= end
        ]
        fields = [("", 0, HEADER_SIZE)]
        for point in self._model:
            fields.append((self._full(point), point.address, point.size))
            if point.scale_address is not None:
                fields.append(("", point.scale_address, 1))
        if self.profile.direction_address is not None:
            fields.append(("", self.profile.direction_address, 1))
        blocks = plan(fields, self.profile.max_block, self.profile.max_gap)
        self._base = address
        self._blocks = [
            Block(block.address, block.count, tuple(filter(None, block.fields))) for block in blocks
        ]
        self._length = length

    async def _read_model(self, bus: Bus, stamp: Stamp) -> tuple[dict[int, int], dict[str, int]]:
        """Registers by their address in the model, and the time at which each point was asked for."""
        registers: dict[int, int] = {}
        times: dict[str, int] = {}
        base = self._base or 0
        for block in self._blocks:
            request = ReadRegisters(self.profile.function, base + block.address, block.count)
            answer = await bus.call(self.config.unit, request, stamp)
            registers.update(enumerate(request.decode(answer.data), block.address))
            times.update(dict.fromkeys(block.fields, answer.stamp))
        known = {number for numbers, points in self.profile.models for number in numbers}
        if registers[0] not in known or registers[1] != self._length:
            raise ModelNotFoundError(
                f"model {registers[0]} has come where another one was; its map is read anew"
            )
        return registers, times

    def _value(self, point: Point, registers: dict[int, int]) -> Value:
        factor = 0
        if point.scale_address is not None:
            factor = int(decode([registers[point.scale_address]], "int16"))
        direction = None
        if self.profile.direction_address is not None:
            direction = registers.get(self.profile.direction_address)
        words = [registers[point.address + index] for index in range(point.size)]
        return from_registers(
            words, point, self.config, self.profile, scale_factor=factor, direction=direction
        )
