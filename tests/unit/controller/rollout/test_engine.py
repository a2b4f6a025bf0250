# SPDX-License-Identifier: Apache-2.0
"""What the engine does with a fleet: good and bad releases, budgets, windows, people, and crashes at every write."""

from __future__ import annotations

from pathlib import Path

import pytest
from wattfleet.rollout import operations
from wattfleet.rollout.driver import Driver
from wattfleet.rollout.engine import Kind, Rollout, Seen, decide
from wattfleet.rollout.model import Settings, Site
from wattfleet.rollout.planning import make_plan
from wattfleet.rollout.states import AT_RISK, RolloutState, SiteState

from .simulated import Behaviour, SimulatedFleet
from .support import (
    NAME,
    NOW,
    RELEASE,
    RINGS,
    SETTINGS,
    START,
    TURN,
    fleet_of,
    fresh,
    planned,
    run,
    site,
    some,
)


def states(rollout: operations.Rollout) -> dict[str, str]:
    return {name: record.state for name, record in rollout.sites.items()}


def test_a_good_release_reaches_every_site_in_the_order_of_the_waves(tmp_path: Path) -> None:
    sites, ledger = some(20), fresh(tmp_path)
    fleet = fleet_of(sites)
    plan = planned(ledger, sites)
    rollout = run(ledger, fleet)
    assert rollout.state is RolloutState.DONE
    assert set(states(rollout).values()) == {SiteState.OK.value}
    assert all(gateway.version == "2.0" and len(gateway.flashed) == 1 for gateway in fleet.gateways.values())
    assert fleet.most_away <= SETTINGS.max_offline
    begun = {entry.step.site: entry.number for entry in ledger.entries() if entry.step.new == "installing"}
    done = {entry.step.site: entry.number for entry in ledger.entries() if entry.step.new == "ok"}
    for before, after in zip(plan.waves, plan.waves[1:], strict=False):
        assert max(done[name] for name in before) < min(begun[name] for name in after)
    assert ledger.verify() == []


@pytest.mark.parametrize(
    ("behaviour", "end"),
    [
        (Behaviour.REFUSES, SiteState.FAILED),
        (Behaviour.FAILS, SiteState.FAILED),
        (Behaviour.HANGS, SiteState.SILENT),
        (Behaviour.REVERTS, SiteState.FAILED),
        (Behaviour.DIES, SiteState.SILENT),
        (Behaviour.BREAKS_POLLING, SiteState.FAILED),
        (Behaviour.LOST_LINK, SiteState.SILENT),
    ],
)
def test_a_bad_release_stops_at_the_canary(tmp_path: Path, behaviour: Behaviour, end: SiteState) -> None:
    sites, ledger = some(9), fresh(tmp_path)
    fleet = fleet_of(sites, {one.name: behaviour for one in sites})
    planned(ledger, sites)
    rollout = run(ledger, fleet)
    assert rollout.state is RolloutState.HALTED
    assert rollout.sites["s0000"].state == end.value
    assert {command.site for _, command in fleet.dispatched} == {"s0000"}
    assert [name for name, gateway in fleet.gateways.items() if gateway.flashed] in ([], ["s0000"])


def test_after_a_trip_nothing_is_dispatched(tmp_path: Path) -> None:
    sites, ledger = some(30), fresh(tmp_path)
    fleet = fleet_of(sites, {"s0007": Behaviour.DIES})
    planned(ledger, sites)
    rollout = run(ledger, fleet)
    assert rollout.state is RolloutState.HALTED
    (halted,) = [entry.at for entry in ledger.entries() if entry.step.new == "halted"]
    assert [command for at, command in fleet.dispatched if at >= halted] == []
    # What was under way when it tripped is finished and watched, not left alone.
    assert not any(
        SiteState(record.state) in AT_RISK - {SiteState.SILENT} for record in rollout.sites.values()
    )


