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
from energy_collector.reading import Reading
from energy_collector.values import Value, from_channel, from_registers, point_name

Stamp = Callable[[], int]


class Poll(NamedTuple):
    """The readings of one poll, and the first error that some of them are null for."""

    readings: list[Reading]
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
        return Poll(
            [Reading(name, unit, time, None, error.quality) for name, unit in self.points.items()], error
        )

    def _name(self, point: str) -> str:
        return f"{self.config.name}/{point}"

    def _reading(self, name: str, time: int, value: Value) -> Reading:
        return Reading(name, self.points[name], time, value.value, value.quality)


class BlockMeter(Meter):
    """A meter that is read in `blocks` known from its configuration."""

    blocks: list[Block]

    async def poll(self, bus: Bus, stamp: Stamp) -> Poll:
        """Read all blocks."""
        return await self._read_blocks(bus, stamp, self.blocks)

    async def _read_blocks(self, bus: Bus, stamp: Stamp, blocks: Sequence[Block]) -> Poll:
        """Read block by block; a unit that does not answer is not asked for the rest."""
        readings: list[Reading] = []
        first: BusError | None = None
        silent: BusError | None = None
        for block in blocks:
            try:
                if silent is not None:
                    raise silent
                request = ReadRegisters(self.profile.function, block.address, block.count)
                answer = await bus.call(self.config.unit, request, stamp)
                registers = request.decode(answer.data)
                readings += self._decode(block, registers, answer.stamp)
            except BusError as error:  # noqa: PERF203  (each request fails for itself)
                first = first or error
                if error.quality in (quality.BAD_NO_ANSWER, quality.BAD_CONNECTION):
                    silent = error
                time = stamp()
                readings += [
                    Reading(name, self.points[name], time, None, error.quality) for name in self._names(block)
                ]
        return Poll(readings, first)

    @abstractmethod
    def _names(self, block: Block) -> list[str]:
        """The full names of the points in a block."""

    @abstractmethod
    def _decode(self, block: Block, registers: list[int], time: int) -> list[Reading]:
        """The readings in the registers of a block."""


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

    def _decode(self, block: Block, registers: list[int], time: int) -> list[Reading]:
        readings = []
        for name in block.fields:
            point = self._by_name[name]
            start = point.address - block.address
            value = from_registers(registers[start : start + point.size], point, self.config, self.profile)
            readings.append(self._reading(self._full[name], time, value))
        return readings


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

    def _decode(self, block: Block, registers: list[int], time: int) -> list[Reading]:
        readings = []
        for name in block.fields:
            raw = registers[self._address[name] - block.address]
            value = from_channel(raw, self.profile.full_scale, self._channels[name])
            readings.append(self._reading(self._name(name), time, value))
        return readings
