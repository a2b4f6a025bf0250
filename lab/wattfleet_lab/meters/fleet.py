# SPDX-License-Identifier: Apache-2.0
"""All simulated sites of one process: opening, closing, and taking over a changed description."""

import asyncio
import logging
from functools import partial

from wattfleet_lab.meters import description, namespace
from wattfleet_lab.meters.answers import AnswerLog
from wattfleet_lab.meters.device import Device, LineCounters
from wattfleet_lab.meters.faults import Faults
from wattfleet_lab.meters.server import Connection, Line
from wattfleet_lab.meters.site import Site

ANSWERS_KEPT = 2_000_000
_LEAST_KEPT = 10_000
_DAYS_AT_ONCE = 10
_log = logging.getLogger(__name__)


class RunningSite:
    """A site with its open ports. Devices are numbered in the order of the description."""

    def __init__(self, config: description.Site, epoch: float, faults: Faults, kept: int) -> None:
        self.config = config
        self.epoch = epoch
        self.physics = Site(config, epoch)
        self.log = AnswerLog(kept)
        self.meters = [unit.name for unit in config.units()]
        self.lines: list[Line] = []
        self._servers: list[asyncio.Server] = []
        number = 0
        for listener in config.listeners:
            counters = LineCounters()
            devices: dict[int, Device] = {}
            for unit in listener.units:
                devices[unit.unit] = Device(unit, number, self.physics, counters)
                number += 1
            self.lines.append(Line(config.site, listener, devices, counters, faults, self.log))

    async def open(self) -> None:
        """Open all ports. Raises namespace.ListenError, with nothing left open."""
        addresses = [(line.config.address, line.config.port) for line in self.lines]
        sockets = namespace.listen(self.config.site, self.config.netns, addresses)
        loop = asyncio.get_running_loop()
        for line, made in zip(self.lines, sockets, strict=True):
            self._servers.append(await loop.create_server(partial(Connection, line), sock=made))

    def ports(self) -> dict[str, int]:
        """The port each listener really has (0 in the description lets the system choose)."""
        return {
            line.config.name: int(server.sockets[0].getsockname()[1])
            for line, server in zip(self.lines, self._servers, strict=True)
        }

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for line in self.lines:
            for connection in list(line.connections):
                if connection.transport is not None:
                    connection.transport.abort()
        self._servers.clear()


class Fleet:
    """All running sites, by name."""

    def __init__(self) -> None:
        self.sites: dict[str, RunningSite] = {}
        self.faults = Faults()

    async def take(self, wanted: description.Description) -> None:
        """Start new sites, stop those that are gone, restart changed ones; unchanged ones notice nothing.

        Raises namespace.ListenError for the first site that cannot be opened, after the others have been.
        """
        kept = max(_LEAST_KEPT, ANSWERS_KEPT // max(1, len(wanted.sites)))
        sources = {site.site: (site.source, wanted.epoch) for site in wanted.sites}
        for name, running in list(self.sites.items()):
            if sources.get(name) != (running.config.source, running.epoch):
                await running.close()
                del self.sites[name]
                _log.info("site %s: stopped", name)
        failure: namespace.ListenError | None = None
        for config in wanted.sites:
            if config.site in self.sites:
                continue
            running = RunningSite(config, wanted.epoch, self.faults, kept)
            try:
                await running.open()
            except namespace.ListenError as error:
                _log.error("%s", error)
                failure = failure or error
                continue
            self.sites[config.site] = running
            _log.info("site %s: %d meters on %d ports", config.site, len(running.meters), len(running.lines))
        if failure is not None:
            raise failure

    async def warm_up(self, at: float) -> None:
        """Sum up the days since the epoch before clients ask, in pieces so that nobody waits."""
        for running in list(self.sites.values()):
            physics = running.physics
            for day in range(physics.first_day, physics.clock.day(at) + 1, _DAYS_AT_ONCE):
                physics.sum_up(day)
                await asyncio.sleep(0)

    async def close(self) -> None:
        for running in self.sites.values():
            await running.close()
        self.sites.clear()
