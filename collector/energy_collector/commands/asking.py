# SPDX-License-Identifier: Apache-2.0
"""Requests to the buses: through the running gateway, or by ourselves where none runs and the buses are free."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

from energy_collector import control
from energy_collector.bus import Bus
from energy_collector.clock import SourceClock
from energy_collector.config import Config
from energy_collector.meters.making import make
from energy_collector.operations import Operations
from energy_collector.polling.poller import PolledMeter

Request = dict[str, Any]
Answer = dict[str, Any]


def ask(settings: Config, requests: Iterable[Request]) -> Iterator[Answer]:
    """An answer for each request, as soon as it is there."""
    try:
        control.ask(settings.control_socket, {"op": "status"})
    except control.NotRunningError:
        yield from _Direct(settings).ask(requests)
    else:
        for request in requests:
            yield control.ask(settings.control_socket, request)


class _Direct:
    """Buses and meters of our own for the length of a command."""

    def __init__(self, settings: Config) -> None:
        self._settings = settings

    def ask(self, requests: Iterable[Request]) -> Iterator[Answer]:
        loop = asyncio.new_event_loop()
        buses = {one.name: Bus(one) for one in self._settings.buses}
        clock = SourceClock()
        meters = {one.name: PolledMeter(make(one), clock, 0) for one in self._settings.meters}
        operations = Operations(buses, meters, clock)
        try:
            for request in requests:
                yield loop.run_until_complete(self._answer(operations, request))
        finally:
            for bus in buses.values():
                bus.close()
            # What was hung up says so in the next round of the loop.
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    async def _answer(self, operations: Operations, request: Request) -> Answer:
        if request.get("meter") in {one.name for one in self._settings.radio_meters}:
            error = f"{request['meter']} reports by radio, and the gateway, which listens, does not run"
            return {"ok": False, "error": error, "cause": "energy-gateway.service is stopped"}
        try:
            return {"ok": True, **await operations.handle(request)}
        except control.RequestError as error:
            return {"ok": False, "error": error.error, "cause": error.cause}
