# SPDX-License-Identifier: Apache-2.0
"""Makes statistics of fast samples: mean, min, max, RMS and power factor over each reporting interval.

Intervals lie on multiples of `report` in UTC, by the time of the samples; the time of a statistic is the start of
the time that it covers. Counters and states are no statistic: their last reading goes on as it is, with its own
time. docs/explanation/edge-statistics.md has the formulas and where they come from.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from energy_collector import quality
from energy_collector.config import Config, MeterConfig
from energy_collector.reading import Layout, Record
from energy_collector.stages import power_quality
from energy_collector.stages.calibration import DATED
from energy_collector.stages.stage import PerLayout, Stage, split

# Records of a layout that are kept before they are added up: a column of so many values is summed at C speed.
CHUNK = 32
# A statistic of fewer good samples than this share of the expected ones is incomplete.
COMPLETE = 0.9
# How long after its end an interval of a silent meter is closed, in ms: a poll that waits for time-outs still counts.
PATIENCE = 10_000
# Digits of a mean: ten times finer than the best meters (class 0.1) resolve, and short enough to pack well.
DIGITS = 6

RMS_UNITS = ("V", "A", "kV", "mV", "mA", "kA")
# The strongest mark of a counter within an interval is the one that its reading carries.
MARKS = (
    quality.UNCERTAIN_METER_EXCHANGED,
    quality.UNCERTAIN_COUNTER_RESET,
    quality.GOOD_COUNTER_ROLLOVER,
)
GOOD_CODES = frozenset(range(quality.UNCERTAIN))


class _Kinds(NamedTuple):
    """What is made of points that their unit does not tell; see `Statistics`."""

    last: frozenset[str]
    passed: frozenset[str]
    squared: frozenset[str]


class _Sums:
    """Sums over values, none of which is kept."""

    __slots__ = ("count", "high", "low", "squares", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = self.squares = 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, values: Sequence[float], *, squares: bool) -> None:
        """Values of a chunk. Each sum is rounded once a chunk, so nothing is lost however long the interval is."""
        self.count += len(values)
        low, high = min(values), max(values)
        if low < self.low:
            self.low = low
        if high > self.high:
            self.high = high
        if low == high:
            self.total += low * len(values)
            self.squares += low * low * len(values)
            return
        self.total = math.fsum((self.total, *values))
        if squares:
            self.squares = math.fsum((self.squares, *map(operator.mul, values, values)))


class _Column:
    """A point over the interval. Good samples count; uncertain ones only where there is no good one."""

    __slots__ = (
        "bad",
        "doubtful",
        "good",
        "is_last",
        "last",
        "mark",
        "marked",
        "name",
        "rms",
        "uncertain",
        "unit",
    )

    def __init__(self, name: str, unit: str, *, is_last: bool, rms: bool) -> None:
        self.name = name
        self.unit = unit
        self.is_last = is_last
        self.rms = rms
        self.clear()

    def clear(self) -> None:
        """Begin a new interval."""
        self.good = _Sums()
        self.doubtful: _Sums | None = None
        self.uncertain = self.bad = self.mark = self.marked = 0
        self.last: tuple[int, float, int] | None = None  # time, value, code

    def add(self, values: Sequence[float]) -> None:
        """Good samples."""
        self.good.add(values, squares=self.rms)

    def add_coded(self, values: Sequence[float], codes: Iterable[int]) -> None:
        """Samples of which some are not good."""
        pairs = list(zip(values, codes, strict=True))
        good = [value for value, code in pairs if code in GOOD_CODES]
        doubtful = [value for value, code in pairs if quality.UNCERTAIN <= code < quality.BAD]
        if good:
            self.good.add(good, squares=self.rms)
        if doubtful:
            self.doubtful = self.doubtful or _Sums()
            self.doubtful.add(doubtful, squares=self.rms)
        for _, code in pairs:
            if code >= quality.BAD:
                self.bad = code
            elif code >= quality.UNCERTAIN:
                self.uncertain = code

    def add_last(self, moment: int, value: float, code: int) -> None:
        """A reading of a counter or a state: the newest that counts is kept, a doubtful or bad one only for want of
        one."""
        if code in MARKS:
            if not self.mark or MARKS.index(code) < MARKS.index(self.mark):
                self.mark = code
            self.marked = moment
            code = quality.GOOD
        if self.last is None or _rank(code) <= _rank(self.last[2]):
            self.last = (moment, value, code)

    def sums(self, expected: float) -> tuple[_Sums, int] | None:
        """What the statistics are made of, and their quality; None where nobody has asked the device."""
        if self.good.count:
            enough = self.good.count >= expected * COMPLETE
            return self.good, quality.GOOD if enough else quality.UNCERTAIN_INCOMPLETE
        if self.doubtful is not None:
            return self.doubtful, self.uncertain
        return (self.good, self.bad) if self.bad else None


def _rank(code: int) -> int:
    if code < quality.UNCERTAIN or code == quality.UNCERTAIN_CLOCK:
        return 0
    return 1 if code < quality.BAD else 2


class _Rows:
    """Records of one layout that wait to be added up, and the columns that they go to."""

    __slots__ = ("columns", "get_raw", "last", "raw", "records")

    def __init__(self, layout: Layout, columns: dict[str, _Column], raw: frozenset[str]) -> None:
        self.records: list[Record] = []
        found = [(index, columns[point]) for index, point in enumerate(layout.points) if point in columns]
        self.columns = [(index, column) for index, column in found if not column.is_last]
        self.last = [(index, column) for index, column in found if column.is_last]
        chosen = [index for index, point in enumerate(layout.points) if point in raw]
        self.raw = Layout(
            tuple(layout.points[index] for index in chosen), tuple(layout.units[index] for index in chosen)
        )
        self.get_raw: Callable[[Sequence[float]], tuple[float, ...]] = _getter(chosen)

    def raw_record(self, record: Record) -> Record:
        """The points that are wanted at full rate."""
        codes = bytes(self.get_raw(record.qualities)) if record.qualities else b""  # type: ignore[arg-type]  # one or several
        return Record(self.raw, record.time, self.get_raw(record.values), codes if any(codes) else b"")

    def fold(self) -> None:
        """Add the records up."""
        records, self.records = self.records, []
        values = list(zip(*[one.values for one in records], strict=True))
        if not any(one.qualities for one in records):
            for index, column in self.columns:
                column.add(values[index])
            newest = records[-1]
            for index, column in self.last:
                column.add_last(newest.time, newest.values[index], quality.GOOD)
            return
        codes = list(zip(*[one.qualities or bytes(len(one.values)) for one in records], strict=True))
        for index, column in self.columns:
            if any(codes[index]):
                column.add_coded(values[index], codes[index])
            else:
                column.add(values[index])
        for index, column in self.last:
            for record, code in zip(records, codes[index], strict=True):
                column.add_last(record.time, record.values[index], code)


def _getter(chosen: list[int]) -> Callable[[Sequence[float]], tuple[float, ...]]:
    if len(chosen) == 1:
        only = chosen[0]
        return lambda values: (values[only],)
    if not chosen:
        return lambda _: ()
    return operator.itemgetter(*chosen)


class _Meter:
    """The running interval of one meter."""

    def __init__(self, config: MeterConfig, kinds: _Kinds, newest: Callable[[str], int]) -> None:
        self.config = config
        self._kinds = kinds
        self._newest = newest
        self.interval = round(config.interval * 1000)
        self.report = round((config.report or config.interval) * 1000)
        self.expected = self.report / self.interval
        self.start: int | None = None  # of the running interval, on the grid; None between two
        self.end = 0  # of the newest interval that was given
        self.floor = 0  # the newest time that was given, where another configuration has begun
        self.late = 0  # records that came after their interval was given
        self.columns: dict[str, _Column] = {}
        self._first = self._time = 0
        self._is_first = True
        self._always = frozenset(f"{config.name}/{name}" for name in config.raw)
        self._until: dict[str, int] = {}
        self._sent: dict[str, int] = {}  # the newest time of each point that was given at full rate
        self._rows = PerLayout(self._make_rows)
        self._waiting: list[_Rows] = []
        self._outputs: list[_Output] | None = None
        self._layouts: dict[tuple[str, ...], Layout] = {}

    def _make_rows(self, layout: Layout) -> _Rows:
        # A calibration is dated once: it is no sample either.
        passed = frozenset(
            point for point in layout.points if split(point)[1] in self._kinds.passed or point.endswith(DATED)
        )
        for point, unit in zip(*layout, strict=True):
            if point not in passed and point not in self.columns:
                is_last = point in self._kinds.last or unit.endswith(".h")
                rms = unit in RMS_UNITS or split(point)[1] in self._kinds.squared
                self.columns[point] = _Column(point, unit, is_last=is_last, rms=rms)
                self._outputs = None
        return _Rows(layout, self.columns, self._always | self._until.keys() | passed)

    def set_raw(self, until: Mapping[str, int]) -> None:
        """Give these points at full rate up to a time each, and no other ones."""
        self._fold()
        self._until = dict(until)
        self._rows = PerLayout(self._make_rows)

    def add_raw(self, until: Mapping[str, int]) -> None:
        """Give these points at full rate too."""
        self.set_raw({**self._until, **until})

    def take(self, record: Record, out: list[Record]) -> None:
        """Add a record; what is finished, and what is wanted at full rate, goes to `out`."""
        moment = record.time
        if self._until and moment >= min(self._until.values()):
            self.set_raw({point: until for point, until in self._until.items() if until > moment})
        rows = self._rows(record.layout)
        if rows.columns or rows.last:
            self._add(rows, record, out)
        if rows.raw.points:
            out.append(rows.raw_record(record))
            for point in rows.raw.points:
                self._sent[point] = moment

    def _add(self, rows: _Rows, record: Record, out: list[Record]) -> None:
        moment = record.time
        if self.start is None or moment >= self.start + self.report:
            self.close(out)
            if moment >= self.end:
                self._begin(moment)
        if self.start is None or moment < self.start:
            self.late += 1
            return
        if not rows.records:
            self._waiting.append(rows)
        rows.records.append(record)
        if len(rows.records) >= CHUNK:
            self._fold()

    def _begin(self, moment: int) -> None:
        self.start = moment - moment % self.report
        self._first = moment
        # The first interval of this run covers the rest of one that another run has begun, and perhaps given. A
        # poll that is only late has missed none.
        begun_late = self._is_first and moment - self.start >= self.interval
        self._time = moment if begun_late else self.start

    def _fold(self) -> None:
        for rows in self._waiting:
            rows.fold()
        self._waiting = []

    def close(self, out: list[Record]) -> None:
        """Give the interval that is running."""
        if self.start is None:
            return
        self._fold()
        if self._outputs is None:
            self._outputs = _outputs(self.config.name, self.columns)
        readings = [
            (one, *found) for one in self._outputs if (found := one.compute(self.expected)) is not None
        ]
        if readings:
            outputs, values, codes = zip(*readings, strict=True)
            layout = self._layout(outputs)
            if self._is_first and self._time <= max(self.floor, *map(self._newest, layout.points)):
                self._time = self._first
            out.append(Record(layout, self._time, values, bytes(codes) if any(codes) else b""))
            self.floor = self._time
        out += self._last_readings()
        for column in self.columns.values():
            column.clear()
        self.end = self.start + self.report
        self.start = None
        self._is_first = False

    def _layout(self, of: Sequence[_Output] | Sequence[_Column]) -> Layout:
        names = tuple(one.name for one in of)
        layout = self._layouts.get(names)
        if layout is None:
            layout = self._layouts[names] = Layout(names, tuple(one.unit for one in of))
        return layout

    def _last_readings(self) -> list[Record]:
        """Counters and states. Those that were given at full rate meanwhile are not given again."""
        by_time: dict[int, list[tuple[_Column, float, int]]] = {}
        for column in self.columns.values():
            sent = self._sent.get(column.name, -1)
            if column.last is not None and column.last[0] > sent:
                moment, value, code = column.last
                mark = column.mark if column.marked > sent else 0
                by_time.setdefault(moment, []).append((column, value, mark or code))
        found = []
        for moment, readings in sorted(by_time.items()):
            columns, values, codes = zip(*readings, strict=True)
            found.append(Record(self._layout(columns), moment, values, bytes(codes) if any(codes) else b""))
        return found


class _Output:
    """One statistic of an interval."""

    def __init__(
        self,
        name: str,
        unit: str,
        columns: Sequence[_Column],
        function: Callable[[Sequence[_Sums]], float | None],
    ) -> None:
        self.name = name
        self.unit = unit
        self._columns = columns
        self._function = function

    def compute(self, expected: float) -> tuple[float, int] | None:
        """Value and quality; None where there was no sample at all, good or bad."""
        found = [one for column in self._columns if (one := column.sums(expected)) is not None]
        if len(found) < len(self._columns):
            return None
        code = max(code for _, code in found)
        if code >= quality.BAD:
            return 0.0, code
        value = self._function([sums for sums, _ in found])
        return (0.0, quality.BAD) if value is None else (value, code)


def _outputs(meter: str, columns: Mapping[str, _Column]) -> list[_Output]:
    """The statistics of a meter's points."""
    found: dict[str, _Output] = {}

    def add(
        name: str, unit: str, of: Sequence[_Column], function: Callable[[Sequence[_Sums]], float | None]
    ) -> None:
        found.setdefault(name, _Output(name, unit, of, function))

    for name, column in columns.items():
        if column.is_last:
            continue
        kind = name[-4:]
        if kind in ("_min", "_max") and name[:-4] in columns:
            # The device's own minimum since the poll before has seen more than our samples have.
            found[name] = _Output(name, column.unit, [column], _low if kind == "_min" else _high)
            continue
        phase = _power_factor_phase(meter, name)
        powers = None if phase is None else _powers(meter, phase, columns)
        if powers is None:
            add(f"{name}_mean", column.unit, [column], _mean)
        add(f"{name}_min", column.unit, [column], _low)
        add(f"{name}_max", column.unit, [column], _high)
        if column.rms:
            add(f"{name}_rms", column.unit, [column], _rms)
    for phase in ("", "_l1", "_l2", "_l3"):
        powers = _powers(meter, phase, columns)
        if powers is not None:
            add(f"{meter}/power_factor{phase}_mean", "1", *powers)
    return list(found.values())


