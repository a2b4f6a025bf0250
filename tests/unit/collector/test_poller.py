# SPDX-License-Identifier: Apache-2.0
"""Polling real servers: dead units among healthy ones, probes in between, and when polls are sent."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace

import pytest
from energy_collector import quality
from energy_collector.bus import Bus, BusError, ReadRegisters
from energy_collector.bus.turns import Turns
from energy_collector.clock import SourceClock
from energy_collector.config import BusConfig, MeterConfig
from energy_collector.control import RequestError
from energy_collector.gateway import meter_status
from energy_collector.journal import Faults
from energy_collector.meters.meter import Meter, Poll, Stamp
from energy_collector.operations import Operations
from energy_collector.polling import poller
from energy_collector.polling.poller import PolledMeter, Poller, first_due
from energy_collector.profiles import load
from energy_collector.reading import Layout, Record, nulls

from .modbus_peers import SerialGateway
from .test_collector_bus import run

# A poll is missed when the machine is late by this, and the tests with it.
INTERVAL = 0.5
SECONDS = 4.0
BOTH = pytest.mark.parametrize("is_tcp", [False, True], ids=["rtu-over-tcp", "modbus-tcp"])


class OneRequest(Meter):
    """A meter with one point, register 9."""

    def __init__(self, config: MeterConfig) -> None:
        super().__init__(config, load("eastron-sdm630"))
        self.points = {f"{config.name}/r": "1"}
        self._layout = Layout(tuple(self.points), ("1",))

    async def read(self, bus: Bus, stamp: Stamp) -> Poll:
        request = ReadRegisters(3, 9, 1)
        try:
            answer = await bus.call(self.config.unit, request, stamp)
        except BusError as error:
            return Poll([nulls(self._layout, stamp(), error.quality)], error)
        return Poll([Record(self._layout, answer.stamp, request.decode(answer.data))], None)


class Site:
    """A bus that is being polled. `good` and `null` are the times (ms UTC) of the records of each unit."""

    def __init__(self, bus: Bus, units: int, interval: float) -> None:
        self.bus = bus
        self.good: dict[int, list[int]] = defaultdict(list)
        self.null: dict[int, list[int]] = defaultdict(list)
        clock = SourceClock()
        self.meters = {
            unit: PolledMeter(
                OneRequest(MeterConfig(f"m-{unit}", "line", unit, "eastron-sdm630", interval)), clock, 0
            )
            for unit in range(1, units + 1)
        }
        self.poller = Poller(bus, list(self.meters.values()), self._take, Faults())
        by_name = {one.meter.config.name: one for one in self.meters.values()}
        self.operations = Operations({"line": bus}, by_name, clock)

    def _take(self, records: list[Record]) -> None:
        for one in records:
            unit = int(one.layout.points[0].split("/")[0].split("-")[1])
            assert one.time > max([0, *self.good[unit][-1:], *self.null[unit][-1:]]), "times have to ascend"
            if one.qualities and min(one.qualities) >= quality.BAD:
                self.null[unit].append(one.time)
            else:
                assert list(one.values) == [9]
                self.good[unit].append(one.time)

    def missed(self, *but: int) -> int:
        return sum(one.schedule.missed for unit, one in self.meters.items() if unit not in but)

    async def until(self, condition: Callable[[], bool], patience: float = 10.0) -> float:
        started = time.monotonic()
        while not condition():
            assert time.monotonic() - started < patience
            await asyncio.sleep(0.01)
        return time.monotonic() - started


@asynccontextmanager
async def polled(
    gateway: SerialGateway, *, is_tcp: bool, units: int = 8, interval: float = INTERVAL, pipeline: int = 1
) -> AsyncIterator[Site]:
    kind = "modbus-tcp" if is_tcp else "rtu-over-tcp"
    bus = Bus(BusConfig("line", kind, "127.0.0.1", gateway.port, timeout=INTERVAL, pipeline=pipeline))
    site = Site(bus, units, interval)
    task = asyncio.create_task(site.poller.run())
    try:
        yield site
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@BOTH
def test_a_dead_unit_costs_the_others_no_poll(is_tcp: bool) -> None:
    async def test() -> None:
        async with SerialGateway(is_tcp=is_tcp, delay=0.01, patience=INTERVAL) as gateway:
            gateway.dead = {3}
            async with polled(gateway, is_tcp=is_tcp) as site:
                await asyncio.sleep(SECONDS)
                assert site.missed() == 0
                for unit in (1, 2, 4, 5, 6, 7, 8):
                    assert not site.null[unit]
                    assert len(site.good[unit]) >= SECONDS / INTERVAL - 2
                # The dead one has a null for each of its polls, and was asked a few times only.
                assert not site.good[3]
                assert len(site.null[3]) >= SECONDS / INTERVAL - 2
                assert 2 <= gateway.asked[3] <= 6
                assert gateway.overlaps == 0 or is_tcp
                assert gateway.most_connections == 1

    run(test())


@BOTH
def test_a_dead_unit_that_answers_again_is_polled_at_once(is_tcp: bool) -> None:
    async def test() -> None:
        async with SerialGateway(is_tcp=is_tcp, delay=0.01, patience=INTERVAL) as gateway:
            gateway.dead = {3}
            async with polled(gateway, is_tcp=is_tcp) as site:
                await asyncio.sleep(1.5)
                gateway.dead = set()
                await site.until(lambda: len(site.good[3]) >= 4)
                assert site.meters[3].silence is None
                assert site.meters[3].failures == 0
                assert site.missed() == 0

    run(test())


@BOTH
def test_a_line_that_was_broken_is_back_with_all_its_units(is_tcp: bool) -> None:
    async def test() -> None:
        async with (
            SerialGateway(is_tcp=is_tcp, delay=0.005, patience=0.2) as gateway,
            polled(gateway, is_tcp=is_tcp, units=4) as site,
        ):
            await site.until(lambda: len(site.good) == 4)
            gateway.dead = {1, 2, 3, 4}
            await site.until(lambda: all(one.silence is not None for one in site.meters.values()))
            await asyncio.sleep(4 * INTERVAL)
            gateway.dead = set()
            for times in site.good.values():
                times.clear()
            # The first one to be asked finds out, in its turn; the others follow in the time that is left.
            await site.until(lambda: all(site.good[unit] for unit in range(1, 5)), 4 * INTERVAL * 5)

    run(test())


@BOTH
def test_probes_do_not_overlap_with_polls(is_tcp: bool) -> None:
    async def test() -> None:
        async with (
            SerialGateway(is_tcp=is_tcp, delay=0.01) as gateway,
            polled(gateway, is_tcp=is_tcp) as site,
        ):
            await probe(site)
            assert gateway.overlaps == 0
            assert site.missed() == 0

    run(test())


async def probe(site: Site) -> None:
    """Probes of all kinds, several at once, over some intervals."""
    await site.until(lambda: len(site.good) == 8)
    for unit in (1, 2, 3, 4):
        answers = await asyncio.gather(
            *(
                site.operations.handle({"op": "read", "bus": "line", "unit": unit, "address": 30, "count": 2})
                for unit in (unit, 5, 6)
            ),
            site.operations.handle({"op": "read_meter", "meter": "m-7"}),
            # A meter may be read while its own poll is under way.
            site.operations.handle({"op": "read_meter", "meter": f"m-{unit}"}),
        )
        assert all(one["registers"] == [30, 31] for one in answers[:3])
        assert all(one["readings"][0]["value"] == 9 for one in answers[3:])


def test_without_turns_they_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the test before."""

    async def no_turn(_self: Turns) -> None:
        return

    async def test() -> None:
        monkeypatch.setattr(Turns, "take", no_turn)
        async with SerialGateway(is_tcp=True, delay=0.01) as gateway, polled(gateway, is_tcp=True) as site:
            await probe(site)
            assert gateway.overlaps > 0

    run(test())


