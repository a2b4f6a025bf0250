# SPDX-License-Identifier: Apache-2.0
"""Polls the meters of one bus, each on its own schedule, and keeps dead ones out of the way of the others.

A meter that does not answer is *silent* from then on. Its polls yield nulls at their due times without a request;
it is asked again, rarer and rarer, in the time that is left until the next poll of a meter that is well. What a
dead unit may cost the others:

- its first time-out, cut so that no other poll is an interval late;
- afterwards what is left of the bus's time; every other attempt, or one that has waited in vain for time to be
  left, may again make others late by less than an interval;
- at the longest back-off, every five minutes, a whole time-out if the unit has never answered yet: it may be one
  that needs it.

When no meter of the bus answers there is nobody to protect, and the silent ones are asked in turn. As soon as one
answers again, or the connection is made anew, the others are forgiven: a cable that was out, or a gateway without
power, was no fault of theirs.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable

from energy_collector import quality
from energy_collector.bus import Bus, BusError
from energy_collector.bus.bus import Traffic
from energy_collector.bus.unit import Unit
from energy_collector.clock import SourceClock, Stamper
from energy_collector.journal import Faults
from energy_collector.meters.meter import Meter, Poll
from energy_collector.polling.schedule import Backoff, Lateness, Schedule, sleep_until
from energy_collector.reading import Record

# What waking up and sending take, in s: time is left for others only beyond it.
MARGIN = 0.003
# A request of somebody else (a probe) waits for time to be left, but no longer than this. In s.
MAX_PAUSE = 10.0
# Polls that wait are given at most this part of an interval, when it is worked out how long one may last.
MAX_RESERVE = 0.5
# Nobody sleeps longer than this, in s: what the plan was made on may have changed.
LONGEST_SLEEP = 1.0


def first_due(interval: float) -> float:
    """The next multiple of the interval in UTC, on the monotonic clock: so that meters of all sites can be added
    up. It is up to a millisecond later, and thereby the same for all meters of one interval."""
    offset = math.floor((time.time() - time.monotonic()) * 1000) / 1000
    now = time.monotonic() + offset
    return (math.floor(now / interval) + 1) * interval - offset


class PolledMeter:
    """A meter with its schedule and how it has fared. Times are ms UTC or None."""

    def __init__(self, meter: Meter, clock: SourceClock, floor: int) -> None:
        self.meter = meter
        self.stamp = Stamper(clock, floor)
        interval = meter.config.interval
        self.schedule = Schedule(first_due(interval), interval)
        self.backoff = Backoff(interval)
        self.last_success: int | None = None
        self.last_error: str | None = None
        self.failures = 0
        # Why it counts as silent; None while it is well.
        self.silence: BusError | None = None
        # Whether the poller is asking it, and until when that may hold the line (on the monotonic clock; None:
        # as long as others can wait).
        self.is_asked = False
        self.hold_until: float | None = None
        self._lateness = Lateness()
        self._unsent_due: float | None = None
        # A probe may ask for the meter while its own poll is under way.
        self._turn = asyncio.Lock()

    @property
    def is_busy(self) -> bool:
        """Whether somebody asks it just now, the poller or a probe."""
        return self._turn.locked()

    def lateness(self, part: float) -> float | None:
        """How many ms after their due times that part of the last polls (0.5, 0.99) were sent at most."""
        return self._lateness.percentile(part)

    async def poll(self, bus: Bus, stamp: Callable[[], int]) -> Poll:
        """Ask the meter now."""
        async with self._turn:
            return await self.meter.poll(bus, stamp)

    async def probe(self, bus: Bus, stamp: Callable[[], int]) -> Poll:
        """Ask the meter for somebody who only looks."""
        async with self._turn:
            return await self.meter.read(bus, stamp)

    async def scheduled_poll(self, bus: Bus) -> Poll:
        """Ask the meter for the poll that is due."""
        self._unsent_due = self.schedule.due
        poll = await self.ask(bus)
        self._unsent_due = None
        return poll

    async def ask(self, bus: Bus) -> Poll:
        """Ask the meter, and see how it fares."""
        self.is_asked = True
        try:
            poll = await self.poll(bus, self._stamp)
        finally:
            self.is_asked = False
        self._judge(poll)
        return poll

    def null(self) -> Poll:
        """The poll of a silent meter."""
        if self.silence is None:
            raise RuntimeError(f"the meter {self.meter.config.name} is not silent")
        self.failures += 1
        return self.meter.unanswered(self.stamp(), self.silence)

    def _stamp(self) -> int:
        if self._unsent_due is not None:
            self._lateness.add(time.monotonic() - self._unsent_due)
            self._unsent_due = None
        return self.stamp()

    def _judge(self, poll: Poll) -> None:
        good = [one.time for one in poll.records if not one.qualities or min(one.qualities) < quality.BAD]
        if good:
            self.last_success = max(good)
        if poll.error is None:
            self.failures = 0
            self.silence = None
            self.backoff.succeeded()
            return
        self.failures += 1
        self.last_error = poll.error.text
        # A bus that cannot be reached refuses at once and must be back with the next poll; a unit that answers
        # some requests and not others lives.
        if poll.error.is_silence and not good:
            self.silence = poll.error
            self.backoff.failed(time.monotonic())
        else:
            self.silence = None
            self.backoff.succeeded()


class Poller(Traffic):
    """All meters of one bus."""

    def __init__(
        self,
        bus: Bus,
        meters: list[PolledMeter],
        sink: Callable[[list[Record]], None],
        faults: Faults,
    ) -> None:
        self.bus = bus
        self.meters = meters
        self._sink = sink
        self._faults = faults
        self._by_unit = {one.meter.config.unit: one for one in meters}
        self._order = {one: index for index, one in enumerate(meters)}
        # The meters that are well and not being asked, the one that is due first at the top.
        self._due: list[tuple[float, int, PolledMeter]] = []
        # The silent ones, each with the timer for its next null.
        self._silent: dict[PolledMeter, asyncio.TimerHandle | None] = {}
        self._shortest = min((one.schedule.interval for one in meters), default=0.0)
        # How long the polls of a meter that is well take, smoothed, in s.
        self._usual = 0.0
        self._connects = 0
        self._paused_since: dict[int, float] = {}

    async def run(self) -> None:
        """Poll until cancelled."""
        if not self.meters:
            return
        alone, self.bus.traffic = self.bus.traffic, self
        for meter in self.meters:
            self._await_due(meter)
        workers = [
            asyncio.create_task(self._work()) for _ in range(min(self.bus.config.pipeline, len(self.meters)))
        ]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            for timer in self._silent.values():
                if timer is not None:
                    timer.cancel()
            self.bus.traffic = alone
            self.bus.close()

    # What the bus asks us about each request.

    def pause(self, unit: Unit) -> float:
        """Requests of the poller itself are timed already. Others, probes, wait until time is left."""
        meter = self._by_unit.get(unit.number)
        if meter is not None and meter.is_asked:
            return 0.0
        now = time.monotonic()
        left = self._next_due() - now - MARGIN
        if left < unit.least and now - self._paused_since.setdefault(unit.number, now) < MAX_PAUSE:
            return max(left + MARGIN, 0.0) + self._usual + MARGIN
        self._paused_since.pop(unit.number, None)
        return 0.0

    def limit(self, unit: Unit) -> float:
        """A poll that is due may make others late by less than the shortest interval, all that wait for their
        own polls included; anything else only takes what is left."""
        meter = self._by_unit.get(unit.number)
        if meter is not None and meter.is_asked and meter.hold_until is None:
            return self._latest() - time.monotonic()
        hold = meter.hold_until if meter is not None and meter.is_asked else None
        return (self._next_due() - MARGIN if hold is None else hold) - time.monotonic()

    def _next_due(self) -> float:
        return self._due[0][0] if self._due else math.inf

    def _latest(self) -> float:
        """When the line has to be free again so that no poll is an interval late."""
        reserve = min(len(self._due) * self._usual, MAX_RESERVE * self._shortest)
        return self._next_due() + self._shortest - reserve - MARGIN

    # The work.

    async def _work(self) -> None:
        while True:
            now = time.monotonic()
            due = self._next_due()
            if due <= now:
                await self._poll(heapq.heappop(self._due)[2])
                continue
            found, hold_until = self._to_ask_again(now, due)
            if found is not None:
                await self._ask_again(found, hold_until)
                continue
            # `hold_until` is when one of the silent may be asked.
            await sleep_until(min(due, hold_until, now + LONGEST_SLEEP))

    async def _poll(self, meter: PolledMeter) -> None:
        started = time.monotonic()
        meter.hold_until = None
        poll = await meter.scheduled_poll(self.bus)
        now = time.monotonic()
        if poll.error is None:
            took = now - started
            self._usual += (took - self._usual) / 8 if self._usual else took
        self._deliver(meter, poll)
        meter.schedule.advance(now)
        self._forgive_after_reconnect()
        self._await_due(meter)

    def _await_due(self, meter: PolledMeter) -> None:
        """Put the meter where it belongs until its next poll."""
        if meter.silence is None:
            heapq.heappush(self._due, (meter.schedule.due, self._order[meter], meter))
            return
        loop = asyncio.get_running_loop()
        self._silent[meter] = loop.call_at(meter.schedule.due, self._null, meter)

    def _null(self, meter: PolledMeter) -> None:
        """A silent meter's poll is due. While it is just being asked, that attempt stands for the poll."""
        if meter.is_asked:
            self._silent[meter] = None
            return
        self._sink(meter.null().records)
        meter.schedule.advance(time.monotonic())
        self._await_due(meter)

    def _deliver(self, meter: PolledMeter, poll: Poll) -> None:
        self._sink(poll.records)
        self._tell(meter, poll.error)

    # The silent ones.

    def _to_ask_again(self, now: float, due: float) -> tuple[PolledMeter | None, float]:
        """The silent meter to ask now, and until when it may hold the line; or None, and when to look again."""
        left = due - now - MARGIN
        look_again = math.inf
        for meter in self._silent:
            if meter.is_busy:
                continue
            unit = self.bus.unit(meter.meter.config.unit)
            ready = meter.backoff.until
            if left == math.inf:
                ready = min(ready, meter.backoff.failed_at + meter.schedule.interval)
            ready = max(ready, unit.late_until if unit.late is not None else 0.0)
            if ready > now:
                look_again = min(look_again, ready)
                continue
            if left >= max(unit.least, unit.hold):
                return meter, self._hold_until(meter, unit, now, due - MARGIN)
            # No time is left before the next poll. After an interval of that it is taken.
            if now - ready >= meter.schedule.interval:
                return meter, self._latest()
            look_again = min(look_again, ready + meter.schedule.interval)
        return None, look_again

    def _hold_until(self, meter: PolledMeter, unit: Unit, now: float, left_until: float) -> float:
        if now + unit.timeout <= left_until or meter.backoff.failures % 2:
            return left_until
        if unit.longest is None and meter.backoff.wait >= 256:
            return now + unit.timeout
        return max(self._latest(), left_until)

    async def _ask_again(self, meter: PolledMeter, hold_until: float) -> None:
        was_alone = not self._due
        meter.hold_until = hold_until
        poll = await meter.ask(self.bus)
        if meter.silence is None:
            timer = self._silent.pop(meter)
            if timer is None:
                meter.schedule.advance(time.monotonic())
            else:
                timer.cancel()
            self._deliver(meter, poll)
            if was_alone:
                self._forgive()
            self._await_due(meter)
        elif self._silent[meter] is None:
            # Its poll fell due meanwhile: this attempt was it.
            self._deliver(meter, poll)
            meter.schedule.advance(time.monotonic())
            self._await_due(meter)
        else:
            self._tell(meter, poll.error)
        self._forgive_after_reconnect()

    def _forgive(self) -> None:
        for meter in self._silent:
            meter.backoff.forgive()

    def _forgive_after_reconnect(self) -> None:
        connects = self.bus.counters["connects"]
        if connects != self._connects:
            self._connects = connects
            self._forgive()

    # What others hear.

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