def _power_factor_phase(meter: str, name: str) -> str | None:
    prefix = f"{meter}/power_factor"
    return name[len(prefix) :] if name.startswith(prefix) else None


def _powers(
    meter: str, phase: str, columns: Mapping[str, _Column]
) -> tuple[list[_Column], Callable[[Sequence[_Sums]], float | None]] | None:
    """From which columns the power factor of a phase ("" for the whole) is made, and how."""
    active = columns.get(f"{meter}/active_power{phase}")
    apparent = columns.get(f"{meter}/apparent_power{phase}")
    reactive = columns.get(f"{meter}/reactive_power{phase}")
    if active is None:
        return None
    if apparent is not None:
        return [active, apparent], _power_factor
    if reactive is not None:
        return [active, reactive], _power_factor_from_reactive
    return None


def _rounded(value: float, sums: _Sums) -> float:
    """A mean with as many digits as its samples can bear."""
    largest = max(abs(sums.low), abs(sums.high))
    if largest == 0.0:
        return 0.0
    # Never fewer decimals than a whole unit has: an energy of 12345678 W keeps its last digit.
    return round(value, max(DIGITS - 1 - math.floor(math.log10(largest)), 0)) + 0.0


def _mean(found: Sequence[_Sums]) -> float:
    (sums,) = found
    return _rounded(sums.total / sums.count, sums)


