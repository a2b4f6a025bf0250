# SPDX-License-Identifier: Apache-2.0
"""One of two databases is away while sites of both deliver, and a site is moved under load by a mover that is killed.

The site of the other database stays on time, and every reading is counted once where the directory says it lives.
"""

from __future__ import annotations

import random
import time

from tests.fault.report import FaultReport
from tests.fault.rig.process import wait_for
from tests.fault.rig.rig import PATIENCE, pause, say
from tests.fault.rig.shards import DIRECTORY, OTHER, Beside, ShardedRig, SiteDatabase

FIRST, SECOND = "plant-a", "plant-b"
AWAY, QUICK_AWAY = 60.0, 15.0
# From so many s on, meters are asked once a second and not five times: counting both ends is to take minutes.
LONG = 600.0
# s; as hub_away has it, and a second for one more thread and database on a busy machine.
LIVE = 7.0
# Movers of a round that are to be killed, and s that a whole move takes at most.
KILLS = 6
MOVE = 60.0
# So many of them are killed near the fence, within so many s after the first copy.
NEAR_THE_FENCE, FENCE = 0.7, 0.15


def run(rounds: int, away: float | None = None) -> FaultReport:
    """Where it is not told for how long, the database is away for a minute, and for 15 s with one or two rounds."""
    report = FaultReport("shard-away", rounds)
    away = away or (AWAY if rounds > 2 else QUICK_AWAY)
    report.figures["away_s"] = away
    with ShardedRig(interval=0.2 if away < LONG else 1.0) as rig:
        rig.wait_for_delivery()
        with Beside(rig, SECOND) as beside:
            beside.wait_for_delivery()
            assert (_home(rig), _home(beside)) == (DIRECTORY, OTHER)
            for number in range(rounds):
                say(f"round {number + 1} of {rounds}")
                _away(rig, beside, report, away)
                _move(rig, beside, report)
            for one in (rig, beside):
                one.finish(report)
    return report


def _home(rig: ShardedRig | Beside) -> str | None:
    assert isinstance(rig.database, SiteDatabase)
    return rig.database.home()


def _away(rig: ShardedRig, beside: Beside, report: FaultReport, seconds: float) -> None:
    """The second site is wherever it was moved to; the other database goes away only while it lives there."""
    if _home(beside) != OTHER:
        _finish_move(rig, SECOND, OTHER)
    rig.shards[OTHER].stop()
    report.faults += 1
    deadline = time.monotonic() + seconds
    worst = 0.0
    while time.monotonic() < deadline:
        worst = max(worst, time.time() - (rig.database.newest() or 0))
        time.sleep(0.5)
    rig.shards[OTHER].again()
    back = time.monotonic()
    beside.wait_for_delivery()
    took = time.monotonic() - back
    say(f"readings of the other site were up to {worst:.1f} s old; this one's came {took:.1f} s later")
    report.figures["age_of_the_other_s"] = max(report.figures.get("age_of_the_other_s", 0), round(worst, 1))
    if worst > LIVE:
        report.late += 1
        report.findings.append(
            f"readings of the site whose database was there were {worst:.1f} s old, at most {LIVE:g} are right"
        )


def _move(rig: ShardedRig, beside: Beside, report: FaultReport) -> None:
    """There, with movers that are killed, and then with one that is left alone."""
    to = DIRECTORY if _home(beside) == OTHER else OTHER
    began = time.monotonic()
    _finish_move(rig, SECOND, to)
    usual = time.monotonic() - began
    beside.wait_for_delivery()
    report.figures["move_s"] = round(usual, 1)
    killed = 0
    for _ in range(KILLS):
        mover = rig.mover(SECOND, OTHER if _home(beside) == DIRECTORY else DIRECTORY)
        said = mover.journal
        mover.start()
        # Anywhere in it, or where it matters: between the last of the copies and the end.
        anywhere = time.monotonic() + random.uniform(0.3, 0.9) * usual
        near = random.random() < NEAR_THE_FENCE
        while mover.alive and (mover.journal == said if near else time.monotonic() < anywhere):
            time.sleep(0.005)
        if near:
            pause(0, FENCE)
        if mover.alive:
            mover.kill()
            killed += 1
            report.faults += 1
        pause(0, 1.5)
    say(f"{killed} movers killed; the site is in {_home(beside)}")
    # Whichever it is: it goes on there.
    beside.wait_for_delivery()
    _finish_move(rig, SECOND, OTHER)
    beside.wait_for_delivery()


def _finish_move(rig: ShardedRig, site: str, to: str) -> None:
    mover = rig.mover(site, to)
    mover.start()
    wait_for(lambda: not mover.alive, "the mover ends", MOVE)
    assert f"{site} lives in {to}" in mover.journal.splitlines()[-1], mover.journal


def control() -> FaultReport:
    """Workers do not ask whether a site is still where they remember it: what comes after a move is lost."""
    report = FaultReport("shard-away-control", 1)
    with ShardedRig(ingest="tests.fault.rig.ingest_without_fence") as rig:
        rig.wait_for_delivery()
        _finish_move(rig, FIRST, OTHER)
        report.faults = 1
        time.sleep(5)
        rig.finish(report, patience=min(10.0, PATIENCE))
    return report
