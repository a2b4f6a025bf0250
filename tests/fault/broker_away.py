# SPDX-License-Identifier: Apache-2.0
"""Two brokers behind a balancer, eight sites and two ingest workers, and one of these is killed, drained or robbed of
its memory, while readings flow.

Every site comes to the same broker each time, the sites of a broker that is away go to the other one and come back,
and no reading is lost or doubled by it.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable

from tests.fault.report import FaultReport
from tests.fault.rig.eager import EagerAcknowledger
from tests.fault.rig.process import wait_for
from tests.fault.rig.rig import pause, say
from tests.fault.rig.sites import SitesRig

SITES = [f"plant-{number}" for number in range(1, 9)]
FIRST, SECOND = "broker-1", "broker-2"


def run(rounds: int) -> FaultReport:
    """A round is all faults, one after the other."""
    report = FaultReport("broker-away", rounds)
    with SitesRig(SITES, (FIRST, SECOND)) as rig:
        homes = rig.balancer.places()
        say(f"at {FIRST}: {', '.join(site for site in SITES if homes[site] == FIRST)}")
        if set(homes.values()) != {FIRST, SECOND}:
            report.findings.append(f"all sites are at one broker: {homes}")
        faults: list[Callable[[SitesRig, dict[str, str]], None]] = [
            everybody_connects_anew,
            a_broker_is_killed,
            a_broker_is_drained,
            a_broker_forgets,
            the_balancer_is_killed,
        ]
        for number in range(rounds):
            for fault in faults:
                say(f"round {number + 1} of {rounds}: {fault.__name__.replace('_', ' ')}")
                pause(0, 2)
                fault(rig, homes)
                report.faults += 1
                took = rig.wait_for_everybody()
                key = f"{fault.__name__}_s"
                report.figures[key] = max(report.figures.get(key, 0), round(took, 1))
                at = rig.balancer.places()
                strangers = [site for site in SITES if at[site] != homes[site]]
                if strangers:
                    report.late += 1
                    report.findings.append(
                        f"after {fault.__name__} not at their broker: {', '.join(strangers)}"
                    )
                away = [site for site, state in rig.states().items() if state != "online"]
                if away:
                    report.late += 1
                    report.findings.append(f"after {fault.__name__} said to be away: {', '.join(away)}")
        rig.finish(report)
    return report


def everybody_connects_anew(rig: SitesRig, _homes: dict[str, str]) -> None:
    rig.reconnect(SITES)


def a_broker_is_killed(rig: SitesRig, homes: dict[str, str]) -> None:
    """Its sites go to the other broker without being told; the others notice nothing."""
    rig.brokers[FIRST].stop(signal.SIGKILL)
    rig.wait_for_everybody()
    at = rig.balancer.places()
    assert set(at.values()) == {SECOND}, f"sites at a broker that is dead: {at}"
    rig.brokers[FIRST].start()
    _bring_back(rig, homes, FIRST)


def a_broker_is_drained(rig: SitesRig, homes: dict[str, str]) -> None:
    """As playbooks/drain_broker.yml does it."""
    rig.balancer.ask(f"set server brokers/{SECOND} state drain")
    rig.balancer.ask(f"shutdown sessions server brokers/{SECOND}")
    rig.wait_for_everybody()
    at = rig.balancer.places()
    assert set(at.values()) == {FIRST}, f"sites at a broker that is drained: {at}"
    rig.brokers[SECOND].stop(signal.SIGTERM)
    rig.brokers[SECOND].start()
    rig.balancer.ask(f"set server brokers/{SECOND} state ready")
    _bring_back(rig, homes, SECOND)


def a_broker_forgets(rig: SitesRig, homes: dict[str, str]) -> None:
    """What a broker has taken (PUBACK) while no ingest was there is gone; the gateways still have it."""
    for ingest in rig.ingests:
        ingest.stop(signal.SIGKILL)
    pause(4, 4)
    rig.brokers[FIRST].stop(signal.SIGKILL)
    rig.brokers[FIRST].forget()
    rig.brokers[FIRST].start()
    for ingest in rig.ingests:
        ingest.start()
    rig.wait_for_everybody()
    _bring_back(rig, homes, FIRST)


def the_balancer_is_killed(rig: SitesRig, _homes: dict[str, str]) -> None:
    rig.balancer.stop(signal.SIGKILL)
    pause(1, 3)
    rig.balancer.start()


def _bring_back(rig: SitesRig, homes: dict[str, str], broker: str) -> None:
    """A site comes back at its next connection; here that is at once."""
    wait_for(lambda: _is_up(rig, broker), f"the balancer has {broker} back")
    rig.reconnect(site for site in SITES if homes[site] == broker)
    rig.wait_for_everybody()


def _is_up(rig: SitesRig, broker: str) -> bool:
    for line in rig.balancer.ask("show servers state brokers").splitlines():
        words = line.split()
        # srv_name, srv_op_state: 2 is up.
        if len(words) > 5 and words[3] == broker:
            return words[5] == "2"
    return False


def control() -> FaultReport:
    """Somebody acknowledges what a broker has: with the broker's memory the batches are gone."""
    report = FaultReport("broker-away-control", 1)
    with SitesRig(SITES[:4], (FIRST, SECOND), persistent_brokers=False) as rig:
        for ingest in rig.ingests:
            ingest.stop()
        with contextlib.ExitStack() as stack:
            for broker in rig.brokers.values():
                stack.enter_context(EagerAcknowledger(broker, rig.ingests[0]))
            pause(5, 5)
        for broker in rig.brokers.values():
            broker.stop(signal.SIGKILL)
            broker.start()
        report.faults = 1
        for ingest in rig.ingests:
            ingest.start()
        rig.wait_for_everybody()
        rig.finish(report, patience=15)
    return report