def _rms(found: Sequence[_Sums]) -> float:
    (sums,) = found
    return _rounded(math.sqrt(sums.squares / sums.count), sums)


def _low(found: Sequence[_Sums]) -> float:
    return found[0].low


def _high(found: Sequence[_Sums]) -> float:
    return found[0].high


def _power_factor(found: Sequence[_Sums]) -> float | None:
    active, apparent = (one.total / one.count for one in found)
    # Some devices give the apparent power the sign of the active one; the sign of the factor is the active power's.
    return _ratio(active, abs(apparent))


def _power_factor_from_reactive(found: Sequence[_Sums]) -> float | None:
    active, reactive = (one.total / one.count for one in found)
    return _ratio(active, math.hypot(active, reactive))


def _ratio(active: float, apparent: float) -> float | None:
    """None where no power flows. Two rounded powers may give a little more than one."""
    if apparent == 0.0:
        return None
    return round(min(max(active / apparent, -1.0), 1.0), DIGITS - 1) + 0.0


class Statistics(Stage):
    """Statistics for the meters of `meters` that have `report`.

    `last` are full names of counters and states, beside all points with a unit of energy; `passed` and `squared` are
    short names: of points that are events, not samples, and go on as they are; and of points that get an RMS though
    they are neither a voltage nor a current. `newest` is the time that a point has reached before this run.
    """

    def __init__(
        self,
        meters: Iterable[MeterConfig],
        last: Collection[str] = (),
        passed: Collection[str] = power_quality.EVENT_POINTS,
        squared: Collection[str] = power_quality.UNBALANCE_POINTS,
        newest: Callable[[str], int] = lambda _: 0,
    ) -> None:
        kinds = _Kinds(frozenset(last), frozenset(passed), frozenset(squared))
        self._meters = {one.name: _Meter(one, kinds, newest) for one in meters if one.report is not None}
        self._which = PerLayout(self._meter_of)

    @classmethod
    def from_config(cls, config: Config, last: Collection[str], newest: Callable[[str], int]) -> Statistics:
        """For all meters."""
        return cls(config.meters, last, newest=newest)

    @property
    def late(self) -> dict[str, int]:
        """Records by meter that came too late for the interval that they belong to."""
        return {name: meter.late for name, meter in self._meters.items()}

    def adopt(self, before: Statistics) -> list[Record]:
        """After a change of the configuration: go on with the intervals of meters that it leaves alone. Returns what
        the other ones had."""
        found: list[Record] = []
        for name, meter in before._meters.items():
            mine = self._meters.get(name)
            if mine is not None and mine.config == meter.config:
                self._meters[name] = meter
                continue
            meter.close(found)
            if mine is not None:
                mine.floor = meter.floor
        self._which = PerLayout(self._meter_of)
        return found

    def raw_until(self, meter: str, points: Iterable[str], until: int) -> list[str]:
        """Give points (short names) at full rate too, up to `until` (ms UTC). Returns their full names.

        Raises KeyError for a meter that has no statistics: all of it is given at full rate already.
        """
        names = [f"{meter}/{point}" for point in points]
        self._meters[meter].add_raw(dict.fromkeys(names, until))
        return names

    def take(self, records: list[Record]) -> list[Record]:
        """What is finished, and what is wanted at full rate."""
        if not self._meters:
            return records
        out: list[Record] = []
        for record in records:
            meter = self._which(record.layout)
            if meter is None:
                out.append(record)
            else:
                meter.take(record, out)
        return out

    def tick(self, now: int) -> list[Record]:
        """Intervals that have ended without a record after them."""
        out: list[Record] = []
        for meter in self._meters.values():
            if meter.start is not None and now >= meter.start + meter.report + meter.interval + PATIENCE:
                meter.close(out)
        return out

    def close(self) -> list[Record]:
        """The intervals that are running, as far as they have come."""
        out: list[Record] = []
        for meter in self._meters.values():
            meter.close(out)
        return out

    def _meter_of(self, layout: Layout) -> _Meter | None:
        return self._meters.get(split(layout.points[0])[0]) if layout.points else None
