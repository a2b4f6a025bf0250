# SPDX-License-Identifier: Apache-2.0
"""A disk of the hub is full while the hub is at work, and is freed again: that of PostgreSQL's data, of its log of
changes (WAL), or of the broker's memory.

Nothing is acknowledged that is not stored; everything arrives afterwards, and no service has to be told. What ends is
started again as systemd does it (`Restart=` of the roles' units).
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

from tests.fault.report import FaultReport
from tests.fault.rig.database import Database
from tests.fault.rig.disk import SmallDisk
from tests.fault.rig.ingest import Ingest
from tests.fault.rig.load import Met
from tests.fault.rig.process import wait_for
from tests.fault.rig.rig import PATIENCE, pause, say
from tests.fault.rig.sites import SitesRig

SITES = [f"plant-{number}" for number in range(1, 4)]
BROKER = "broker-1"
# Sites beside these, of twenty batches a second each.
LOAD = 5
# What a fresh cluster takes, and what these sites send in some minutes.
DATA, WAL, STORE = "256M", "64M", "4M"
# Bytes that do not fit any more then.
NO_ROOM_FOR = 24_000_000
FULL, QUICK_FULL = (15.0, 25.0), (4.0, 5.0)
# s after which systemd starts what has ended: RestartSec of the units.
DATABASE_AGAIN, SERVICE_AGAIN = 5.0, 2.0
NO_ROOM = "No space left on device"


class SmallHub(SitesRig):
    """Each of the three has a small disk."""

    def make_database(self, folder: Path) -> Database:
        self.data, self.wal = (
            self._disk(folder.parent / name, size) for name, size in (("data", DATA), ("wal", WAL))
        )
        return Database(folder, data=self.data.folder / "cluster", wal=self.wal.folder / "cluster")

    def prepare(self) -> None:
        self.store = self._disk(self.brokers[BROKER].folder / "store", STORE)
        self._ended: dict[Database | Ingest, float] = {}

    def _disk(self, folder: Path, size: str) -> SmallDisk:
        folder.mkdir(exist_ok=True)
        disk = SmallDisk(size, ext4=True)
        self._stack.callback(disk.unmount)
        disk.mount(folder)
        return disk

    def attend(self) -> None:
        """What systemd does."""
        services: list[tuple[Database | Ingest, float]] = [(self.database, DATABASE_AGAIN)]
        services += [(one, SERVICE_AGAIN) for one in self.ingests]
        for service, after in services:
            if service.alive:
                self._ended.pop(service, None)
            elif time.monotonic() - self._ended.setdefault(service, time.monotonic()) > after:
                del self._ended[service]
                service.begin()

    def pause(self, low: float, high: float) -> None:
        """A random time, in which services that end are started."""
        end = time.monotonic() + low + (high - low) * (time.time() % 1)
        while time.monotonic() < end:
            self.attend()
            time.sleep(0.2)


def run(rounds: int) -> FaultReport:
    """A round is each disk once; with one or two rounds they are full for some seconds only."""
    report = FaultReport("hub-disk-full", rounds)
    span = QUICK_FULL if rounds <= 2 else FULL
    with SmallHub(SITES, (BROKER,), as_the_hub=True, load=LOAD) as rig:
        met = Met(seek=rounds <= 2)
        for number in range(rounds):
            for what, disk in (("data", rig.data), ("wal", rig.wal), ("broker", rig.store)):
                say(f"round {number + 1} of {rounds}: {what}")
                with rig.database.connect() as connection:
                    rig.pause(0.2, 1.2)
                    met.look(rig.load, connection)
                _full(rig, report, what, disk, span)
                disk.free()
                took = rig.wait_for_everybody()
                key = f"after_{what}_s"
                report.figures[key] = max(report.figures.get(key, 0), round(took, 1))
        rig.finish(report)
        met.tell(report)
    return report


def _full(rig: SmallHub, report: FaultReport, what: str, disk: SmallDisk, span: tuple[float, float]) -> None:
    told = len(_said(rig))
    disk.fill()
    report.faults += 1
    if what == "broker":
        broker = rig.hub_broker(BROKER)
        # It writes its memory down, for which there is no room, and dies with what it has not written.
        broker.save()
        pause(1, 1)
        wait_for(lambda: NO_ROOM in broker.log, "the broker says that its disk is full")
        broker.stop(signal.SIGKILL)
        pause(0, SERVICE_AGAIN)
        broker.start()
        return
    if what == "wal":
        # Somebody else's load uses up what was set aside.
        rig.database.write_log(NO_ROOM_FOR)
    rig.pause(*span)
    # What was freed meanwhile is taken, too.
    disk.fill()
    rig.pause(2, 3)
    said = _said(rig)[told:]
    wanted = NO_ROOM if what == "data" else "ERR CONNECTION_REFUSED database"
    if wanted not in said:
        report.late += 1
        report.findings.append(f"{what} is full, and no worker's log says {wanted!r}")
    report.figures[f"alarms_{what}"] = report.figures.get(f"alarms_{what}", 0) + said.count(wanted)


def _said(rig: SmallHub) -> str:
    return "".join(one.log for one in rig.ingests)


def control() -> FaultReport:
    """An ingest that acknowledges whatever the database says."""
    report = FaultReport("hub-disk-full-control", 1)
    sabotage = "tests.fault.rig.ingest_that_gives_up"
    with SmallHub(SITES, (BROKER,), as_the_hub=True, ingest=sabotage, load=LOAD) as rig:
        rig.data.fill()
        report.faults = 1
        rig.pause(8, 10)
        rig.data.free()
        rig.wait_for_everybody(PATIENCE)
        rig.finish(report, patience=15)
    return report
