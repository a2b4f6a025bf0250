# SPDX-License-Identifier: Apache-2.0
"""The hub is away for a minute at 10 Hz, and comes back over a thin line, so that the backlog takes its time.

Everything is delivered, and live readings do not wait for the backlog.
"""

from __future__ import annotations

import time

from tests.fault.report import FaultReport
from tests.fault.rig.rig import PATIENCE, Rig, say

AWAY = 60.0
QUICK_AWAY = 15.0
# What the line carries then, in times of what the live readings need: the backlog takes as long as the hub was away.
RATE = 2.0
MEASURE = 6.0
STEADY = 2000
# The bucket lets all through, so that only the line and what the delivery makes of it set the pace. `resend` is in
# proportion to `interval` what it is by default.
SETTINGS = {
    "batch": {"interval": 1, "resend": 3},
    "delivery": {"backlog_rate": 1e9, "backlog_burst": 10_000_000, "backlog_start": 0},
}
# s; a live reading is at most so old in the database: a batch that spans 1 s, waits for the next look and commit (1 s),
# for backlog on the line for no longer than its interval (1 s), is sent (0.5 s), and committed. The rest is
# reserve for a busy machine.
LIVE = 6.0


def run(rounds: int) -> FaultReport:
    """The broker is stopped for a minute; with one or two rounds for 15 s, which is enough:
    without the delivery's window, and with repetitions of what is under way, live readings were 27 s old."""
    report = FaultReport("hub-away", rounds)
    away = AWAY if rounds > 2 else QUICK_AWAY
    with Rig(relayed=True, settings=SETTINGS) as rig:
        # The first batches of a stream come with the names of all points. Measured once: later on what is left of a
        # backlog would count, and the line be no thin one.
        rig.wait_for_delivery(STEADY)
        need = _live_rate(rig)
        for number in range(rounds):
            rig.relay.rate = None
            rig.wait_for_delivery(STEADY)
            say(f"round {number + 1} of {rounds}: {need:.0f} bytes/s; the hub is away for {away:g} s")
            rig.broker.stop()
            left = time.time()
            time.sleep(away)
            rig.relay.rate = RATE * need
            rig.broker.start()
            back = time.time()
            report.faults += 1
            _watch(rig, report, left, back)
        rig.relay.rate = None
        rig.finish(report)
    return report


def _live_rate(rig: Rig) -> float:
    before = rig.relay.sent
    time.sleep(MEASURE)
    return (rig.relay.sent - before) / MEASURE


def _watch(rig: Rig, report: FaultReport, left: float, back: float) -> None:
    """Until the backlog is there: how old is the newest reading in the database?"""
    assert rig.relay.rate is not None
    connected: float | None = None
    worst = 0.0
    want = len([one for one in rig.answers if left <= one.time <= back])
    while time.time() < back + 2 * PATIENCE:
        now = time.time()
        if connected is None and (rig.database.newest() or 0) > left + 1:
            connected = now
        # What comes first after the return is older than live.
        elif connected is not None and now > connected + LIVE:
            worst = max(worst, now - (rig.database.newest() or 0))
        if connected is not None and rig.database.backlog(left, back) >= 0.99 * want:
            break
        time.sleep(0.3)
    took = time.time() - (connected or back)
    report.figures["backlog_s"] = max(report.figures.get("backlog_s", 0), round(took, 1))
    report.figures["live_age_s"] = max(report.figures.get("live_age_s", 0), round(worst, 1))
    say(f"the backlog took {took:.1f} s; live readings were up to {worst:.1f} s old meanwhile")
    if worst > LIVE:
        report.late += 1
        report.findings.append(
            f"live readings waited for the backlog: they were {worst:.1f} s old, at most {LIVE:g} are right"
        )


def control() -> FaultReport:
    """A buffer that does not last: after the absence it is what it was before."""
    report = FaultReport("hub-away-control", 1)
    with Rig() as rig:
        rig.wait_for_delivery()
        rig.broker.stop()
        rig.kill_collector()
        before = rig.keep_buffer()
        rig.start_collector()
        rig.wait_for_polls()
        time.sleep(6)
        rig.kill_collector()
        rig.rewind_buffer(before)
        rig.start_collector()
        rig.broker.start()
        report.faults = 1
        rig.wait_for_delivery()
        rig.finish(report, patience=10)
    return report
