# SPDX-License-Identifier: Apache-2.0
"""Batches wait in a broker for an ingest that is away, and never come out of it: its memory is deleted, or its queue is
full and it drops what it has taken (PUBACK).

The broker has the queue limits that mosquitto has by itself: 1,000 messages.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

from tests.fault.report import FaultReport
from tests.fault.rig.eager import EagerAcknowledger
from tests.fault.rig.process import wait_for
from tests.fault.rig.rig import pause, say
from tests.fault.rig.sites import DOMAIN, SitesRig
from tests.fault.rig.stranger import Stranger

SITES = [f"plant-{number}" for number in range(1, 4)]
BROKER = "broker-1"
# More than the queues of both workers hold.
FLOOD = 2500
NOISY = "plant-9"


def _memory_is_deleted(rig: SitesRig) -> None:
    pause(3, 5)
    broker = rig.brokers[BROKER]
    # In order, so that all that waits is on the disk, and deleted there.
    broker.stop(signal.SIGTERM)
    assert broker.kept_bytes > 1000, "nothing waited in the broker"
    broker.forget()
    broker.start()


def _queue_is_full(rig: SitesRig) -> None:
    """Another site fills it; what the others send then is taken and dropped."""
    with _noisy(rig) as noisy:
        for number in range(FLOOD):
            noisy.publish(f"energy/v1/{NOISY}/batch", b"noise %026d" % number, wait=False)
        wait_for(
            lambda: "messages are being dropped for client ingest" in rig.brokers[BROKER].journal,
            "the broker drops messages",
        )
        pause(3, 5)


@contextlib.contextmanager
def _noisy(rig: SitesRig) -> Iterator[Stranger]:
    broker = rig.brokers[BROKER]
    identity = rig.authority.client(NOISY)
    one = Stranger(
        NOISY, DOMAIN, rig.balancer.port, rig.folder, broker.folder / "ca.crt", rig.authority, identity
    )
    one.connect()
    try:
        yield one
    finally:
        one.close()


WAYS: dict[str, Callable[[SitesRig], None]] = {
    "the broker's memory is deleted": _memory_is_deleted,
    "its queue is full": _queue_is_full,
}


def run(rounds: int) -> FaultReport:
    """A round is both."""
    report = FaultReport("queue-lost", rounds)
    with SitesRig(SITES, (BROKER,)) as rig:
        for number in range(rounds):
            for what, lose in WAYS.items():
                say(f"round {number + 1} of {rounds}: {what}")
                for ingest in rig.ingests:
                    ingest.stop()
                lose(rig)
                report.faults += 1
                for ingest in rig.ingests:
                    ingest.start()
                took = rig.wait_for_everybody()
                key = f"{what.replace(' ', '_')}_s"
                report.figures[key] = max(report.figures.get(key, 0), round(took, 1))
        rig.finish(report, stranger=NOISY)
    return report


def control() -> FaultReport:
    """A gateway that frees a batch on the broker's receipt: what the full queue drops is nowhere."""
    report = FaultReport("queue-lost-control", 1)
    with SitesRig(SITES, (BROKER,)) as rig:
        for ingest in rig.ingests:
            ingest.stop()
        with EagerAcknowledger(rig.brokers[BROKER], rig.ingests[0]):
            _queue_is_full(rig)
        report.faults = 1
        for ingest in rig.ingests:
            ingest.start()
        rig.wait_for_everybody()
        rig.finish(report, patience=15, stranger=NOISY)
    return report
