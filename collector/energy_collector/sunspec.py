# SPDX-License-Identifier: Apache-2.0
"""SunSpec devices: the models are found at run time, then read as they lie.

SunSpec Device Information Model Specification 1.1: the map begins with "SunS" at 40000, 50000 or 0; then
come models, each with
its id and its length, until the id 0xFFFF. The length does not count the two registers of id and length.
"""

from __future__ import annotations

from dataclasses import dataclass

from energy_collector import quality
from energy_collector.bus import Bus, BusError, ReadRegisters
from energy_collector.config import MeterConfig
from energy_collector.meter import Meter, Poll, Stamp
from energy_collector.plan import Block, plan
from energy_collector.profile import Point, Profile, SunSpecModel
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


@dataclass(frozen=True)
class Found:
    """A model of the profile, found in a device: where its id is, and what of it is read."""

    model: SunSpecModel
    number: int
    address: int
    length: int
    points: tuple[Point, ...]
    blocks: tuple[Block, ...]


class SunSpecMeter(Meter):
    """A SunSpec device. The layout found is kept until the device refuses it or shows another model in its
    place."""

    def __init__(self, config: MeterConfig, profile: Profile) -> None:
        super().__init__(config, profile)
        for model in profile.models:
            self.points.update({self._full(point): point.unit for point in model.points})
        self._found: list[Found] = []

    def _full(self, point: Point) -> str:
        return self._name(point_name(point, self.config))

    async def poll(self, bus: Bus, stamp: Stamp) -> Poll:
        """Find the models if need be, and read them."""
        records = []
        try:
            if not self._found:
                self._found = await self._discover(bus)
            for found in self._found:
                registers, times = await self._read_model(found, bus, stamp)
                values: dict[int, dict[str, Value]] = {}
                for point in found.points:
                    name = self._full(point)
                    values.setdefault(times[name], {})[name] = self._value(point, found, registers)
                records += [self._record(time, some) for time, some in values.items()]
        except BusError as error:
            if error.quality != quality.BAD_NO_ANSWER:
                self._found = []
            return self.unanswered(stamp(), error)
        return Poll(records, None)

    async def _read(self, bus: Bus, address: int, count: int) -> list[int]:
        request = ReadRegisters(self.profile.function, address, count)
        answer = await bus.call(self.config.unit, request)
        return request.decode(answer.data)

    async def _discover(self, bus: Bus) -> list[Found]:
        """Walk the map. The profile's first model, or one that stands in for it, has to be there."""
        base = await self._find_base(bus)
        known = {number: model for model in self.profile.models for number in model.ids}
        found: list[Found] = []
        seen: set[str] = set()
        address = base + len(MARKER)
        for _ in range(MAX_MODELS):
            if address + HEADER_SIZE > LAST_ADDRESS:
                break
            number, length = await self._read(bus, address, HEADER_SIZE)
            if number == END:
                break
            if number in known:
                found.append(self._layout(known[number], number, address, length, seen))
                seen.update(point.name for point in found[-1].points)
            address += HEADER_SIZE + length
        if not any(
            point.name == self.profile.models[0].points[0].name for one in found for point in one.points
        ):
            wanted = ", ".join(map(str, known))
            raise ModelNotFoundError(f"the SunSpec map at {base} has none of the models {wanted}")
        return [one for one in found if one.points]

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

    def _layout(self, model: SunSpecModel, number: int, address: int, length: int, seen: set[str]) -> Found:
        """Keep what lies within the model, since older devices have shorter ones, and what is not `seen`."""
        end = HEADER_SIZE + length
        points = tuple(
            point
            for point in model.points
            if point.name not in seen
            and max(point.address + point.size, (point.scale_address or 0) + 1) <= end
        )
        fields = [("", 0, HEADER_SIZE)]
        for point in points:
            fields.append((self._full(point), point.address, point.size))
            if point.scale_address is not None:
                fields.append(("", point.scale_address, 1))
        if model.direction_address is not None:
            fields.append(("", model.direction_address, 1))
        blocks = tuple(
            Block(block.address, block.count, tuple(filter(None, block.fields)))
            for block in plan(fields, self.profile.max_block, self.profile.max_gap)
        )
        return Found(model, number, address, length, points, blocks)

    async def _read_model(
        self, found: Found, bus: Bus, stamp: Stamp
    ) -> tuple[dict[int, int], dict[str, int]]:
        """Registers by their address in the model, and the time at which each point was asked for."""
        registers: dict[int, int] = {}
        times: dict[str, int] = {}
        for block in found.blocks:
            request = ReadRegisters(self.profile.function, found.address + block.address, block.count)
            answer = await bus.call(self.config.unit, request, stamp)
            registers.update(enumerate(request.decode(answer.data), block.address))
            times.update(dict.fromkeys(block.fields, answer.stamp))
        if (registers[0], registers[1]) != (found.number, found.length):
            raise ModelNotFoundError(
                f"model {registers[0]} has come where another one was; its map is read anew"
            )
        return registers, times

    def _value(self, point: Point, found: Found, registers: dict[int, int]) -> Value:
        factor = 0
        if point.scale_address is not None:
            factor = int(decode([registers[point.scale_address]], "int16"))
        direction = None
        if found.model.direction_address is not None:
            direction = registers.get(found.model.direction_address)
        words = [registers[point.address + index] for index in range(point.size)]
        return from_registers(
            words, point, self.config, self.profile, scale_factor=factor, direction=direction
        )
