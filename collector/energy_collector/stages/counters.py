# SPDX-License-Identifier: Apache-2.0
"""Tells apart what can happen to a counter: rollover, reset, exchange of the meter, a single wrong value.

Values are never changed, only marked, and a mark is made with what is known when the reading comes, since a
stored reading cannot be recalled. The energy between two readings is the difference of their values when the later one

- is good or `uncertain_clock`: value - previous;
- is `good_counter_rollover`: value + highest + one step - previous;
- is `uncertain_counter_reset` or `uncertain_meter_exchanged`: unknown, the count begins anew here;
- is `uncertain` or `uncertain_out_of_range`: it does not count, and the next one is held against the one before it.

So a value that goes backwards is `uncertain` at first. Where the next one goes on from the old count, it was a
single wrong value and nothing is lost; where it goes on from the new count, that one is marked as the reset.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from energy_collector import quality
from energy_collector.config import Config
from energy_collector.journal import Faults, log
from energy_collector.reading import Layout, Record
from energy_collector.stages.stage import PerLayout, Stage, split

# A float32 has 24 bits: neighbouring values differ by up to value x 2^-23. Half of it again for a calculation before.
ROUNDING = 2.0**-22
# A device that counts in steps shows more than its rate at times; the highest rate that was seen is no bound either.
RATE_MARGIN = 2.0
# Without a configured power: a counter within a thousandth of its range at the rollover is a thousand times
# likelier to have rolled over than to have been reset just there.
ROLLOVER_SHARE = 1e-3
# With one: steps of the counter, as a share of its range.
STEP_SHARE = 1e-6
# Whatever the rates: further from its bounds than this share of its range it is no rollover.
MAX_ROLLOVER_SHARE = 0.2

# How old the state file may become, in s: without a mark only `last` is behind, and the next reading catches up.
SAVE_INTERVAL = 600.0
SAVE_INTERVAL_MARKED = 60.0

ENERGY_UNITS = {
    f"{prefix}{unit}.h": factor
    for prefix, factor in (("", 1.0), ("k", 1e-3), ("M", 1e-6))
    for unit in ("W", "var", "V.A")
}

COUNTED = frozenset(range(quality.UNCERTAIN)) | {quality.UNCERTAIN_CLOCK}


class _Counter:
    """What is known of one counter: `last` counted value and the time (ms) of its last change."""

    __slots__ = (
        "abandoned",
        "changed",
        "exchanged",
        "highest",
        "last",
        "limit",
        "meter",
        "pending",
        "point",
        "rate",
    )

    def __init__(self, point: str, highest: float | None) -> None:
        self.point = point
        self.meter = split(point)[0]
        self.highest = highest
        self.limit: float | None = None  # units per second that are possible, where configured
        self.last: float | None = None
        self.changed = 0
        self.rate = 0.0  # the highest seen, in units per second
        self.pending: float | None = None
        self.abandoned: float | None = None  # the count before a reset, until the new one has passed it
        self.exchanged = False

    def judge(self, value: float, moment: int) -> int:
        """The mark of a value that is not simply the next one, and the state after it."""
        last = self.last
        if self.exchanged or last is None:
            mark = quality.UNCERTAIN_METER_EXCHANGED if self.exchanged else quality.GOOD
            self.exchanged = False
        elif self._goes_on(last, value, moment):
            mark = quality.UNCERTAIN_COUNTER_RESET if self._returns(last, value, moment) else quality.GOOD
            if mark == quality.GOOD and value > last and moment > self.changed > 0 and self.pending is None:
                self.rate = max(self.rate, (value - last) * 1000 / (moment - self.changed))
        elif self._has_rolled_over(last, value, moment):
            mark = quality.GOOD_COUNTER_ROLLOVER
        elif self.pending is not None and self._goes_on(self.pending, value, moment):
            mark = quality.UNCERTAIN_COUNTER_RESET
            self.abandoned = last
        else:
            self.pending = value
            return quality.UNCERTAIN
        self.pending = None
        self.last = value
        self.changed = moment
        return mark

    def _goes_on(self, last: float, value: float, moment: int) -> bool:
        if value < last - abs(last) * ROUNDING:
            return False
        if self.limit is None:
            return True
        slack = abs(last) * ROUNDING + (self.highest or 0.0) * STEP_SHARE
        return value - last <= self._possible(self.limit, moment) + slack

    def _returns(self, last: float, value: float, moment: int) -> bool:
        """Whether a count that was given up is back, after wrong values that looked like a reset.

        Taking that jump for energy would count the old count a second time.
        """
        if self.abandoned is None or value < self.abandoned:
            return False
        crossed = last < self.abandoned
        self.abandoned = None
        return crossed and value - last > self._possible(self.rate, moment)

    def _has_rolled_over(self, last: float, value: float, moment: int) -> bool:
        if self.highest is None or value < 0 or not value < last <= self.highest * (1 + ROUNDING):
            return False
        step = self.highest - last + value
        if self.limit is not None:
            allowed = self._possible(self.limit, moment) + self.highest * STEP_SHARE
        else:
            allowed = max(self._possible(self.rate, moment), self.highest * ROLLOVER_SHARE)
        return step <= min(allowed, self.highest * MAX_ROLLOVER_SHARE)

    def _possible(self, rate: float, moment: int) -> float:
        # A second more: a device brings its registers up to date by itself, not when it is asked.
        return rate * RATE_MARGIN * (max(moment - self.changed, 0) / 1000 + 1)


class _Change(NamedTuple):
    text: str
    cause: str


CHANGES = {
    quality.GOOD_COUNTER_ROLLOVER: _Change("has rolled over", "the counter has passed its highest value"),
    quality.UNCERTAIN_COUNTER_RESET: _Change(
        "does not continue its count", "the counter was reset, or the device has lost its memory"
    ),
    quality.UNCERTAIN_METER_EXCHANGED: _Change("counts anew", "the meter was exchanged"),
    quality.UNCERTAIN: _Change(
        "jumps, and is not counted until the next value tells why",
        "a reset, a single wrong value, or more power than max_power says",
    ),
}


class Counters(Stage):
    """Marks the readings of counters. `counters` has for each full point name the highest value in the point's unit
    before it starts again at zero, or None when it is not known.

    `limits` has units per second that a counter cannot exceed; `state` is a file that keeps the last values over a
    restart, None for tests that need none.
    """

    def __init__(
        self,
        counters: Mapping[str, float | None],
        state: Path | None,
        faults: Faults,
        limits: Mapping[str, float] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = {point: _Counter(point, highest) for point, highest in counters.items()}
        for point, limit in (limits or {}).items():
            if point in self._counters:
                self._counters[point].limit = limit
        self._faults = faults
        self._serials: dict[str, str] = {}
        self._monotonic = monotonic
        self._state = _StateFile(state) if state else None
        self._saved = monotonic()
        self._marked = False
        self._plans = PerLayout(self._plan)
        if self._state:
            self._restore(self._state.load())

    @classmethod
    def from_config(
        cls, config: Config, counters: Mapping[str, float | None], units: Mapping[str, str], faults: Faults
    ) -> Counters:
        """For all meters. `units` has the units of the points; the state file lies beside the buffer."""
        power = {meter.name: meter.max_power for meter in config.all_meters}
        limits = {}
        for point in counters:
            factor = ENERGY_UNITS.get(units.get(point, ""))
            most = power.get(split(point)[0])
            if factor is not None and most is not None:
                limits[point] = most * factor / 3600
        return cls(counters, config.buffer.path.with_name("counters.json"), faults, limits)

    def adopt(self, before: Counters) -> None:
        """After a change of the configuration: go on with what is known of counters that are still there."""
        self._serials = before._serials
        for point, counter in before._counters.items():
            mine = self._counters.get(point)
            if mine is not None:
                counter.highest, counter.limit = mine.highest, mine.limit
                self._counters[point] = counter
        self._plans = PerLayout(self._plan)

    def remember(self, point: str, moment: int, value: float) -> None:
        """A value from before this run, for instance the newest in the buffer; an older one than is known changes
        nothing."""
        counter = self._counters.get(point)
        if counter is not None and (counter.last is None or moment > counter.changed):
            counter.last, counter.changed = value, moment

    def identified(self, meter: str, serial: str) -> bool:
        """The meter's serial number was read. Returns whether it is another one than before: then the next value of
        each of its counters is marked."""
        before = self._serials.get(meter)
        self._serials[meter] = serial
        if before is None or before == serial:
            return False
        log.warning("meter %s: exchanged, serial number %s instead of %s", meter, serial, before)
        self.exchanged(meter)
        return True

    def rolls_over(self, point: str, highest: float) -> None:
        """A device has told how far a counter counts."""
        if point in self._counters:
            self._counters[point].highest = highest

    def exchanged(self, meter: str) -> None:
        """Another device is in the meter's place: the next value of each of its counters is marked."""
        for counter in self._counters.values():
            if counter.meter == meter:
                counter.exchanged = True
        self._marked = True

    def take(self, records: list[Record]) -> list[Record]:
        """Records with their marks."""
        changed: dict[int, Record] = {}
        for number, record in enumerate(records):
            plan = self._plans(record.layout)
            if plan:
                marked = self._judge(record, plan)
                if marked is not record:
                    changed[number] = marked
        if not changed:
            return records
        return [changed.get(number, record) for number, record in enumerate(records)]

    def tick(self, now: int) -> list[Record]:  # noqa: ARG002  (a file's age is not the source's time)
        """Save the state when it is due."""
        if self._state:
            age = self._monotonic() - self._saved
            if age >= SAVE_INTERVAL or (self._marked and age >= SAVE_INTERVAL_MARKED):
                self._saved = self._monotonic()
                self._marked = False
                self._state.save(self._document())
        return []

    def close(self) -> list[Record]:
        """Save the state."""
        if self._state:
            self._state.save(self._document(), wait=True)
        return []

    def _plan(self, layout: Layout) -> tuple[tuple[int, _Counter], ...]:
        known = self._counters
        return tuple((index, known[point]) for index, point in enumerate(layout.points) if point in known)

    def _judge(self, record: Record, plan: tuple[tuple[int, _Counter], ...]) -> Record:
        values, codes, moment = record.values, record.qualities, record.time
        marks: bytearray | None = None
        for index, counter in plan:
            value = values[index]
            # Most polls find most counters where they were; that costs no more than this line.
            if value == counter.last and counter.pending is None and not counter.exchanged:
                continue
            if codes and codes[index] not in COUNTED:
                continue
            last = counter.last
            waiting = counter.pending
            mark = counter.judge(value, moment)
            if mark == quality.GOOD:
                if waiting is not None:
                    self._faults.over(f"counter {counter.point}")
                continue
            marks = marks or bytearray(codes or bytes(len(values)))
            marks[index] = mark
            self._tell(counter.point, mark, last, value)
        return record if marks is None else record._replace(qualities=bytes(marks))

    def _tell(self, point: str, mark: int, last: float | None, value: float) -> None:
        self._marked = True
        change = CHANGES[mark]
        before = "nothing" if last is None else f"{last:.15g}"
        subject = f"counter {point}"
        self._faults.report(subject, f"{change.text}: from {before} to {value:.15g}", change.cause)
        if mark != quality.UNCERTAIN:
            self._faults.over(subject)

    def _document(self) -> dict[str, Any]:
        counters = {
            one.point: {"value": one.last, "time": one.changed, "rate": one.rate, "exchanged": one.exchanged}
            for one in self._counters.values()
            if one.last is not None or one.exchanged
        }
        return {"counters": counters, "serials": self._serials}

    def _restore(self, document: dict[str, Any]) -> None:
        self._serials.update(document["serials"])
        for point, found in document["counters"].items():
            counter = self._counters.get(point)
            if counter is not None:
                counter.last = found["value"]
                counter.changed = found["time"]
                counter.rate = found["rate"]
                counter.exchanged = found["exchanged"]


