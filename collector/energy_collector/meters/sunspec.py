# SPDX-License-Identifier: Apache-2.0
"""SunSpec devices: the models are found at run time, then read as they lie.

SunSpec Device Information Model Specification 1.1: the map begins with "SunS" at 40000, 50000 or 0; then
come models, each with its id and its length, until the id 0xFFFF. The length does not count the two registers of id
and length. Scale factors are read with every poll, since a device may change them with its range.
"""

from __future__ import annotations

from collections.abc import Sequence

from energy_collector import quality
from energy_collector.bus import Bus, BusError, ReadRegisters
from energy_collector.config import MeterConfig
from energy_collector.meters.learned import Learned
from energy_collector.meters.meter import Meter, Poll, Stamp, is_refusal
from energy_collector.meters.plan import Block, Span, plan
from energy_collector.meters.profile import Point, Profile, Serial, SunSpecModel, point_name
from energy_collector.meters.registers import Field, Unpacker
from energy_collector.meters.values import Conversion, counter
from energy_collector.reading import Layout, Record, nulls

BASES = (40000, 50000, 0)
MARKER = [0x5375, 0x6E53]
END = 0xFFFF
HEADER_SIZE = 2
# More models than any device has: a map that never ends is no map.
MAX_MODELS = 64
LAST_ADDRESS = 65535
# The common model, number 1: its point SN, 16 registers of text.
COMMON, SERIAL_ADDRESS, SERIAL_SIZE = 1, 50, 16


class ModelNotFoundError(BusError):
    """The device has no SunSpec map, or not the model that its profile is about."""

    def __init__(self, text: str) -> None:
        cause = "switch SunSpec on in the device, or check the unit id and the meter's profile"
        super().__init__("exceptions", f"REGISTER_READ_FAILURE: {text}", cause, quality.BAD_CONFIGURATION)


class Part:
    """One request for some registers of a model: its points first, then what decides about them."""

    def __init__(
        self, meter: SunSpecMeter, function: int, base: int, block: Block, points: Sequence[Point]
    ) -> None:
        self.request = ReadRegisters(function, base + block.address, block.count)
        names = {span.name for span in block.spans}
        self.points = [point for point in points if point.name in names]
        self.layout = meter.layout(self.points)
        # A scale factor may be named by many points.
        self.controls = sorted({span.address for span in block.spans if not span.name})
        fields = [point.field for point in self.points]
        fields += [Field(address, "int16") for address in self.controls]
        self.unpack = Unpacker(fields, block.address)
        self.convert: Conversion


class Found:
    """A model of the profile, found in a device: where its id is, and what of it is read."""

    def __init__(
        self, meter: SunSpecMeter, model: SunSpecModel, address: int, header: tuple[int, int]
    ) -> None:
        self.header = header
        self.points = meter.points_of(model, header[1])
        self._meter = meter
        self._direction = model.direction_address
        controls = {0, 1, *(one.scale_address for one in self.points if one.scale_address is not None)}
        if self._direction is not None:
            controls.add(self._direction)
        spans = [Span(point.name, point.address, point.size) for point in self.points]
        spans += [Span("", control, 1) for control in controls]
        profile = meter.profile
        self.parts = [
            Part(meter, profile.function, address, block, self.points)
            for block in plan(spans, profile.max_block, profile.max_gap)
        ]
        self._controls: dict[int, int | float] = {}

    async def read(self, bus: Bus, stamp: Stamp) -> list[Record]:
        """Raises BusError, also where another model has come in this one's place."""
        answers = [await bus.call(self._meter.config.unit, part.request, stamp) for part in self.parts]
        numbers = [part.unpack(answer.data) for part, answer in zip(self.parts, answers, strict=True)]
        controls: dict[int, int | float] = {}
        for part, found in zip(self.parts, numbers, strict=True):
            controls.update(zip(part.controls, found[len(part.points) :], strict=True))
        if controls != self._controls:
            self._check(controls)
            self._prepare(controls)
        return [
            Record(part.layout, answer.stamp, *part.convert(found[: len(part.points)]))
            for part, answer, found in zip(self.parts, answers, numbers, strict=True)
            if part.points
        ]

    def _check(self, controls: dict[int, int | float]) -> None:
        header = (int(controls[0]) & 0xFFFF, int(controls[1]) & 0xFFFF)
        if header != self.header:
            raise ModelNotFoundError(
                f"model {header[0]} has come where {self.header[0]} was; its map is read anew"
            )

    def _prepare(self, controls: dict[int, int | float]) -> None:
        """Work out what the scale factors and the direction make of the numbers; they rarely change."""
        direction = None if self._direction is None else int(controls[self._direction])
        for part in self.parts:
            exponents = [
                0 if point.scale_address is None else int(controls[point.scale_address])
                for point in part.points
            ]
            part.convert = Conversion(
                part.points, self._meter.config, self._meter.profile, exponents, direction
            )
            self._meter.set_counters(part.points, exponents)
        self._controls = controls


