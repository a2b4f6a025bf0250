# SPDX-License-Identifier: Apache-2.0
"""The gateway's wall clock is set forwards, back, and to 1970, while readings flow; it starts in 1970, too.

Readings are matched by their values, since their times are what is on trial: the times of a point ascend in the order
of its answers, none is lost, none is there twice. While the clock is behind what was used already, a reading either has
its right time or says `uncertain_clock`.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from tests.fault.report import FaultReport
from tests.fault.rig.exact import TIME_TOLERANCE, UNCERTAIN_CLOCK
from tests.fault.rig.faketime import Clock
from tests.fault.rig.meters import ADDRESSES, number_of
from tests.fault.rig.process import Process
from tests.fault.rig.rig import HALL, ROOF, Rig, pause, say

GOOD = 0
HOUR = 3600.0
START_OF_TIME = 100.0  # Unix s: a clock without a battery, a little after it was switched on
PHASE = (2.6, 3.4)
# s on either side of a step in which a reading may belong to the other one: a poll takes its time, and a reading is
# looked at once more when it is stored.
EDGE = 1.0


class Phase(NamedTuple):
    """Between two steps. `known_wrong`: the clock is behind times that were used already."""

    begin: float
    end: float
    known_wrong: bool
    known_right: bool


class _Trial:
    """A rig whose gateway has a clock of its own."""

    def __init__(self) -> None:
        self.phases: list[Phase] = []
        self.rig = Rig(prepare=self._prepare)
        # Newest time that the gateway has used, as an offset to the right time; readings of later are ahead.
        self.highest = 0.0

    def _prepare(self, rig: Rig) -> None:
        self.clock = Clock(rig.home / "clock")
        for process in (rig.gateway, rig.persistence):
            self.clock.govern(process)

    def live(self) -> None:
        """Let readings flow with the clock as it is."""
        self.rig.wait_for_polls()
        begin = time.time()
        pause(*PHASE)
        behind = self.clock.offset < self.highest - TIME_TOLERANCE
        self.phases.append(
            Phase(begin, time.time(), known_wrong=behind, known_right=self.highest == self.clock.offset == 0)
        )
        self.highest = max(self.highest, self.clock.offset)

    def step(self, offset: float) -> None:
        self.clock.set(offset)
        self.live()

    def reboot_in_1970(self) -> None:
        services: tuple[Process, ...] = (self.rig.gateway, self.rig.persistence)
        self.rig.kill_collector()
        self.clock.set_to(START_OF_TIME)
        for one in services:
            one.start()
        self.live()

    def judge(self, report: FaultReport) -> None:
        """Hold times and qualities against what the gateway could know."""
        units = {name: unit for unit, name in (HALL | ROOF).items()}
        answered: dict[tuple[int, int | None], float] = {
            (answer.unit, answer.number): answer.time for answer in self.rig.answers
        }
        uncertain = 0
        for row in self.rig.database.rows():
            if row.value is None:
                continue
            meter, _, point = row.point.partition("/")
            if meter not in units or point not in ADDRESSES:
                continue
            when = answered.get((units[meter], number_of(point, row.value)))
            phase = next(
                (one for one in self.phases if when and one.begin + EDGE < when < one.end - EDGE), None
            )
            if when is None or phase is None:
                continue
            doubtful = row.quality == UNCERTAIN_CLOCK
            uncertain += doubtful
            off = row.time / 1000 - when
            # A power factor above 1 is uncertain for a reason of its own, and there is room for one.
            if phase.known_wrong and row.quality == GOOD and abs(off) > TIME_TOLERANCE:
                _mistimed(
                    report, f"{row.point} of {when:.1f} is stamped {off:+.0f} s off and does not say so"
                )
            if phase.known_right and doubtful:
                _mistimed(report, f"{row.point} of {when:.1f} says uncertain_clock, and the clock was right")
        report.figures["uncertain_clock"] = uncertain
        if not uncertain:
            _mistimed(report, "no reading says uncertain_clock")


def _mistimed(report: FaultReport, text: str) -> None:
    report.mistimed += 1
    if report.mistimed <= 10:
        report.findings.append(text)


def run(rounds: int) -> FaultReport:
    """A round is a gateway of its own, since an hour ahead is an hour that has to pass."""
    report = FaultReport("clock-steps", rounds)
    for number in range(rounds):
        trial = _Trial()
        with trial.rig:
            say(
                f"round {number + 1} of {rounds}: right, an hour back, right, 1970, right, switched on in 1970, right"
            )
            trial.live()
            trial.step(-HOUR)
            trial.step(0)
            trial.clock.set_to(START_OF_TIME)
            trial.live()
            trial.step(0)
            trial.reboot_in_1970()
            trial.step(0)
            say(f"round {number + 1} of {rounds}: an hour forwards, right, an hour back, right")
            trial.step(HOUR)
            trial.step(0)
            trial.step(-HOUR)
            trial.step(0)
            report.faults += 10
            trial.rig.finish(report, clock_is_right=False)
            trial.judge(report)
    return report


def control() -> FaultReport:
    """A gateway that does not remember which times it has used: its buffer is taken away before an hour back."""
    report = FaultReport("clock-steps-control", 1)
    trial = _Trial()
    with trial.rig:
        trial.live()
        trial.rig.wait_for_delivery()
        trial.rig.kill_collector()
        trial.rig.remove_buffer()
        trial.clock.set(-HOUR)
        trial.rig.start_collector()
        trial.live()
        trial.step(0)
        report.faults = 2
        trial.rig.finish(report, clock_is_right=False, patience=10)
        trial.judge(report)
    return report