class _StateFile:
    """The file of last values. It is written beside the polling, since a slow disk must not hold that up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: threading.Thread | None = None

    def load(self) -> dict[str, Any]:
        """What it says; one that is missing or damaged says nothing."""
        empty: dict[str, Any] = {"counters": {}, "serials": {}}
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
            for found in document["counters"].values():
                if found["value"] is not None:
                    float(found["value"])
                int(found["time"]), float(found["rate"]), bool(found["exchanged"])
            dict(document["serials"])
        except FileNotFoundError:
            return empty
        except OSError as error:
            log.warning("%s: cannot be read (%s); counters start without a past", self._path, error.strerror)
            return empty
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("%s: damaged; counters start without a past", self._path)
            return empty
        return {"counters": document["counters"], "serials": document["serials"]}

    def save(self, document: dict[str, Any], *, wait: bool = False) -> None:
        """Replace the file; with `wait`, be back when that is done."""
        text = json.dumps(document)
        if self._thread is not None:
            if self._thread.is_alive() and not wait:
                return
            self._thread.join()
        self._thread = threading.Thread(target=self._write, args=(text,), name="counters")
        self._thread.start()
        if wait:
            self._thread.join()

    def _write(self, text: str) -> None:
        new = self._path.with_name(f".{self._path.name}.new")
        try:
            with new.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            new.replace(self._path)
        except OSError as error:
            log.warning("%s: cannot be written: %s", self._path, error.strerror)
