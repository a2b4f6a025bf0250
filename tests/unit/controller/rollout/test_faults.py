# SPDX-License-Identifier: Apache-2.0
"""Every state of a site x every fault, generated from the state machine: a new state without its cases fails here.

A site is brought into the state, the fault strikes then, and the rollout goes on to its end. What has to hold is the
same for all: nobody is flashed twice in an attempt, no site is forgotten, nothing is begun after a halt, and every
entry of the ledger is as it was written. In which states the end may be, beside these, is in EXPECTED.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import pytest
from wattfleet.rollout import operations
from wattfleet.rollout.driver import Driver
from wattfleet.rollout.engine import Action
from wattfleet.rollout.ledger import Ledger
from wattfleet.rollout.states import ACTIVE, AT_RISK, OVER, SETTLED, SITE_STEPS, RolloutState, SiteState

from .simulated import Behaviour, SimulatedFleet
from .support import NAME, SETTINGS, START, TURN, fleet_of, planned, run, site

SITE = "b"  # not the canary, so that both a halt and a rollout that goes on are possible


class Fault(Enum):
    """What strikes while the site is in the state."""

    ERROR = "error"  # whatever the gateway is asked for next ends with an error
    HANG = "hang"  # what it is doing never ends
    KILL = "kill -9"  # of the controller
    POWER = "power cut"  # at the site: it is away for a while and knows what is on its disk
    LINK = "link cut"  # for good


def ends(*states: SiteState) -> frozenset[SiteState]:
    return frozenset(states)


OK, FAILED, SILENT, SKIPPED = ends(SiteState.OK), SiteState.FAILED, SiteState.SILENT, ends(SiteState.SKIPPED)
# Where the site may end, by the state in which it was struck. Only ERROR, HANG and LINK can change the end of a site
# that is still to be done; a dead controller and a power cut must not.
EXPECTED: dict[SiteState, dict[Fault, frozenset[SiteState]]] = {
    state: {
        Fault.ERROR: ends(FAILED),
        Fault.HANG: ends(SILENT),
        Fault.KILL: OK,
        Fault.POWER: OK,
        Fault.LINK: ends(SILENT),
    }
    for state in (
        SiteState.PENDING,
        SiteState.DUE,
        SiteState.TRANSFERRING,
        SiteState.VERIFIED,
        SiteState.INSTALLING,
        SiteState.PARKED,
    )
} | {
    # The installation is over: an error of it is one of what is seen next.
    SiteState.REBOOTING: {
        Fault.ERROR: ends(FAILED),
        Fault.HANG: ends(SILENT),
        Fault.KILL: OK,
        Fault.POWER: OK,
        Fault.LINK: ends(SILENT),
    },
    SiteState.SOAKING: {
        Fault.ERROR: ends(FAILED),
        Fault.HANG: ends(SILENT),
        Fault.KILL: OK,
        Fault.POWER: OK,
        Fault.LINK: ends(SILENT),
    },
    # Nothing is asked of these any more: whatever happens at the site, the rollout's answer stays.
    SiteState.OK: dict.fromkeys(Fault, OK),
    SiteState.FAILED: dict.fromkeys(Fault, ends(FAILED)),
    SiteState.SILENT: dict.fromkeys(Fault, ends(SILENT)),
    SiteState.SKIPPED: dict.fromkeys(Fault, SKIPPED),
}
# What the gateway does, so that the site comes into a state which a good release does not bring it to.
BEHAVIOURS = {SiteState.FAILED: Behaviour.FAILS, SiteState.SILENT: Behaviour.DIES}


def cases() -> Iterator[tuple[SiteState, Fault]]:
    for state in SITE_STEPS:
        for fault in Fault:
            yield state, fault


def test_every_state_has_its_cases() -> None:
    assert set(SITE_STEPS) == set(SiteState), "a state without steps"
    for state in SiteState:
        assert state in EXPECTED, f"{state}: say in EXPECTED how a site ends that is struck in it"
        assert set(EXPECTED[state]) == set(Fault), f"{state}: a fault without an end"


@pytest.mark.parametrize(("state", "fault"), list(cases()), ids=lambda one: one.name.lower())
def test_a_fault_in_a_state(state: SiteState, fault: Fault, tmp_path: Path) -> None:
    sites = [site("a", "canary"), site(SITE, "early"), site("c", "early"), site("d", "rest")]
    fleet = fleet_of(sites, {SITE: BEHAVIOURS.get(state, Behaviour.GOOD)})
    ledger = Ledger(tmp_path / "ledger.db")
    planned(ledger, sites)
    if state is SiteState.SKIPPED:
        ledger.write(operations.skip(operations.load(ledger, NAME), SITE), at=START, who="ann")
    if state is SiteState.PARKED:
        fleet.closed = {SITE}
    ledger = reach(ledger, fleet, state)
    strike(fleet, fault)
    if fault is Fault.KILL:
        ledger = killed(ledger, fleet)
    fleet.closed = set()
    rollout = run(ledger, fleet)

    assert SiteState(rollout.sites[SITE].state) in EXPECTED[state][fault]
    bad = {name for name, record in rollout.sites.items() if record.state in ("failed", "silent")}
    assert rollout.state is (RolloutState.HALTED if bad else RolloutState.DONE)
    assert bad <= {SITE}, "a fault at one site is none of the others"
    assert not any(SiteState(record.state) in ACTIVE for record in rollout.sites.values()), "forgotten"
    for gateway in fleet.gateways.values():
        assert len(gateway.flashed) == len(set(gateway.flashed)) <= 1, "flashed twice"
    assert fleet.most_away <= SETTINGS.max_offline
    halted = [entry.at for entry in ledger.entries() if entry.step.new == RolloutState.HALTED]
    late = [command for at, command in fleet.dispatched if halted and at >= halted[0]]
    assert not [command for command in late if command.action in (Action.TRANSFER, Action.INSTALL)]
    assert ledger.verify() == []


def reach(ledger: Ledger, fleet: SimulatedFleet, state: SiteState) -> Ledger:
    """Turn until the site is in the state."""
    driver = Driver(ledger, NAME, fleet, "test")
    fleet.now = START
    for _ in range(400):
        if operations.load(ledger, NAME).sites[SITE].state == state.value:
            return ledger
        fleet.now += TURN
        driver.turn(fleet.now)
    raise AssertionError(f"the site never was {state}")


def strike(fleet: SimulatedFleet, fault: Fault) -> None:
    gateway = fleet.gateways[SITE]
    if fault is Fault.ERROR:
        gateway.errors = True
    elif fault is Fault.HANG:
        gateway.hangs = True
    elif fault is Fault.LINK:
        gateway.away_from = fleet.now
    elif fault is Fault.POWER:
        gateway.away_from, gateway.away_until = fleet.now, fleet.now + 60_000
        if gateway.transfer_begun is not None and gateway.install_begun is None:
            # What had come is on its disk; what was on its way comes after the power.
            gateway.transfer_begun += 60_000


def killed(ledger: Ledger, fleet: SimulatedFleet) -> Ledger:
    """End the controller right before and right after its next write; a new one goes on each time."""
    for moment in ("before", "after"):

        def observe(when: str, moment: str = moment) -> None:
            if when == moment:
                raise KilledError

        ledger.close()
        struck = Ledger(ledger.path, observe)
        driver = Driver(struck, NAME, fleet, "test")
        with contextlib.suppress(KilledError):
            for _ in range(200):
                fleet.now += TURN
                if Driver.is_over(driver.turn(fleet.now)):
                    break
        struck.close()
        ledger = Ledger(ledger.path)
    return ledger


class KilledError(Exception):
    """Stands for the end of the process."""


def test_the_states_are_those_the_engine_knows() -> None:
    """A state that is neither active, nor settled, nor waiting is one that nobody follows."""
    waiting = {SiteState.PENDING, SiteState.DUE, SiteState.PARKED}
    assert set(SiteState) == ACTIVE | SETTLED | waiting
    assert set(RolloutState) == OVER | {
        RolloutState.PLANNED,
        RolloutState.RUNNING,
        RolloutState.PAUSED,
        RolloutState.HOLDING,
    }
    assert not AT_RISK & waiting