@BOTH
def test_looking_for_units_that_are_not_there_costs_no_poll(is_tcp: bool) -> None:
    async def test() -> None:
        async with SerialGateway(is_tcp=is_tcp, delay=0.01, patience=0.2) as gateway:
            gateway.dead = set(range(100, 110))
            async with polled(gateway, is_tcp=is_tcp) as site:
                await site.until(lambda: len(site.good) == 8)
                for unit in range(100, 106):
                    with pytest.raises(RequestError):
                        await site.operations.handle({"op": "read", "bus": "line", "unit": unit})
                assert site.missed() == 0
                assert not any(site.null.values())

    run(test())


def test_polls_are_sent_at_multiples_of_the_interval_and_none_is_skipped() -> None:
    async def test() -> None:
        async with (
            SerialGateway(is_tcp=True) as gateway,
            polled(gateway, is_tcp=True, units=4, interval=0.1) as site,
        ):
            await asyncio.sleep(3.0)
            assert site.missed() == 0
            for unit, one in site.meters.items():
                # Every due time since the start has a record: the count says so, whatever the machine does.
                polls = round((one.schedule.due - first_due(0.1)) / 0.1)
                assert polls <= 1
                assert len(site.good[unit]) >= 28
                median = sorted(time % 100 for time in site.good[unit])[len(site.good[unit]) // 2]
                assert median < 50
                p50, p99 = one.lateness(0.5), one.lateness(0.99)
                assert p50 is not None
                assert p99 is not None
                assert 0 <= p50 <= p99

    run(test())


def test_the_status_tells_lateness_in_ms() -> None:
    async def test() -> None:
        meter = PolledMeter(
            OneRequest(MeterConfig("main", "hall", 1, "eastron-sdm630", 1.0)), SourceClock(), 0
        )
        assert meter_status("main", meter)["lateness_ms"] == {"p50": None, "p99": None}
        for number in range(1, 101):
            meter._lateness.add(number / 1000)
        assert meter_status("main", meter)["lateness_ms"] == {"p50": 50.0, "p99": 99.0}

    run(test())


def test_several_meters_are_asked_at_once_where_the_device_allows_it() -> None:
    async def test() -> None:
        async with (
            SerialGateway(is_tcp=True, delay=0.01) as gateway,
            polled(gateway, is_tcp=True, pipeline=3) as site,
        ):
            await asyncio.sleep(2.0)
            assert gateway.overlaps > 0
            assert site.missed() == 0
            assert all(len(site.good[unit]) >= 2 for unit in site.meters)
            for times in site.good.values():
                assert all(later > earlier for earlier, later in pairwise(times))

    run(test())


@pytest.mark.parametrize("interval", [0.1, 1.0, 10.0, 900.0])
def test_due_times_lie_on_multiples_of_the_interval_in_utc(
    monkeypatch: pytest.MonkeyPatch, interval: float
) -> None:
    # Up and running for 5,000 s, at a moment that is no multiple of anything.
    clocks = SimpleNamespace(time=lambda: 1_790_000_123.4567, monotonic=lambda: 5_000.0011)
    monkeypatch.setattr(poller, "time", clocks)
    due = first_due(interval)
    assert clocks.monotonic() < due <= clocks.monotonic() + interval + 0.001
    utc = due - clocks.monotonic() + clocks.time()
    # Up to a millisecond behind a multiple; a float of this size is right to 0.24 microseconds.
    assert (utc + 1e-6) % interval <= 0.001 + 2e-6
    # The same for a meter that reads its clocks a little farther apart.
    monkeypatch.setattr(clocks, "monotonic", lambda: 5_000.0009)
    assert first_due(interval) == due
