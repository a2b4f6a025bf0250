# SPDX-License-Identifier: Apache-2.0
"""Whether faults have met a hub at work: what a run says of it, and when it is red."""

from __future__ import annotations

from typing import cast

import psycopg
import pytest

from tests.fault.report import FaultReport
from tests.fault.rig import load
from tests.fault.rig.load import ENOUGH, Load, Met


@pytest.mark.parametrize(
    ("instants", "idle"),
    [
        ([(3, 1), (0, 0)], 0),
        ([(0, 1), (0, 0), (2, 0)], 0),
        ([(0, 0), (0, 0), (2, 1)], 2),
        ([(0, 0)], 1),
        # Batches wait, and not one of many faults met a commit.
        ([(5, 0)] * (ENOUGH - 1), 0),
        ([(5, 0)] * ENOUGH, ENOUGH),
    ],
)
def test_a_run_whose_faults_met_nothing_is_red(instants: list[tuple[int, int]], idle: int) -> None:
    met = Met(seek=False)
    for held, commits in instants:
        met.note(held, commits)
    report = FaultReport("some", readings=1)
    met.tell(report)
    assert report.idle == idle
    assert report.passed == (idle == 0)
    assert len(report.findings) == (idle > 0)
    assert report.figures["met_an_open_commit"] == sum(commits > 0 for _, commits in instants)


class Instants:
    """A hub looked at again and again: so many batches held and commits open each time, and then nothing for ever."""

    def __init__(self, *instants: tuple[int, int]) -> None:
        self._left = list(instants)
        self.looks = 0
        self._open = 0

    @property
    def held(self) -> int:
        self.looks += 1
        held, self._open = self._left.pop(0) if self._left else (0, 0)
        return held

    def execute(self, _query: str) -> Instants:
        return self

    def fetchone(self) -> tuple[int]:
        return (self._open,)


@pytest.mark.parametrize(
    ("instants", "seek", "looks", "idle"),
    [
        ([(0, 0), (0, 0), (3, 0)], True, 3, 0),
        ([(0, 0), (0, 1), (3, 0)], True, 2, 0),
        ([(0, 0), (0, 0), (3, 0)], False, 1, 1),
        ([(2, 0)], False, 1, 0),
    ],
)
def test_a_fault_of_a_few_comes_when_there_is_work(
    instants: list[tuple[int, int]], seek: bool, looks: int, idle: int
) -> None:
    hub = Instants(*instants)
    met = Met(seek=seek)
    met.look(cast(Load, hub), cast(psycopg.Connection, hub))
    report = FaultReport("some", readings=1)
    met.tell(report)
    assert (hub.looks, report.idle) == (looks, idle)


def test_a_fault_that_waits_for_work_in_vain_has_met_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "SEEK", 0.05)
    hub = Instants()
    met = Met(seek=True)
    met.look(cast(Load, hub), cast(psycopg.Connection, hub))
    report = FaultReport("some", readings=1)
    met.tell(report)
    assert hub.looks > 1
    assert report.idle == 1
    assert not report.passed
