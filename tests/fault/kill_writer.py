# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the writer at random instants: whatever was put before is in the buffer exactly once.

The polling service's thread that commits, with the file in memory for what waits, but without meters. The negative
control does without that file, and loses what was put since the last commit.
`python -m tests.fault.kill_writer [--rounds N] [--control]`
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.fault import standalone
from tests.fault.report import FaultReport
from tests.unit.collector.writer_kills import POINTS, kill_rounds

ROUNDS = 200


def run(rounds: int, *, memory: bool = True) -> FaultReport:
    """Kill `rounds` times."""
    report = FaultReport("kill-writer" if memory else "kill-writer-control", rounds, faults=rounds)
    with tempfile.TemporaryDirectory() as name:
        tally = kill_rounds(Path(name), rounds, rounds, memory=memory)
    report.polls, report.readings = tally.puts, tally.puts * POINTS - tally.lost
    report.lost, report.doubled = tally.lost, tally.doubled
    return report


def control() -> FaultReport:
    """The same without the file for what waits."""
    return run(5, memory=False)


if __name__ == "__main__":
    standalone.main(__doc__, run, control, ROUNDS)
