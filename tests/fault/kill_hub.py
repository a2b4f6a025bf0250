# SPDX-License-Identifier: Apache-2.0
"""kill -9 of an ingest worker, a broker, the balancer, PostgreSQL, one of its backends, or of all of them at once, at
random instants, while the hub has its hands full. How many of these deaths met work is counted, too.

All at once is a power cut of the hub's host, as far as processes go: what was in their memory is gone, what they had
given to the kernel is there. Everything comes back in any order, and without being told.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

from tests.fault.report import FaultReport
from tests.fault.rig.load import Met
from tests.fault.rig.process import wait_for
from tests.fault.rig.rig import PATIENCE, pause, say
from tests.fault.rig.sites import SitesRig

SITES = [f"plant-{number}" for number in range(1, 4)]
BROKERS = ("broker-1", "broker-2")
# Sites beside these, of twenty batches a second each.
LOAD = 10
# s that something is away; systemd takes two.
AWAY = 3.0


def an_ingest_worker(rig: SitesRig) -> None:
    ingest = random.choice(rig.ingests)
    ingest.stop(signal.SIGKILL)
    pause(0, AWAY)
    ingest.start()


def a_broker(rig: SitesRig) -> None:
    broker = random.choice(list(rig.brokers.values()))
    broker.stop(signal.SIGKILL)
    pause(0, AWAY)
    broker.start()


def the_balancer(rig: SitesRig) -> None:
    rig.balancer.stop(signal.SIGKILL)
    pause(0, AWAY)
    rig.balancer.start()


def postgresql(rig: SitesRig) -> None:
    """Its first process; the others end when they notice."""
    rig.database.kill(everything=False)
    pause(0, AWAY)
    rig.database.again()


def a_backend(rig: SitesRig) -> None:
    """PostgreSQL ends all others then, and recovers by itself."""
    rig.database.kill_backend("energy-ingest")


def everything(rig: SitesRig) -> None:
    deaths: list[Callable[[], None]] = [
        rig.database.kill,
        *(lambda one=one: one.stop(signal.SIGKILL) for one in rig.brokers.values()),
        *(lambda one=one: one.stop(signal.SIGKILL) for one in rig.ingests),
        lambda: rig.balancer.stop(signal.SIGKILL),
    ]
    random.shuffle(deaths)
    for death in deaths:
        death()
    pause(0, AWAY)
    births: list[Callable[[], None]] = [
        rig.database.again,
        *(one.start for one in rig.brokers.values()),
        *(one.begin for one in rig.ingests),
        rig.balancer.start,
    ]
    random.shuffle(births)
    for birth in births:
        birth()


DEATHS: dict[str, Callable[[SitesRig], None]] = {
    "everything": everything,
    "an ingest worker": an_ingest_worker,
    "a broker": a_broker,
    "the balancer": the_balancer,
    "PostgreSQL": postgresql,
    "a backend of PostgreSQL": a_backend,
}


def run(rounds: int) -> FaultReport:
    """A round is each of them, in any order; one or two rounds are all at once and one other."""
    report = FaultReport("kill-hub", rounds)
    with SitesRig(SITES, BROKERS, as_the_hub=True, load=LOAD) as rig:
        met = Met(seek=rounds <= 2)
        # What no commit waits for is lost with every death of PostgreSQL, and not with one of five.
        rig.database.write_late()
        for number in range(rounds):
            names = list(DEATHS)
            if rounds <= 2:
                names = names[:1] + random.sample(names[1:], 1)
            random.shuffle(names)
            say(f"round {number + 1} of {rounds}: {', '.join(names)}")
            for name in names:
                with rig.database.connect() as connection:
                    # Between two commits, in one, and before its acknowledgement.
                    pause(0.2, 1.2)
                    met.look(rig.load, connection)
                DEATHS[name](rig)
                report.faults += 1
                took = rig.wait_for_everybody()
                key = f"{name.replace(' ', '_')}_s"
                report.figures[key] = max(report.figures.get(key, 0), round(took, 1))
        rig.finish(report)
        met.tell(report)
        _look_at_the_ends(rig, report)
    return report


def _look_at_the_ends(rig: SitesRig, report: FaultReport) -> None:
    """Nothing waits for ever: neither at the gateways for an acknowledgement nor at the hub for a batch before."""
    now = time.time()
    try:
        wait_for(lambda: not rig.waiting(now), "gateways have nothing left of it to deliver", PATIENCE)
    except AssertionError:
        report.evidence += 1
        report.findings.append(f"still waiting for acknowledgements: {', '.join(rig.waiting(now))}")
    with rig.database.connect() as connection:
        for site, missing in connection.execute(UNTOLD):
            report.evidence += 1
            report.findings.append(f"{site}: stored, and not told as committed: {missing}")
        for site, count in connection.execute(UNCHECKED):
            report.evidence += 1
            report.findings.append(
                f"{site}: {count} links of the chain are unchecked, though the batch before is there"
            )


# Sequences that are in the table of batches and not among those that the hub acknowledges. They come to be that in a
# second transaction, so what has just come is not asked for.
UNTOLD = """
SELECT s.name, string_agg(b.sequence::text, ', ' ORDER BY b.sequence)
FROM batch b JOIN site s ON s.id = b.site LEFT JOIN stream t ON t.site = b.site AND t.stream = b.stream
WHERE NOT coalesce(t.committed @> b.sequence, false) AND b.received < now() - interval '5 seconds' GROUP BY s.name
"""
UNCHECKED = """
SELECT s.name, count(*) FROM batch b JOIN site s ON s.id = b.site
JOIN batch p ON p.site = b.site AND p.stream = b.stream AND p.sequence = b.sequence - 1
WHERE b.chain = 0 AND b.received < now() - interval '5 seconds' GROUP BY s.name
"""


def control() -> FaultReport:
    """Batches are acknowledged before their commit is on the disk; then everything dies."""
    report = FaultReport("kill-hub-control", 1)
    sabotage = "tests.fault.rig.ingest_without_waiting"
    with SitesRig(SITES, BROKERS, as_the_hub=True, ingest=sabotage, load=LOAD) as rig:
        rig.database.write_late()
        for _ in range(3):
            pause(2, 4)
            everything(rig)
            report.faults += 1
            rig.wait_for_everybody()
        rig.finish(report, patience=15)
    return report