def test_too_few_samples_hold_and_never_pass(tmp_path: Path) -> None:
    sites, ledger = some(4), fresh(tmp_path)
    fleet = fleet_of(sites, {"s0000": Behaviour.QUIET})
    planned(ledger, sites)
    rollout = run(ledger, fleet)
    assert rollout.state is RolloutState.HOLDING
    assert {command.site for _, command in fleet.dispatched} == {"s0000"}
    ledger.write(operations.approve(rollout, "ann"), at=fleet.now, who="ann")
    rollout = run(ledger, fleet)
    assert rollout.state is RolloutState.DONE
    assert "approved by ann" in " ".join(entry.step.why for entry in ledger.entries())


def test_more_readings_decide_what_was_held(tmp_path: Path) -> None:
    sites, ledger = some(4), fresh(tmp_path)
    fleet = fleet_of(sites, {"s0000": Behaviour.QUIET})
    planned(ledger, sites)
    assert run(ledger, fleet).state is RolloutState.HOLDING
    fleet.gateways["s0000"].behaviour = Behaviour.GOOD
    assert run(ledger, fleet).state is RolloutState.DONE


def test_failed_and_silent_sites_stay_in_the_budget(tmp_path: Path) -> None:
    sites, ledger = some(40), fresh(tmp_path)
    fleet = fleet_of(sites, {"s0003": Behaviour.DIES, "s0005": Behaviour.FAILS})
    planned(ledger, sites, Settings(**{**SETTINGS.__dict__, "max_failed": 2, "max_offline": 3}))
    highest = 0

    def watch(rollout: operations.Rollout) -> None:
        nonlocal highest
        highest = max(highest, sum(SiteState(one.state) in AT_RISK for one in rollout.sites.values()))

    rollout = run(ledger, fleet, watch)
    assert rollout.state is RolloutState.DONE
    assert highest == 3


def test_a_pair_is_never_at_risk_together(tmp_path: Path) -> None:
    sites = [site("a", "canary"), site("b", pair="c"), site("c", pair="b"), site("d")]
    ledger = fresh(tmp_path)
    fleet = fleet_of(sites)
    planned(ledger, sites)

    def watch(rollout: operations.Rollout) -> None:
        assert sum(SiteState(rollout.sites[name].state) in AT_RISK for name in ("b", "c")) < 2

    assert run(ledger, fleet, watch).state is RolloutState.DONE


def test_a_site_outside_its_window_is_parked_with_what_was_transferred(tmp_path: Path) -> None:
    sites, ledger = some(3), fresh(tmp_path)
    fleet = fleet_of(sites)
    fleet.closed = {"s0001"}
    planned(ledger, sites)
    rollout = run(ledger, fleet)
    assert rollout.state is RolloutState.RUNNING
    assert rollout.sites["s0001"].state == SiteState.PARKED.value
    assert not fleet.gateways["s0001"].flashed
    fleet.closed = set()
    assert run(ledger, fleet).state is RolloutState.DONE


def test_a_pause_finishes_what_runs_and_begins_nothing(tmp_path: Path) -> None:
    sites, ledger = some(12), fresh(tmp_path)
    fleet = fleet_of(sites)
    planned(ledger, sites)
    driver = Driver(ledger, NAME, fleet, "test")
    for number in range(20):
        fleet.now = START + number * TURN
        driver.turn(fleet.now)
    ledger.write(operations.pause(operations.load(ledger, NAME)), at=fleet.now, who="ann")
    paused = fleet.now
    rollout = run(ledger, fleet)
    assert rollout.state is RolloutState.PAUSED
    flashes = {
        entry.step.site for entry in ledger.entries() if entry.step.new == "installing" and entry.at > paused
    }
    assert flashes == set()
    assert not any(SiteState(record.state) in AT_RISK for record in rollout.sites.values())
    ledger.write(operations.resume(rollout), at=fleet.now, who="ann")
    assert run(ledger, fleet).state is RolloutState.DONE


def driven_until(driver: Driver, fleet: SimulatedFleet, state: SiteState) -> Rollout:
    """Until the canary is in this state."""
    for number in range(100):
        fleet.now = START + number * TURN
        rollout = driver.turn(fleet.now)
        if rollout.sites["s0000"].state == state.value:
            return rollout
    raise AssertionError(f"the canary never comes to {state.value}")


