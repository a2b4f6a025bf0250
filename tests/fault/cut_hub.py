# SPDX-License-Identifier: Apache-2.0
"""The plug of the hub's host is pulled at random instants while gateways deliver, and put in again. Nobody does
anything else.

The host has a disk of its own, which loses what was not synced: what an acknowledgement promises has to be on it. Half
of the cuts come while the hub is still on its way back from the one before.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path

from tests.fault.hub_host import HUB, LOAD, PATIENCE, HubHost
from tests.fault.report import FaultReport
from tests.fault.rig.rig import say
from tests.fleet.fleet import Fleet

# s without power: some backlog for the return.
DARK = (2.0, 15.0)
# s from a return to the next cut: in service again, and still on the way there.
IN_SERVICE, ON_THE_WAY = (0.0, 12.0), (0.0, 10.0)
# Of the control: s of readings that the gateways take for committed.
ACKNOWLEDGED = 15.0
# And s after which a hub that takes a few to come back is not going to.
GIVEN_UP = 90.0


def prepare(fleet: Fleet) -> None:
    """Hosts with disks, and sites that deliver every second."""
    fleet.up(disks=True)
    fleet.change_sites(**LOAD)


def run(fleet: Fleet, rounds: int) -> FaultReport:
    """A round is one cut."""
    report = FaultReport("cut-hub", rounds)
    with tempfile.TemporaryDirectory() as folder:
        hub = HubHost(fleet, Path(folder))
        hub.take_the_key()
        hub.sign()
        start = time.time()
        assert hub.wait_until_live(start), "the sites do not deliver"
        _cut_again_and_again(hub, report, rounds)
        if not report.late:
            hub.count(report, start, time.time())
            hub.judge(report)
    return report


def _cut_again_and_again(hub: HubHost, report: FaultReport, rounds: int) -> None:
    returns: list[float] = []
    forgotten = 0
    back = time.time()
    for number in range(rounds):
        in_service = number == 0 or random.random() < 0.5
        if number and in_service and not _comes_back(hub, report, back, returns):
            return
        wait = random.uniform(*(IN_SERVICE if in_service else ON_THE_WAY))
        time.sleep(wait)
        dark = random.uniform(*DARK)
        state = "in service" if in_service else f"{time.time() - back:.1f} s after the power came back"
        say(f"round {number + 1} of {rounds}: cut {state}, dark for {dark:.1f} s")
        back = _cut(hub.fleet, number, dark)
        report.faults += 1
        forgotten += hub.fleet.ssh(HUB, f"cat {_unsynced(number)} 2>/dev/null || true") == ""
    if not _comes_back(hub, report, back, returns):
        return
    report.figures |= {
        # Of the files that were written just before each cut and not synced.
        "unsynced_files_lost": forgotten,
        "live_again_s_median": round(statistics.median(returns), 1),
        "live_again_s_most": round(max(returns), 1),
    }


def _comes_back(
    hub: HubHost, report: FaultReport, since: float, returns: list[float], patience: float = PATIENCE
) -> bool:
    if not hub.wait_until_live(since, patience):
        report.late += 1
        report.findings.append("the hub does not come back by itself")
        return False
    returns.append(time.time() - since)
    say(f"live {returns[-1]:.1f} s after the power came back")
    return True


def _cut(fleet: Fleet, number: int, dark: float) -> float:
    """The Unix time at which the power came back."""
    fleet.ssh(HUB, f"echo written | sudo tee {_unsynced(number)}")
    fleet.lab("cut", HUB)
    time.sleep(dark)
    back = time.time()
    fleet.lab("start", HUB)
    return back


def _unsynced(number: int) -> str:
    return f"/var/lib/not-synced-{number}"


def control(fleet: Fleet) -> FaultReport:
    """PostgreSQL does not wait for the disk, and says that it is done."""
    report = FaultReport("cut-hub-control", 1)
    with tempfile.TemporaryDirectory() as folder:
        hub = HubHost(fleet, Path(folder))
        assert hub.wait_until_live(time.time()), "the sites do not deliver"
        hub.query("ALTER SYSTEM SET fsync = off")
        hub.query("SELECT pg_reload_conf()")
        start = time.time()
        for number in range(3):
            time.sleep(ACKNOWLEDGED)
            report.faults += 1
            try:
                back = _cut(fleet, number, DARK[0])
            except AssertionError as error:
                # With files that do not fit each other PostgreSQL may not start at all, and the boot never ends.
                report.late += 1
                report.findings.append(str(error))
                return report
            if not _comes_back(hub, report, back, [], GIVEN_UP):
                return report
        hub.count(report, start, time.time())
    return report
