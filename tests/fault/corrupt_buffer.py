# SPDX-License-Identifier: Apache-2.0
"""Bytes of the buffer's file are overwritten, while the services are stopped and while they run.

What was in the file and not yet acknowledged may be gone. What the hub had committed stays, nothing is there twice, and
within `RECOVERY` the service goes on with a new buffer, without anybody's help.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

from tests.fault.report import FaultReport
from tests.fault.rig.exact import Span
from tests.fault.rig.rig import Rig, pause, say

# s. Not yet acknowledged: a batch that is being filled, sealed, sent and committed.
UNACKNOWLEDGED = 8.0
# s until a new buffer takes readings; a service that gives up and is started again included.
RECOVERY = 15.0
PAGE = 4096


def overwrite(rig: Rig) -> None:
    """Random bytes over the header, half of the pages, and the whole write-ahead log, which would mend them."""
    for path in rig.buffer_files:
        count = path.stat().st_size // PAGE
        if path.name.endswith("-shm") or not count:
            continue
        half = random.sample(range(count), (count + 1) // 2)
        with path.open("r+b") as file:
            for page in range(count) if path.name.endswith("-wal") else {0, *half}:
                file.seek(page * PAGE)
                file.write(os.urandom(PAGE))


def _while_stopped(rig: Rig) -> None:
    rig.kill_collector()
    overwrite(rig)
    rig.start_collector()


def _while_running(rig: Rig) -> None:
    overwrite(rig)


WAYS: tuple[Callable[[Rig], None], ...] = (_while_stopped, _while_running)


def run(rounds: int) -> FaultReport:
    """Each way in turn; `lost` are readings from `RECOVERY` after the corruption on, or committed before it."""
    report = FaultReport("corrupt-buffer", rounds)
    with Rig(supervised=True) as rig:
        for number in range(rounds):
            way = WAYS[number % len(WAYS)]
            rig.wait_for_polls()
            pause(2, 4)
            before = rig.database.number_of_readings()
            start = time.time()
            say(f"round {number + 1} of {rounds}: {_name(way)}, {before} readings")
            way(rig)
            report.faults += 1
            rig.excused.append(Span(start - UNACKNOWLEDGED, start + RECOVERY))
            while time.time() < start + RECOVERY and not _is_back(rig, start):
                rig.revive()
                time.sleep(0.5)
            took = time.time() - start
            report.figures["recovery_s"] = max(report.figures.get("recovery_s", 0), round(took, 1))
            if took >= RECOVERY:
                _help(rig, report, way)
            pause(3, 4)
            if rig.database.number_of_readings() < before:
                report.lost += 1
        rig.finish(report)
        report.figures["restarts"] = rig.revived
    return report


def _is_back(rig: Rig, start: float) -> bool:
    """Whether something is committed that was measured after the corruption at `start`."""
    return (rig.database.newest() or 0) > start + 1


def _help(rig: Rig, report: FaultReport, way: Callable[[Rig], None]) -> None:
    """Go on to the next round all the same."""
    text = f"{_name(way)}: nothing of afterwards is committed after {RECOVERY:g} s"
    say(text)
    report.late += 1
    report.findings += [text, f"the gateway says: {rig.gateway.journal.strip()[-200:]}"]
    rig.kill_collector()
    rig.remove_buffer()
    rig.start_collector()
    rig.excused.append(Span(time.time() - RECOVERY, time.time() + RECOVERY))


def _name(way: Callable[[Rig], None]) -> str:
    return way.__name__.strip("_").replace("_", " ")


def control() -> FaultReport:
    """A service that goes on with the corrupt file: whatever it makes is overwritten again."""
    report = FaultReport("corrupt-buffer-control", 1)
    with Rig(supervised=True) as rig:
        rig.wait_for_delivery()
        start = time.time()
        rig.excused.append(Span(start - UNACKNOWLEDGED, start + RECOVERY))
        while time.time() < start + RECOVERY:
            for path in rig.buffer_files:
                path.write_bytes(os.urandom(PAGE))
            report.faults += 1
            rig.revive()
            time.sleep(0.3)
        # A service that has given up polls nothing, so that nothing is lost either: what counts is that nothing comes.
        if not _is_back(rig, start):
            report.late += 1
            report.findings.append(f"nothing of afterwards is committed after {RECOVERY:g} s")
        rig.finish(report, patience=5)
    return report
