# SPDX-License-Identifier: Apache-2.0
"""The disk under the buffer is full for a while and is freed again, while readings flow at 10 Hz.

What the memory can hold meanwhile is not lost; what it cannot hold is counted by the gateway.
"""

from __future__ import annotations

from tests.fault.report import FaultReport
from tests.fault.rig.disk import SmallDisk
from tests.fault.rig.rig import Rig, pause, say

# Room for the buffer of a minute, and not much more.
SIZE = "12m"
FULL = (3.0, 8.0)


def run(rounds: int) -> FaultReport:
    """Fill, wait, free."""
    report = FaultReport("full-disk", rounds)
    disk = SmallDisk(SIZE)
    with Rig(prepare=lambda rig: _prepare(rig, disk)) as rig:
        rig.wait_for_delivery()
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: full")
            disk.fill()
            report.faults += 1
            pause(*FULL)
            # What the gateway has freed meanwhile is taken, too.
            disk.fill()
            pause(1, 2)
            disk.free()
            rig.wait_for_delivery()
            pause(0, 2)
        # Otherwise nothing was tried: the disk was never too full for a commit.
        report.figures["told"] = sum("full" in line for line in rig.gateway.journal.splitlines())
        if not report.figures["told"]:
            report.findings.append("the gateway never said that its disk is full")
            report.late += 1
        rig.finish(report)
    return report


def _prepare(rig: Rig, disk: SmallDisk) -> None:
    disk.mount(rig.home / "buffer")
    rig.on_exit(disk.unmount)


def control() -> FaultReport:
    """A gateway that keeps nothing in memory: it is killed while the disk is full, and that is no excuse."""
    report = FaultReport("full-disk-control", 1)
    disk = SmallDisk(SIZE)
    with Rig(prepare=lambda rig: _prepare(rig, disk)) as rig:
        rig.wait_for_delivery()
        disk.fill()
        pause(5, 6)
        # Not by `kill_collector`, which would excuse what the kill takes.
        rig.gateway.kill()
        rig.persistence.kill()
        rig.remove_memory()
        disk.free()
        rig.start_collector()
        report.faults = 1
        rig.wait_for_polls()
        rig.wait_for_delivery()
        rig.finish(report, patience=10)
    return report
