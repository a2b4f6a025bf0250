# SPDX-License-Identifier: Apache-2.0
"""Which buses and meters are polled, and how that changes while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from energy_collector.bus import Bus
from energy_collector.clock import SourceClock
from energy_collector.config import BusConfig, Config, MeterConfig
from energy_collector.journal import Faults
from energy_collector.meters.learned import Learned
from energy_collector.meters.making import make
from energy_collector.polling.poller import PolledMeter, Poller
from energy_collector.reading import Record


@dataclass(frozen=True)
class _Plan:
    """All that the polling of one bus depends on: while it stays equal, the bus is left alone."""

    bus: BusConfig
    meters: tuple[MeterConfig, ...]


@dataclass
class _Running:
    plan: _Plan
    task: asyncio.Task[None]


def _plans(config: Config) -> dict[str, _Plan]:
    return {
        bus.name: _Plan(bus, tuple(meter for meter in config.meters if meter.bus == bus.name))
        for bus in config.buses
    }


class Polling:
    """All buses of a site. `buses` and `meters` always show what is polled now."""

    def __init__(
        self,
        clock: SourceClock,
        newest: Callable[[str], int],
        sink: Callable[[list[Record]], None],
        faults: Faults,
        learned: Learned,
    ) -> None:
        """`newest` is the time (ms) that a point has reached: its readings go on after it."""
        self.buses: dict[str, Bus] = {}
        self.meters: dict[str, PolledMeter] = {}
        self._clock = clock
        self._newest = newest
        self._sink = sink
        self._faults = faults
        self._learned = learned
        self._running: dict[str, _Running] = {}
        # Points of a meter that was ended go on after all times that it has given.
        self._floor = 0
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def apply(self, config: Config) -> list[str]:
        """Poll what `config` says; buses that it leaves as they are go on without a gap. Returns the names
        of those that were started, changed or stopped."""
        wanted = _plans(config)
        ended = [name for name, one in self._running.items() if wanted.get(name) != one.plan]
        # All that end do so before others begin: a bus may have got another name, and a line has one master.
        for name in ended:
            await self._end(name)
        begun = [name for name in wanted if name not in self._running]
        for name in begun:
            self._begin(wanted[name])
        return sorted({*ended, *begun})

    async def stop(self) -> None:
        """End the polling of all buses."""
        for name in list(self._running):
            await self._end(name)

    async def failed(self) -> None:
        """Wait for the polling of a bus to end by itself, which is a fault of ours, and raise it."""
        await self._failed

    def _begin(self, plan: _Plan) -> None:
        bus = self.buses[plan.bus.name] = Bus(plan.bus)
        meters = []
        for config in plan.meters:
            meter = make(config, self._learned)
            floor = max(map(self._newest, meter.points), default=0)
            floor = max(floor, self._floor)
            polled = self.meters[config.name] = PolledMeter(meter, self._clock, floor)
            meters.append(polled)
        task = asyncio.create_task(Poller(bus, meters, self._sink, self._faults).run())
        task.add_done_callback(self._ended)
        self._running[plan.bus.name] = _Running(plan, task)

    async def _end(self, name: str) -> None:
        running = self._running.pop(name)
        running.task.cancel()
        await asyncio.gather(running.task, return_exceptions=True)
        for meter in running.plan.meters:
            self._floor = max(self._floor, self.meters.pop(meter.name).stamp())
        self.buses.pop(name).close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._failed.done():
            return
        error = task.exception()
        if error is not None:
            self._failed.set_exception(error)