def test_whom_a_driver_finds_under_way_has_time_to_answer_and_no_more(tmp_path: Path) -> None:
    sites, ledger = some(3), fresh(tmp_path)
    fleet = fleet_of(sites, {"s0000": Behaviour.DIES})
    planned(ledger, sites)
    driven_until(Driver(ledger, NAME, fleet, "test"), fleet, SiteState.REBOOTING)
    # Long after its deadline, and nobody has asked it meanwhile.
    again, back = Driver(ledger, NAME, fleet, "test"), fleet.now + 1_000_000
    until = back + int(SETTINGS.reboot_deadline * 1000)
    for at, state in ((back, "rebooting"), (until - 1, "rebooting"), (until, "silent")):
        fleet.now = at
        assert again.turn(at).sites["s0000"].state == state


def test_a_version_that_is_not_told_for_a_moment_says_nothing(tmp_path: Path) -> None:
    sites, ledger = some(3), fresh(tmp_path)
    fleet = fleet_of(sites)
    planned(ledger, sites)
    rollout = driven_until(Driver(ledger, NAME, fleet, "test"), fleet, SiteState.SOAKING)
    assert decide(rollout, fleet.now, {"s0000": Seen(Kind.RUNNING, data={"version": None})}) == []
    went_back, *_ = decide(rollout, fleet.now, {"s0000": Seen(Kind.RUNNING, data={"version": "1.0"})})
    assert (went_back.site, went_back.new) == ("s0000", "failed")


def test_what_was_read_is_what_runs(tmp_path: Path) -> None:
    ledger, sites = fresh(tmp_path), some(3)
    made = make_plan(sites, RELEASE, SETTINGS, RINGS, NOW)
    ledger.write(operations.plan_steps(NAME, made), at=START, who="test")
    with pytest.raises(operations.OperationError, match="read the plan again"):
        operations.start(operations.load(ledger, NAME), "0" * 64)


def test_a_site_that_failed_is_tried_again(tmp_path: Path) -> None:
    sites, ledger = some(5), fresh(tmp_path)
    fleet = fleet_of(sites, {"s0000": Behaviour.FAILS})
    planned(ledger, sites)
    rollout = run(ledger, fleet)
    assert rollout.state is RolloutState.HALTED
    fleet.gateways["s0000"].behaviour = Behaviour.GOOD
    ledger.write(operations.retry(rollout, "s0000"), at=fleet.now, who="ann")
    rollout = run(ledger, fleet)
    assert rollout.state is RolloutState.DONE
    assert fleet.gateways["s0000"].flashed == [(1, "forward"), (2, "forward")]


def test_a_rollback_leaves_out_a_failed_site_of_which_nobody_knows_what_it_ran(tmp_path: Path) -> None:
    sites, ledger = [site("a", "canary"), Site("b", "rest", "moxa-uc-8220"), site("c")], fresh(tmp_path)
    fleet = fleet_of(sites, {"b": Behaviour.FAILS})
    planned(ledger, sites)
    rollout = run(ledger, fleet)
    assert rollout.state is RolloutState.HALTED
    ledger.write(operations.rollback(rollout), at=fleet.now, who="ann")
    rollout = run(ledger, fleet)
    assert rollout.state is RolloutState.ROLLED_BACK
    assert states(rollout) == {"a": "ok", "b": "skipped", "c": "ok"}
    assert fleet.gateways["a"].version == "1.0"


def test_a_rollback_takes_back_what_was_touched_and_nothing_else(tmp_path: Path) -> None:
    sites, ledger = some(20), fresh(tmp_path)
    fleet = fleet_of(sites, {"s0009": Behaviour.BREAKS_POLLING})
    planned(ledger, sites)
    rollout = run(ledger, fleet)
    assert rollout.state is RolloutState.HALTED
    touched = {name for name, gateway in fleet.gateways.items() if gateway.flashed}
    assert 1 < len(touched) < len(sites)
    ledger.write(operations.rollback(rollout), at=fleet.now, who="ann")
    rollout = run(ledger, fleet)
    assert rollout.state is RolloutState.ROLLED_BACK
    assert {gateway.version for gateway in fleet.gateways.values()} == {"1.0"}
    assert {name for name, gateway in fleet.gateways.items() if len(gateway.flashed) == 2} == touched
    assert ledger.verify() == []
