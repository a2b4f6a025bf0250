# SPDX-License-Identifier: Apache-2.0
"""What becomes of records between the poller and the buffer: counters are judged, calibrations applied, events
and statistics made. The order matters: a calibration must not look like a reset, and statistics are those of
calibrated values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from energy_collector.config import Config, MeterConfig, RadioMeterConfig
from energy_collector.journal import Faults
from energy_collector.meters.values import Counter
from energy_collector.reading import Layout, Record
from energy_collector.stages.calibration import Calibration
from energy_collector.stages.counters import ENERGY_UNITS, Counters
from energy_collector.stages.power_quality import PowerQuality
from energy_collector.stages.stage import Chain, PerLayout, split
from energy_collector.stages.statistics import Statistics

Sink = Callable[[list[Record]], None]


class Measured(Protocol):
    """What the stages have to know of a meter, whether it is asked or heard: see `Meter`. `states` are the points that
    are one of a few words and not a quantity: their newest value says more than a mean."""

    exchanged: bool

    @property
    def config(self) -> MeterConfig | RadioMeterConfig:
        """With its name."""

    @property
    def points(self) -> Mapping[str, str]:
        """Full names and units."""

    @property
    def counters(self) -> Mapping[str, Counter]:
        """Those of its points that roll over."""

    @property
    def states(self) -> Collection[str]:
        """Full names."""


class Processing:
    """All stages of a site. `newest` is the time (ms) that a point has reached before this run."""

    def __init__(
        self, calibration: Calibration, newest: Callable[[str], int], sink: Sink, faults: Faults
    ) -> None:
        self._calibration = calibration
        self._newest = newest
        self._sink = sink
        self._faults = faults
        self._meters: Mapping[str, Measured] = {}
        self._counters: Counters | None = None
        self._events: PowerQuality | None = None
        self._statistics: Statistics | None = None
        self._chain = Chain([calibration])
        self._meter_of = PerLayout(self._find_meter)
        # Meters whose exchange the counters know of, until a poll finds the same device again.
        self._exchanged: set[str] = set()
        # How many of a meter's counters the stage knows the range of.
        self._known: dict[str, int] = {}

    def configure(self, config: Config, meters: Mapping[str, Measured]) -> None:
        """Work for these meters from now on; what concerns those that stay as they were goes on."""
        self._meters = meters
        self._meter_of = PerLayout(self._find_meter)
        units = {point: unit for meter in meters.values() for point, unit in meter.points.items()}
        highest: dict[str, float | None] = {
            point: None for point, unit in units.items() if unit in ENERGY_UNITS
        }
        for meter in meters.values():
            highest.update({point: one.highest for point, one in meter.counters.items()})
        counters = Counters.from_config(config, highest, units, self._faults)
        events = PowerQuality.from_config(config)
        states = {point for meter in meters.values() for point in meter.states}
        statistics = Statistics.from_config(config, {*highest, *states}, self._newest)
        left: list[Record] = []
        if self._counters is not None:
            counters.adopt(self._counters)
        if self._events is not None:
            left += events.adopt(self._events)
        if self._statistics is not None:
            left += self._statistics.take(left) + statistics.adopt(self._statistics)
        self._known = {name: len(meter.counters) for name, meter in meters.items()}
        self._counters, self._events, self._statistics = counters, events, statistics
        self._chain = Chain([counters, self._calibration, events, statistics])
        if left:
            self._sink(left)

    def take(self, records: list[Record]) -> None:
        """What one poll has brought."""
        for record in records:
            meter = self._meter_of(record.layout)
            if meter is not None:
                self._look_at(meter)
        found = self._chain.take(records)
        if found:
            self._sink(found)

    def tick(self, now: int) -> None:
        """About once a second, with the source's time in ms: what is due though no record came."""
        found = self._chain.tick(now)
        if found:
            self._sink(found)

    def close(self) -> None:
        """At the end: what is still held back."""
        found = self._chain.close()
        if found:
            self._sink(found)

    def raw_until(self, meter: str, points: list[str], until: int) -> list[str]:
        """Give every sample of some points (short names) until a time in ms, besides the statistics. Returns their
        full names; KeyError for a meter without statistics."""
        if self._statistics is None:
            raise KeyError(meter)
        return self._statistics.raw_until(meter, points, until)

    def _look_at(self, meter: Measured) -> None:
        name = meter.config.name
        if self._counters is not None and self._known.get(name, 0) != len(meter.counters):
            # A SunSpec device tells with its first answers how far its counters count.
            self._known[name] = len(meter.counters)
            for point, one in meter.counters.items():
                self._counters.rolls_over(point, one.highest)
        if not meter.exchanged:
            self._exchanged.discard(name)
        elif name not in self._exchanged and self._counters is not None:
            self._exchanged.add(name)
            self._counters.exchanged(name)

    def _find_meter(self, layout: Layout) -> Measured | None:
        return self._meters.get(split(layout.points[0])[0]) if layout.points else None