class SunSpecMeter(Meter):
    """A SunSpec device. The models found are kept until the device refuses them or shows others in their place, and
    are looked for anew after every silence or new connection: it may have come back with another layout."""

    def __init__(self, config: MeterConfig, profile: Profile, learned: Learned | None = None) -> None:
        super().__init__(config, profile, learned)
        self._wanted = [
            point
            for model in profile.models
            for point in model.points
            if not config.points or point_name(point.name, reverse=config.reverse) in config.points
        ]
        self.points = {self._full(point): point.unit for point in self._wanted}
        self._found: list[Found] = []
        self._serial: Serial | None = None

    def layout(self, points: Sequence[Point]) -> Layout:
        """Of some points."""
        return self._layout_of(map(self._full, points))

    def set_counters(self, points: Sequence[Point], exponents: Sequence[int]) -> None:
        """How far the counters among some points count, which their scale factors decide as well."""
        for point, exponent in zip(points, exponents, strict=True):
            rolls = counter(point, self.config, exponent)
            if rolls is not None:
                self.counters[self._full(point)] = rolls

    def points_of(self, model: SunSpecModel, length: int) -> list[Point]:
        """Those asked for that lie within a model of `length`, since older devices have shorter ones, and that no
        model before has."""
        end = HEADER_SIZE + length
        seen = {point.name for found in self._found for point in found.points}
        return [
            point
            for point in model.points
            if point in self._wanted
            and point.name not in seen
            and max(point.end, (point.scale_address or 0) + 1, (model.direction_address or 0) + 1) <= end
        ]

    def _full(self, point: Point) -> str:
        return self._name(point_name(point.name, reverse=self.config.reverse))

    async def read(self, bus: Bus, stamp: Stamp) -> Poll:
        """Find the models if need be, and read them."""
        records: list[Record] = []
        try:
            if not self._found:
                await self._discover(bus)
            for found in self._found:
                records += await found.read(bus, stamp)
        except BusError as error:
            return self._broken(records, error, stamp)
        return Poll(records, None)

    def _broken(self, records: list[Record], error: BusError, stamp: Stamp) -> Poll:
        """What was read before an error stays; the rest is null."""
        read = {point for one in records for point in one.layout.points}
        expected = [part.layout for one in self._found for part in one.parts if part.points]
        if is_refusal(error) or isinstance(error, ModelNotFoundError):
            self._found = []
        if not expected:
            return self.unanswered(stamp(), error)
        missing = [layout for layout in expected if not read.issuperset(layout.points)]
        return Poll(records + [nulls(layout, stamp(), error.quality) for layout in missing], error)

    async def _read(self, bus: Bus, address: int, count: int) -> list[int]:
        request = ReadRegisters(self.profile.function, address, count)
        answer = await bus.call(self.config.unit, request)
        return request.decode(answer.data)

    async def _serial_place(self, bus: Bus) -> Serial | None:
        await self._discover(bus)
        return self._serial

    def _forget(self) -> None:
        self._found = []

    async def _discover(self, bus: Bus) -> None:
        """Walk the map. The profile's first model, or one that stands in for it, has to be there."""
        self._found = []
        self._serial = None
        base = await self._find_base(bus)
        known = {number: model for model in self.profile.models for number in model.ids}
        present: set[int] = set()
        address = base + len(MARKER)
        for _ in range(MAX_MODELS):
            if address + HEADER_SIZE > LAST_ADDRESS:
                break
            number, length = await self._read(bus, address, HEADER_SIZE)
            if number == END:
                break
            if number == COMMON and length + HEADER_SIZE >= SERIAL_ADDRESS + SERIAL_SIZE:
                self._serial = Serial(address + SERIAL_ADDRESS, "string", SERIAL_SIZE, self.profile.function)
            if number in known:
                present.add(number)
                found = Found(self, known[number], address, (number, length))
                if found.points:
                    self._found.append(found)
            address += HEADER_SIZE + length
        if not present.intersection(self._first_ids()):
            self._found = []
            wanted = ", ".join(map(str, known))
            raise ModelNotFoundError(f"the SunSpec map at {base} has none of the models {wanted}")
        if not self._found:
            raise ModelNotFoundError(f"the SunSpec map at {base} has none of the points asked for")
        # Points that this device does not have are not null, there are none.
        self._all = self.layout([point for found in self._found for point in found.points])

    def _first_ids(self) -> set[int]:
        """The models that have what the profile's first model is there for."""
        name = self.profile.models[0].points[0].name
        return {
            number
            for model in self.profile.models
            if any(point.name == name for point in model.points)
            for number in model.ids
        }

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
