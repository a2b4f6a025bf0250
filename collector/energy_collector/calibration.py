# SPDX-License-Identifier: Apache-2.0
"""/etc/energy/device_mapping.json: what sensors are multiplied with and what is added, each from a date on.

A calibrated point keeps what the device has said as `<point>_raw`, and every change of a calibration travels as
`<point>_multiplier` and `<point>_offset` in the same signed chain as the readings.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from energy_collector import quality
from energy_collector.journal import Faults, log
from energy_collector.learned import Learned
from energy_collector.reading import Layout, Record
from energy_collector.section import Section, near

# The file is looked at once in so many seconds.
LOOK = 1.0
# A calibrated value is rounded to so many digits after the point: a millionth of any unit that we have, and no tail
# of binary digits.
DECIMALS = 6
MAX_MULTIPLIER = 1e6
MAX_OFFSET = 1e12
MAX_LAYOUTS = 4096


class Entry(NamedTuple):
    """A calibration from `start` (ms since 1970 UTC) on."""

    start: int
    multiplier: float
    offset: float


NEUTRAL = Entry(0, 1.0, 0.0)
Mapping = dict[str, tuple[Entry, ...]]


class MappingError(ValueError):
    """A file that cannot be used; the message names every fault in one line."""


class _Calibrated(NamedTuple):
    """A point of a layout that is calibrated."""

    place: int
    point: str
    # A step of a counter is no consumption.
    is_counter: bool
    layout: Layout


class _Plan(NamedTuple):
    """What to do with the records of a layout. It is kept with the layout, whose identity is the key."""

    layout: Layout
    points: tuple[_Calibrated, ...]
    with_raw: Layout


class Calibration:
    """Applies the file to records. `known` gives the full names of all points, to find misspelt ones."""

    def __init__(
        self,
        path: Path,
        learned: Learned,
        faults: Faults,
        known: Callable[[], Collection[str]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._learned = learned
        self._faults = faults
        self._known = known
        self._monotonic = monotonic
        self._look_at = 0.0
        self._state: tuple[int, int, int] | None = None
        self._mapping: Mapping = {}
        self._plans: dict[int, _Plan] = {}
        self._told: dict[str, Entry] = {}

    def take(self, records: list[Record]) -> list[Record]:
        """Records on their way to the buffer: calibrated, and where a calibration is new, preceded by it."""
        self._look()
        if not self._mapping:
            return records
        found: list[Record] = []
        for record in records:
            plan = self._plan(record.layout)
            if plan.points:
                changed = self._changes(plan, record.time)
                found += [
                    Record(one.layout, record.time, (entry.multiplier, entry.offset))
                    for one, entry in changed
                ]
                steps = {
                    one.place for one, entry in changed if one.is_counter and self._steps(one.point, entry)
                }
                found.append(self._apply(plan, record, steps))
                self._remember(changed)
            else:
                found.append(record)
        return found

    def apply(self, records: list[Record]) -> list[Record]:
        """Records for somebody who only looks."""
        self._look()
        if not self._mapping:
            return records
        return [
            self._apply(plan, record, set()) if plan.points else record
            for record, plan in ((one, self._plan(one.layout)) for one in records)
        ]

    def _apply(self, plan: _Plan, record: Record, steps: set[int]) -> Record:
        values = list(record.values)
        codes = bytearray(record.qualities or bytes(len(values)))
        for one in plan.points:
            raw, code = values[one.place], codes[one.place]
            values.append(raw)
            codes.append(code)
            if quality.is_bad(code):
                continue
            entry = self._entry(one.point, record.time)
            value = round(raw * entry.multiplier + entry.offset, DECIMALS) + 0.0
            if not math.isfinite(value):
                value, codes[one.place] = 0.0, quality.BAD_CONFIGURATION
            elif one.place in steps and code < quality.UNCERTAIN:
                codes[one.place] = quality.UNCERTAIN_COUNTER_RESET
            values[one.place] = value
        return Record(plan.with_raw, record.time, values, bytes(codes) if any(codes) else b"")

    def _entry(self, point: str, moment: int) -> Entry:
        for entry in reversed(self._mapping[point]):
            if entry.start <= moment:
                return entry
        return NEUTRAL

    def _changes(self, plan: _Plan, moment: int) -> list[tuple[_Calibrated, Entry]]:
        """Calibrations that the chain does not know yet."""
        found = []
        for one in plan.points:
            entry = self._entry(one.point, moment)
            told = self._told.get(one.point)
            if told is None or told[1:] != entry[1:]:
                found.append((one, entry))
        return found

    def _steps(self, point: str, entry: Entry) -> bool:
        """Whether a calibration is another one than that of the reading before, also before a restart."""
        return self._learned.calibrations.get(point, (1.0, 0.0)) != (entry.multiplier, entry.offset)

    def _remember(self, changed: list[tuple[_Calibrated, Entry]]) -> None:
        for one, entry in changed:
            self._told[one.point] = entry
            if self._steps(one.point, entry):
                self._learned.calibrations[one.point] = (entry.multiplier, entry.offset)
                self._learned.save_soon()

    def _plan(self, layout: Layout) -> _Plan:
        plan = self._plans.get(id(layout))
        if plan is None or plan.layout is not layout:
            if len(self._plans) >= MAX_LAYOUTS:
                self._plans.clear()
            plan = self._plans[id(layout)] = self._work_out(layout)
        return plan

    def _work_out(self, layout: Layout) -> _Plan:
        found = tuple(
            _Calibrated(
                index,
                point,
                unit.endswith(".h"),
                Layout((f"{point}_multiplier", f"{point}_offset"), ("1", unit)),
            )
            for index, (point, unit) in enumerate(zip(*layout, strict=True))
            if point in self._mapping
        )
        return _Plan(
            layout,
            found,
            Layout(
                layout.points + tuple(f"{one.point}_raw" for one in found),
                layout.units + tuple(layout.units[one.place] for one in found),
            ),
        )

    def _look(self) -> None:
        """Read the file again when it is another one than before."""
        now = self._monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK
        try:
            about = self._path.stat()
            state = (about.st_mtime_ns, about.st_ino, about.st_size)
        except FileNotFoundError:
            state = None
        except OSError as error:
            self._refuse(f"cannot be read: {error.strerror}")
            return
        if state == self._state:
            return
        self._state = state
        try:
            mapping = load(self._path) if state is not None else {}
        except MappingError as error:
            self._refuse(str(error))
            return
        self._faults.over(str(self._path))
        self._use(mapping)

    def _refuse(self, text: str) -> None:
        self._faults.report(
            str(self._path), text, "the file has a fault; the calibration before it stays in force"
        )

    def _use(self, mapping: Mapping) -> None:
        # A point whose entry was taken out goes on with its raw value: that is a change too, and has to be told.
        gone = {point: () for point in self._told if point not in mapping}
        if mapping != {point: entries for point, entries in self._mapping.items() if entries}:
            log.info("%s is in force: %d sensors", self._path, len(mapping))
        self._mapping = {**mapping, **gone}
        self._plans.clear()
        known = self._known()
        for point in mapping:
            subject = f"{self._path}: {point}"
            if point in known:
                self._faults.over(subject)
            else:
                self._faults.report(
                    subject, f"is not a point of this site{near(point, known)}", "a slip of the pen"
                )


def load(path: Path) -> Mapping:
    """Read and check the file. Raises MappingError with every fault."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MappingError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise MappingError(f"is not JSON: {error}") from error
    faults: list[str] = []
    root = Section(document, "", faults)
    mapping = {}
    for point in root.data:
        entries = []
        for section in root.sections(point):
            entries.append(
                Entry(
                    _moment(section),
                    section.number("multiplier", float, -MAX_MULTIPLIER, MAX_MULTIPLIER, 1.0),
                    section.number("offset", float, -MAX_OFFSET, MAX_OFFSET, 0.0),
                )
            )
            if entries[-1].multiplier == 0:
                section.fault("multiplier", "0 would make every value the same")
            section.take("note", str, "")
            section.finish()
        if any(later.start <= earlier.start for earlier, later in pairwise(entries)):
            root.fault(point, "its entries do not follow one another in time")
        mapping[point] = tuple(entries)
    if faults:
        raise MappingError("; ".join(faults))
    return mapping


def _moment(section: Section) -> int:
    text = section.take("from", str)
    try:
        # Python 3.10 does not know the Z.
        moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        moment = None
    if moment is not None and moment.tzinfo is not None:
        return round(moment.astimezone(timezone.utc).timestamp() * 1000)
    if isinstance(section.data.get("from"), str):
        section.fault("from", f"{text!r} is not a time in UTC like 2026-01-01T00:00:00Z")
    return 0
