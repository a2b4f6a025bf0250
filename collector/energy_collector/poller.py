# SPDX-License-Identifier: Apache-2.0
"""Polls the meters of one bus, each on its own schedule, one request at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from energy_collector import quality
from energy_collector.bus import Bus, BusError
from energy_collector.clock import SourceClock, Stamper
from energy_collector.journal import Faults
from energy_collector.meter import Meter, Poll
from energy_collector.reading import Record
from energy_collector.schedule import Backoff, Schedule


class PolledMeter:
    """A meter with its schedule and how it has fared. Times are ms UTC or None."""

    def __init__(self, meter: Meter, clock: SourceClock, floor: int) -> None:
        self.meter = meter
        self.stamp = Stamper(clock, floor)
        interval = meter.config.interval
        # Polls fall on multiples of the interval in UTC, so that meters of all sites can be added up.
        first = interval - time.time() % interval
        self.schedule = Schedule(time.monotonic() + first, interval)
        self.backoff = Backoff(interval)
        self.last_success: int | None = None
        self.last_error: str | None = None
        self.failures = 0
        self._error: BusError | None = None
        # A probe may ask for the meter while its own poll is under way.
        self._turn = asyncio.Lock()

    async def poll(self, bus: Bus, stamp: Callable[[], int]) -> Poll:
        """Ask the meter now."""
        async with self._turn:
            return await self.meter.poll(bus, stamp)

    async def probe(self, bus: Bus, stamp: Callable[[], int]) -> Poll:
        """Ask the meter for somebody who only looks."""
        async with self._turn:
            return await self.meter.read(bus, stamp)

    async def scheduled_poll(self, bus: Bus) -> Poll:
        """Ask the meter, or spare it while it does not answer: its readings are null either way."""
        if self._error is not None and not self.backoff.may_ask(time.monotonic()):
            return self.meter.unanswered(self.stamp(), self._error)
        poll = await self.poll(bus, self.stamp)
        self._judge(poll)
        return poll

    def _judge(self, poll: Poll) -> None:
        self._error = poll.error
        if poll.error is None:
            self.failures = 0
            self.backoff.succeeded()
        else:
            self.failures += 1
            self.last_error = poll.error.text
            # A bus that cannot be reached refuses at once and must be back with the next poll; only silence
            # costs time.
            if poll.error.quality == quality.BAD_NO_ANSWER or "0x0B" in poll.error.text:
                self.backoff.failed(time.monotonic())
        good = [one.time for one in poll.records if not all(map(quality.is_bad, one.qualities or b"\0"))]
        if good:
            self.last_success = max(good)


class Poller:
    """All meters of one bus."""

    def __init__(
        self,
        bus: Bus,
        meters: list[PolledMeter],
        clock: SourceClock,
        sink: Callable[[list[Record]], None],
        faults: Faults,
    ) -> None:
        self.bus = bus
        self.meters = meters
        self._clock = clock
        self._sink = sink
        self._faults = faults

    async def run(self) -> None:
        """Poll until cancelled."""
        if not self.meters:
            return
        try:
            while True:
                meter = min(self.meters, key=lambda one: one.schedule.due)
                await asyncio.sleep(max(meter.schedule.due - time.monotonic(), 0))
                poll = await meter.scheduled_poll(self.bus)
                self._sink(self._with_clock(poll.records))
                self._tell(meter, poll.error)
                meter.schedule.advance(time.monotonic())
        finally:
            self.bus.close()

    def _with_clock(self, records: list[Record]) -> list[Record]:
        """Good readings taken while the clock was wrong say so."""
        if self._clock.is_right:
            return records
        doubtful = bytes([quality.UNCERTAIN_CLOCK])
        return [
            one._replace(
                qualities=(one.qualities or bytes(len(one.values))).replace(bytes([quality.GOOD]), doubtful)
            )
            for one in records
        ]

    def _tell(self, meter: PolledMeter, error: BusError | None) -> None:
        config = meter.meter.config
        subject = f"meter {config.name} (bus {config.bus}, unit {config.unit})"
        bus_subject = f"bus {config.bus}"
        if error is None:
            self._faults.over(subject)
            self._faults.over(bus_subject)
        elif error.quality == quality.BAD_CONNECTION:
            # One line for the bus, not one for each of its meters.
            self._faults.report(bus_subject, error.text, error.cause)
        else:
            self._faults.over(bus_subject)
            self._faults.report(subject, error.text, error.cause)
