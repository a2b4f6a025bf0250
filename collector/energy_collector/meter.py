# SPDX-License-Identifier: Apache-2.0
"""A meter: asks its bus for the registers of its profile and makes readings of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from energy_collector import quality
from energy_collector.bus import Bus, BusError, ReadRegisters
from energy_collector.config import MeterConfig
from energy_collector.plan import Block, plan
from energy_collector.profile import Profile
from energy_collector.reading import Layout, Record, nulls, record
from energy_collector.values import Value, from_channel, from_registers, point_name

Stamp = Callable[[], int]


class Poll(NamedTuple):
    """What one poll brought, and the first error that some of it is null for."""

    records: list[Record]
    error: BusError | None


class Meter(ABC):
    """One meter of the configuration. `points` are the full names and units of all that it delivers."""

    def __init__(self, config: MeterConfig, profile: Profile) -> None:
        self.config = config
        self.profile = profile
        self.points: dict[str, str] = {}

    @abstractmethod
    async def poll(self, bus: Bus, stamp: Stamp) -> Poll:
        """Ask for everything once; an error becomes null readings."""

    def unanswered(self, time: int, error: BusError) -> Poll:
        """A poll that brought nothing."""
        layout = Layout(tuple(self.points), tuple(self.points.values()))
        return Poll([nulls(layout, time, error.quality)], error)

    def _name(self, point: str) -> str:
        return f"{self.config.name}/{point}"

    def _record(self, time: int, values: dict[str, Value]) -> Record:
        layout = Layout(tuple(values), tuple(self.points[name] for name in values))
        return record(layout, time, list(values.values()))


class BlockMeter(Meter):
    """A meter that is read in `blocks` known from its configuration."""

    blocks: list[Block]

    async def poll(self, bus: Bus, stamp: Stamp) -> Poll:
        """Read all blocks."""
        return await self._read_blocks(bus, stamp, self.blocks)

    async def _read_blocks(self, bus: Bus, stamp: Stamp, blocks: Sequence[Block]) -> Poll:
        """Read block by block; a unit that does not answer is not asked for the rest."""
        records: list[Record] = []
        first: BusError | None = None
        silent: BusError | None = None
        for block in blocks:
            try:
                if silent is not None:
                    raise silent
                request = ReadRegisters(self.profile.function, block.address, block.count)
                answer = await bus.call(self.config.unit, request, stamp)
                registers = request.decode(answer.data)
                records.append(self._record(answer.stamp, self._decode(block, registers)))
            except BusError as error:  # noqa: PERF203  (each request fails for itself)
                first = first or error
                if error.quality in (quality.BAD_NO_ANSWER, quality.BAD_CONNECTION):
                    silent = error
                names = self._names(block)
                layout = Layout(tuple(names), tuple(self.points[name] for name in names))
                records.append(nulls(layout, stamp(), error.quality))
        return Poll(records, first)

    @abstractmethod
    def _names(self, block: Block) -> list[str]:
        """The full names of the points in a block."""

    @abstractmethod
    def _decode(self, block: Block, registers: list[int]) -> dict[str, Value]:
        """The values in the registers of a block, by full name."""


class RegisterMeter(BlockMeter):
    """A meter whose points lie at fixed addresses."""

    def __init__(self, config: MeterConfig, profile: Profile) -> None:
        super().__init__(config, profile)
        self._by_name = {point.name: point for point in profile.points}
        self._full = {point.name: self._name(point_name(point, config)) for point in profile.points}
        self.points = {self._full[point.name]: point.unit for point in profile.points}
        fields = [(point.name, point.address, point.size) for point in profile.points]
        self.blocks = plan(fields, profile.max_block, profile.max_gap)

    def _names(self, block: Block) -> list[str]:
        return [self._full[name] for name in block.fields]

    def _decode(self, block: Block, registers: list[int]) -> dict[str, Value]:
        values = {}
        for name in block.fields:
            point = self._by_name[name]
            start = point.address - block.address
            words = registers[start : start + point.size]
            values[self._full[name]] = from_registers(words, point, self.config, self.profile)
        return values


class AnalogueMeter(BlockMeter):
    """A module with analogue inputs; its points are the channels of the configuration."""

    def __init__(self, config: MeterConfig, profile: Profile) -> None:
        super().__init__(config, profile)
        self._channels = {channel.name: channel for channel in config.channels}
        self.points = {self._name(channel.name): channel.unit for channel in config.channels}
        self._address = {channel.name: profile.inputs[channel.input - 1] for channel in config.channels}
        fields = [(name, address, 1) for name, address in self._address.items()]
        self.blocks = plan(fields, profile.max_block, profile.max_gap)

    def _names(self, block: Block) -> list[str]:
        return [self._name(name) for name in block.fields]

    def _decode(self, block: Block, registers: list[int]) -> dict[str, Value]:
        values = {}
        for name in block.fields:
            raw = registers[self._address[name] - block.address]
            values[self._name(name)] = from_channel(raw, self.profile.full_scale, self._channels[name])
        return values
