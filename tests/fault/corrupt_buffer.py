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


def overwrite(rig: Rig, pages: int) -> None:
    """Random bytes over whole pages, the first one with the file's header among them."""
    path = rig.home / "buffer" / "buffer.db"
    count = max(path.stat().st_size // PAGE, 1)
    with path.open("r+b") as file:
        for page in {0, *(random.randrange(count) for _ in range(pages))}:
            file.seek(page * PAGE)
            file.write(os.urandom(PAGE))


def _while_stopped(rig: Rig) -> None:
    rig.kill_collector()
    overwrite(rig, 3)
    rig.start_collector()


def _while_running(rig: Rig) -> None:
    overwrite(rig, 3)


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
            say(f"round {number + 1} of {rounds}: {way.__name__.strip('_').replace('_', ' ')}, {before} readings")
            way(rig)
            report.faults += 1
            rig.excused.append(Span(start - UNACKNOWLEDGED, start + RECOVERY))
            while time.time() < start + RECOVERY and (rig.database.newest() or 0) < start + 1:
                rig.revive()
                time.sleep(0.5)
            took = time.time() - start
            report.figures["recovery_s"] = max(report.figures.get("recovery_s", 0), round(took, 1))
            say(f"readings of afterwards are there after {took:.1f} s" if took < RECOVERY else "nothing comes any more")
            pause(3, 4)
            if rig.database.number_of_readings() < before:
                report.lost += 1
        rig.finish(report)
        report.figures["restarts"] = rig.revived
    return report


def control() -> FaultReport:
    """A service that goes on with the corrupt file: whatever it makes is overwritten again."""
    report = FaultReport("corrupt-buffer-control", 1)
    with Rig(supervised=True) as rig:
        rig.wait_for_delivery()
        start = time.time()
        rig.excused.append(Span(start - UNACKNOWLEDGED, start + RECOVERY))
        while time.time() < start + RECOVERY + 5:
            for path in rig.buffer_files:
                path.write_bytes(os.urandom(PAGE))
            report.faults += 1
            rig.revive()
            time.sleep(0.3)
        rig.finish(report, patience=5)
    return report
