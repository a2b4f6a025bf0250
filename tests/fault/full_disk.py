# SPDX-License-Identifier: Apache-2.0
"""The disk under the buffer is full for a while and is freed again, while readings flow at 10 Hz.

What the memory can hold meanwhile is not lost; what it cannot hold is counted by the gateway.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.fault.report import FaultReport
from tests.fault.rig.namespaces import command
from tests.fault.rig.rig import Rig, pause, say

# Room for the buffer of a minute, and not much more.
SIZE = "12m"
FULL = (3.0, 8.0)
PIECE = bytes(4096)


class SmallDisk:
    """A file system of its own under the buffer."""

    def __init__(self) -> None:
        self._filler = Path()
        self._mount: Path | None = None

    def mount(self, rig: Rig) -> None:
        """Before the services start."""
        self._mount = rig.home / "buffer"
        command("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "wf-fault", str(self._mount))
        self._filler = self._mount / "filler"

    def unmount(self) -> None:
        """Whatever state it is in."""
        if self._mount is not None:
            subprocess.run(["umount", "-l", self._mount], capture_output=True, check=False)
            self._mount = None

    def fill(self) -> None:
        """Until not a byte is left."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(PIECE)
            except OSError:
                return

    def free(self) -> None:
        """Take away what filled it."""
        self._filler.unlink(missing_ok=True)


def run(rounds: int) -> FaultReport:
    """Fill, wait, free."""
    report = FaultReport("full-disk", rounds)
    disk = SmallDisk()
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
    disk.mount(rig)
    rig.on_exit(disk.unmount)


def control() -> FaultReport:
    """A gateway that keeps nothing in memory: it is killed while the disk is full, and that is no excuse."""
    report = FaultReport("full-disk-control", 1)
    disk = SmallDisk()
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
