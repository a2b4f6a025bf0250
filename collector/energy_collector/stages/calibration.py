# SPDX-License-Identifier: Apache-2.0
"""/etc/energy/device_mapping.json: what sensors are multiplied with and what is added, each from a date on.

A calibrated point keeps what the device has said as `<point>_raw`, and every change of a calibration travels as
`<point>_multiplier` and `<point>_offset` in the same signed chain as the readings. The stage belongs behind the one
that judges counters: what steps with a calibration is no reset of the device.
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
from energy_collector.meters.learned import Learned
from energy_collector.reading import Layout, Record
from energy_collector.section import Section, near
from energy_collector.stages.counters import COUNTED
from energy_collector.stages.stage import PerLayout, Stage

# The file is looked at once in so many seconds.
LOOK = 1.0
# A calibrated value is rounded to so many digits after the point: a millionth of any unit that we have, and no tail
# of binary digits.
# What is recorded of a calibration when it comes into force; see `Statistics`, which lets it pass.
DATED = ("_multiplier", "_offset")
DECIMALS = 6
MAX_MULTIPLIER = 1e6
MAX_OFFSET = 1e12


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
    """What to do with the records of a layout."""

    points: tuple[_Calibrated, ...]
    with_raw: Layout


class Calibration(Stage):
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
        self._plans = PerLayout(self._plan)
        self._told: dict[str, Entry] = {}
        # Counters that have stepped with their calibration, until a reading could say so.
        self._stepped: set[str] = set()

    def take(self, records: list[Record]) -> list[Record]:
        """Records on their way to the buffer: calibrated, and where a calibration is new, preceded by it."""
        self._look()
        if not self._mapping:
            return records
        found: list[Record] = []
        for record in records:
            plan = self._plans(record.layout)
            if not plan.points:
                found.append(record)
                continue
            for one in plan.points:
                entry = self._entry(one.point, record.time)
                if self._is_new(one, entry):
                    found.append(Record(one.layout, record.time, (entry.multiplier, entry.offset)))
            found.append(self._mark_steps(plan, self._apply(plan, record)))
        return found

    def apply(self, records: list[Record]) -> list[Record]:
        """Records for somebody who only looks."""
        self._look()
        if not self._mapping:
            return records
        return [
            self._apply(plan, record) if plan.points else record
            for record, plan in ((one, self._plans(one.layout)) for one in records)
        ]

    def _apply(self, plan: _Plan, record: Record) -> Record:
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
            values[one.place] = value
        return Record(plan.with_raw, record.time, values, bytes(codes) if any(codes) else b"")

    def _entry(self, point: str, moment: int) -> Entry:
        for entry in reversed(self._mapping[point]):
            if entry.start <= moment:
                return entry
        return NEUTRAL

    def _is_new(self, one: _Calibrated, entry: Entry) -> bool:
        """Whether the chain does not know this calibration yet; from now on it does."""
        told = self._told.get(one.point)
        if told is not None and told[1:] == entry[1:]:
            return False
        self._told[one.point] = entry
        # Also before a restart it may have been another one.
        if self._learned.calibrations.get(one.point, NEUTRAL[1:]) != entry[1:]:
            if one.is_counter:
                self._stepped.add(one.point)
            else:
                self._keep(one.point)
        return True

    def _mark_steps(self, plan: _Plan, record: Record) -> Record:
        """The first reading of a counter that counts after a step says that its count begins anew."""
        if not self._stepped:
            return record
        codes = bytearray(record.qualities or bytes(len(record.values)))
        for one in plan.points:
            if one.point in self._stepped and codes[one.place] in COUNTED:
                codes[one.place] = quality.UNCERTAIN_COUNTER_RESET
                self._stepped.discard(one.point)
                self._keep(one.point)
        return record._replace(qualities=bytes(codes) if any(codes) else b"")

    def _keep(self, point: str) -> None:
        """Remember over a restart which calibration the readings have."""
        self._learned.calibrations[point] = self._told[point][1:]
        self._learned.save_soon()

    def _plan(self, layout: Layout) -> _Plan:
        found = tuple(
            _Calibrated(
                index,
                point,
                unit.endswith(".h"),
                Layout(tuple(f"{point}{suffix}" for suffix in DATED), ("1", unit)),
            )
            for index, (point, unit) in enumerate(zip(*layout, strict=True))
            if point in self._mapping
        )
        return _Plan(
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
        self._plans = PerLayout(self._plan)
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
