# SPDX-License-Identifier: Apache-2.0
"""Whether faults have met a hub at work: what a run says of it, and when it is red."""

from __future__ import annotations

import pytest

from tests.fault.report import FaultReport
from tests.fault.rig.load import ENOUGH, Met


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
    met = Met()
    for held, commits in instants:
        met.note(held, commits)
    report = FaultReport("some", readings=1)
    met.tell(report)
    assert report.idle == idle
    assert report.passed == (idle == 0)
    assert len(report.findings) == (idle > 0)
    assert report.figures["met_an_open_commit"] == sum(commits > 0 for _, commits in instants)
