# SPDX-License-Identifier: Apache-2.0
"""Voltage events and unbalance from the samples of a meter.

Classes, bounds of magnitude and of duration: IEEE Std 1159-2009, table of categories and typical characteristics of
power system electromagnetic phenomena; an event's class is its number in that table without the points. Begin, end
and hysteresis: IEC 61000-4-30:2015, 5.4. docs/explanation/edge-statistics.md says what a sampling rate can show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from energy_collector import quality
from energy_collector.config import Config, MeterConfig
from energy_collector.reading import Layout, Record
from energy_collector.stages.stage import PerLayout, Stage, split

SAG, SWELL, INTERRUPTION = "sag", "swell", "interruption"

# Shares of the nominal voltage.
SAG_BELOW, SWELL_ABOVE, INTERRUPTION_BELOW, HYSTERESIS = 0.9, 1.1, 0.1, 0.02

INSTANTANEOUS_CYCLES = 30
MOMENTARY, TEMPORARY = 3.0, 60.0  # s, the longest of each

OVER = 0
CLASSES = {
    # instantaneous, momentary, temporary, longer. The table has no instantaneous interruption: momentary ones begin at
    # half a cycle.
    SAG: (211, 222, 232, 320),
    SWELL: (212, 223, 233, 330),
    INTERRUPTION: (221, 221, 231, 310),
}

# Silence that ends an event: so many sampling intervals, and at least so long in ms.
GAP_INTERVALS, GAP_MS = 3, 3000

PHASES = ("l1", "l2", "l3")
LINES = ("voltage_l1_l2", "voltage_l2_l3", "voltage_l3_l1")
EVENT_POINTS = tuple(
    f"voltage_event_{phase}{what}" for phase in PHASES for what in ("", "_magnitude", "_duration")
)
UNBALANCE_POINTS = ("voltage_unbalance", "voltage_deviation")

USABLE = frozenset(range(quality.UNCERTAIN)) | {quality.UNCERTAIN_CLOCK}


def event_class(kind: str, duration: float, frequency: float) -> int:
    """The class of an event that has lasted `duration` s."""
    instantaneous, momentary, temporary, longer = CLASSES[kind]
    if duration * frequency <= INSTANTANEOUS_CYCLES:
        return instantaneous
    if duration <= MOMENTARY:
        return momentary
    return temporary if duration <= TEMPORARY else longer


def negative_sequence(u12: float, u23: float, u31: float) -> float | None:
    """Negative-sequence over positive-sequence voltage, from three line-to-line voltages.

    The formula is CIGRE's, also in IEC 61000-4-30:2015, 5.7.1. None where they form no triangle, as the line
    voltages of one system do.
    """
    squares = u12 * u12 + u23 * u23 + u31 * u31
    if squares == 0.0:
        return None
    beta = (u12**4 + u23**4 + u31**4) / squares**2
    if 3 - 6 * beta < 0:
        return None
    root = math.sqrt(3 - 6 * beta)
    # Equal voltages give a root of 1, and rounding a little more.
    return math.sqrt(max(1 - root, 0.0) / (1 + root))


def deviation(u1: float, u2: float, u3: float) -> float | None:
    """The largest deviation from the mean over the mean: NEMA MG 1 for line voltages, IEEE Std 112 for those to
    neutral."""
    mean = (u1 + u2 + u3) / 3
    if mean <= 0.0:
        return None
    return max(abs(u1 - mean), abs(u2 - mean), abs(u3 - mean)) / mean


class _Event:
    """An event that is under way. Times in ms."""

    __slots__ = ("extreme", "incomplete", "kind", "recovered", "seen", "start", "told")

    def __init__(self, kind: str, start: int, extreme: float) -> None:
        self.kind = kind
        self.start = start
        self.extreme = extreme
        self.seen = start  # the newest sample that belongs to it
        self.recovered: int | None = None  # since when an interruption has been a sag only
        self.incomplete = False
        self.told = False

    def worsen(self, value: float) -> None:
        """Another sample or extreme of the device."""
        self.extreme = max(self.extreme, value) if self.kind == SWELL else min(self.extreme, value)


class _Phase:
    """One phase of one meter."""

    def __init__(self, meter: MeterConfig, phase: str) -> None:
        nominal = meter.nominal_voltage or 0.0
        self.nominal = nominal
        self.low, self.high = nominal * SAG_BELOW, nominal * SWELL_ABOVE
        self.normal_low = nominal * (SAG_BELOW + HYSTERESIS)
        self.normal_high = nominal * (SWELL_ABOVE - HYSTERESIS)
        self.none = nominal * INTERRUPTION_BELOW
        self.some = nominal * (INTERRUPTION_BELOW + HYSTERESIS)
        self.frequency = meter.nominal_frequency
        self.interval = round(meter.interval * 1000)
        self.patience = max(GAP_INTERVALS * self.interval, GAP_MS)
        self.edge = 1000 * INSTANTANEOUS_CYCLES / meter.nominal_frequency
        names = [f"{meter.name}/voltage_event_{phase}{what}" for what in ("", "_magnitude", "_duration")]
        self.layout = Layout(tuple(names), ("1", "%", "s"))
        self.event: _Event | None = None
        self.newest = -1  # the time of the newest record that was given
        self.ended = -(10**15)
        self.sampled = 0  # the newest sample
        self.lowest: float | None = None  # what the device's registers last said
        self.highest: float | None = None

    def sample(self, moment: int, value: float, out: list[Record]) -> None:
        """A sample that is not within the normal range, or that comes while an event is under way."""
        event = self.event
        if event is not None and moment - event.seen > self.patience:
            self._silent(event, out)
            event = None
        kind = self._kind(value, event)
        if event is None:
            if kind is not None:
                self.event = _Event(kind, moment, value)
            return
        if moment - event.seen > self.interval * 1.5:
            event.incomplete = True  # a sample is missing, and what happened there is not known
        if kind is None:
            self._end(event, moment, out)
        elif kind == event.kind:
            self._lasts(event, moment, value, out)
        elif (
            event.kind == SAG
            and kind == INTERRUPTION
            and moment - event.start <= self.edge
            and not event.told
        ):
            # The edge of an interruption: a voltage that goes to zero passes the range of sags on its way.
            event.kind = INTERRUPTION
            self._lasts(event, moment, value, out)
        elif event.kind == INTERRUPTION and kind == SAG:
            self._rises(event, moment, value, out)
        else:
            self._follow(event, kind, moment, moment, value, out)

    def _kind(self, value: float, event: _Event | None) -> str | None:
        """What a sample is, given what is under way."""
        kind = event.kind if event else None
        if value < (self.some if kind == INTERRUPTION and not (event and event.recovered) else self.none):
            return INTERRUPTION
        if value < (self.normal_low if kind in (SAG, INTERRUPTION) else self.low):
            return SAG
        if value > (self.normal_high if kind == SWELL else self.high):
            return SWELL
        return None

    def _lasts(self, event: _Event, moment: int, value: float, out: list[Record]) -> None:
        event.recovered = None
        event.worsen(value)
        event.seen = moment
        if not event.told and moment - event.start > TEMPORARY * 1000:
            # From here on the class does not change any more, and nobody should wait for the end to know.
            event.told = True
            out.append(self._record(event, event.start, moment))

    def _rises(self, event: _Event, moment: int, value: float, out: list[Record]) -> None:
        """Some voltage is back: the other edge of an interruption, or a sag that follows it."""
        event.recovered = event.recovered or moment
        event.seen = moment
        if moment - event.recovered > self.edge:
            self._follow(event, SAG, event.recovered, moment, value, out)

    def _follow(
        self, event: _Event, kind: str, since: int, moment: int, value: float, out: list[Record]
    ) -> None:
        """An event of another kind follows on one."""
        self._end(event, since, out)
        # Where the end was told at this very time, the next one begins a millisecond later: a time is used once.
        self.event = _Event(kind, max(since, self.newest + 1), value)
        self.event.seen = moment

    def _end(self, event: _Event, moment: int, out: list[Record]) -> None:
        """The voltage is normal again at `moment`, or something else begins."""
        end = event.recovered or moment
        self.event = None
        self.ended = moment
        if event.told:
            out.append(self._record(event, end, end, OVER))
        else:
            out.append(self._record(event, event.start, end))

    def silent(self, moment: int, out: list[Record]) -> None:
        """No usable sample at `moment`."""
        event = self.event
        if event is not None:
            event.incomplete = True
            if moment - event.seen > self.patience:
                self._silent(event, out)

    def _silent(self, event: _Event, out: list[Record]) -> None:
        """Too long without a sample to know what it became: it lasted at least to the newest one."""
        event.incomplete = True
        event.recovered = None
        self._end(event, max(event.seen, self.newest + 1) if event.told else event.seen, out)

    def worsen(self, value: float, *, is_low: bool) -> None:
        """An event that is under way gets its true extreme from the device. A register that is older than the event
        is no part of it."""
        event = self.event
        before = self.lowest if is_low else self.highest
        if event is not None and is_low == (event.kind != SWELL) and before is not None and value != before:
            event.worsen(value)

    def register(self, moment: int, value: float, *, is_low: bool, out: list[Record]) -> None:
        """What the device says of the lowest or highest voltage since it was read, or since it was reset. Called
        when the sample of the same record is known."""
        self.worsen(value, is_low=is_low)
        before = self.lowest if is_low else self.highest
        if is_low:
            self.lowest = value
        else:
            self.highest = value
        beyond = value < self.low if is_low else value > self.high
        # A register that keeps its value until it is reset tells an old event again and again.
        if not beyond or before is None or (value >= before if is_low else value <= before):
            return
        if self.event is not None or moment - self.ended <= self.interval * 1.5 or moment <= self.newest:
            return
        kind = SWELL if not is_low else INTERRUPTION if value < self.none else SAG
        # It lies within the sampling interval before; how long it was is not known, only that no sample has seen it.
        code = event_class(kind, self.interval / 1000, self.frequency)
        self.newest = self.ended = moment
        values = [float(code), self._magnitude(value), self.interval / 1000]
        doubt = quality.UNCERTAIN
        out.append(Record(self.layout, moment, values, bytes([doubt, quality.GOOD, doubt])))

    def _magnitude(self, value: float) -> float:
        return round(100 * value / self.nominal, 2)

    def _record(self, event: _Event, moment: int, end: int, code: int | None = None) -> Record:
        duration = (end - event.start) / 1000
        if code is None:
            code = event_class(event.kind, duration, self.frequency)
        self.newest = max(self.newest, moment)
        values = [float(code), self._magnitude(event.extreme), duration]
        mark = quality.UNCERTAIN_INCOMPLETE if event.incomplete else quality.GOOD
        return Record(self.layout, moment, values, bytes([mark] * 3) if mark else b"")

    def close(self, out: list[Record]) -> None:
        """Nobody watches any more."""
        event = self.event
        if event is None:
            return
        event.incomplete = True
        self.event = None
        moment = event.seen if event.told else event.start
        if moment > self.newest:
            out.append(self._record(event, moment, event.seen))


class _Meter:
    """Three phases, and the unbalance between them."""

    def __init__(self, config: MeterConfig) -> None:
        self.config = config
        self.phases = {phase: _Phase(config, phase) for phase in PHASES}
        self.least = (config.nominal_voltage or 0.0) * INTERRUPTION_BELOW


class _Plan(NamedTuple):
    """Where a layout has what. Indices; those of a set are empty unless all three are there."""

    meter: _Meter
    samples: tuple[tuple[int, _Phase], ...]
    registers: tuple[tuple[int, _Phase, bool], ...]
    lines: tuple[int, ...]
    neutral: tuple[int, ...]
    unbalance: Layout


class PowerQuality(Stage):
    """Adds events and unbalance to the records of meters that have `nominal_voltage`; takes nothing away."""

    def __init__(self, meters: Iterable[MeterConfig]) -> None:
        self._meters = {one.name: _Meter(one) for one in meters if one.nominal_voltage is not None}
        self._plans = PerLayout(self._plan)

    @classmethod
    def from_config(cls, config: Config) -> PowerQuality:
        """For all meters."""
        return cls(config.meters)

    def adopt(self, before: PowerQuality) -> list[Record]:
        """After a change of the configuration: go on with the events of meters that it leaves alone. Returns what the
        other ones had."""
        found: list[Record] = []
        for name, meter in before._meters.items():
            mine = self._meters.get(name)
            if mine is not None and mine.config == meter.config:
                self._meters[name] = meter
                continue
            for phase in meter.phases.values():
                phase.close(found)
        self._plans = PerLayout(self._plan)
        return found

    def take(self, records: list[Record]) -> list[Record]:
        """`records`, and what was found in them."""
        if not self._meters:
            return records
        found: list[Record] = []
        for record in records:
            plan = self._plans(record.layout)
            if plan is not None:
                self._look(record, plan, found)
        return records + found if found else records

    def tick(self, now: int) -> list[Record]:
        """Events of meters that bring no record at all any more."""
        found: list[Record] = []
        for meter in self._meters.values():
            for phase in meter.phases.values():
                event = phase.event
                # A poll that waits for time-outs may still bring a sample from before.
                if event is not None and now - event.seen > phase.patience + 10_000:
                    phase.silent(now, found)
        return found

    def close(self) -> list[Record]:
        """The events that are under way, as far as they have come."""
        found: list[Record] = []
        for meter in self._meters.values():
            for phase in meter.phases.values():
                phase.close(found)
        return found

    def _plan(self, layout: Layout) -> _Plan | None:
        meter = self._meters.get(split(layout.points[0])[0]) if layout.points else None
        if meter is None:
            return None
        index = {split(point)[1]: number for number, point in enumerate(layout.points)}
        phases = meter.phases.items()
        samples = [(index[f"voltage_{name}"], phase) for name, phase in phases if f"voltage_{name}" in index]
        registers = [
            (index[f"voltage_{name}_{what}"], phase, what == "min")
            for name, phase in phases
            for what in ("min", "max")
            if f"voltage_{name}_{what}" in index
        ]
        lines = _all_of(index, LINES)
        neutral = _all_of(index, [f"voltage_{name}" for name in PHASES])
        if not samples and not registers and not lines:
            return None
        have = (bool(lines), bool(neutral))
        names = tuple(
            f"{meter.config.name}/{point}" for point, has in zip(UNBALANCE_POINTS, have, strict=True) if has
        )
        unbalance = Layout(names, ("%",) * len(names))
        return _Plan(meter, tuple(samples), tuple(registers), lines, neutral, unbalance)

    def _look(self, record: Record, plan: _Plan, out: list[Record]) -> None:
        values, codes, moment = record.values, record.qualities, record.time
        registers = [
            (phase, values[index], is_low)
            for index, phase, is_low in plan.registers
            if not codes or codes[index] in USABLE
        ]
        for phase, value, is_low in registers:
            phase.worsen(value, is_low=is_low)
        for index, phase in plan.samples:
            if codes and codes[index] not in USABLE:
                phase.silent(moment, out)
            elif phase.event is not None or not phase.low <= values[index] <= phase.high:
                phase.sample(moment, values[index], out)
        for phase, value, is_low in registers:
            phase.register(moment, value, is_low=is_low, out=out)
        if plan.unbalance.points:
            self._unbalance(record, plan, out)

    def _unbalance(self, record: Record, plan: _Plan, out: list[Record]) -> None:
        found: list[tuple[float, int]] = []
        if plan.lines:
            found.append(_percent(record, plan.lines, plan.meter.least, is_sequence=True))
        if plan.neutral:
            found.append(_percent(record, plan.neutral, plan.meter.least, is_sequence=False))
        qualities = bytes(code for _, code in found)
        values = [value for value, _ in found]
        out.append(Record(plan.unbalance, record.time, values, qualities if any(qualities) else b""))


def _all_of(index: dict[str, int], names: Iterable[str]) -> tuple[int, ...]:
    found = tuple(index[name] for name in names if name in index)
    return found if len(found) == 3 else ()


def _percent(record: Record, where: tuple[int, ...], least: float, *, is_sequence: bool) -> tuple[float, int]:
    """Unbalance in %, and its quality: that of the worst voltage."""
    codes = record.qualities
    worst = max([codes[index] for index in where]) if codes else quality.GOOD
    if worst >= quality.BAD:
        return 0.0, worst
    u1, u2, u3 = (record.values[index] for index in where)
    # Without voltage there is nothing to be unbalanced.
    if max(u1, u2, u3) < least:
        return 0.0, quality.BAD
    share = negative_sequence(u1, u2, u3) if is_sequence else deviation(u1, u2, u3)
    return (0.0, quality.BAD) if share is None else (round(100 * share, 3), worst)
