# SPDX-License-Identifier: Apache-2.0
"""A rollout over a simulated fleet, from its plan to its end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from wattfleet.rollout import operations
from wattfleet.rollout.driver import Driver
from wattfleet.rollout.engine import Rollout
from wattfleet.rollout.ledger import Ledger
from wattfleet.rollout.model import Release, Settings, Site
from wattfleet.rollout.planning import Plan, make_plan

from .simulated import Behaviour, Gateway, SimulatedFleet

NOW = datetime(2026, 11, 2, 6, 0, tzinfo=UTC)
START = int(NOW.timestamp() * 1000)
RINGS = ("canary", "early", "rest")
RELEASE = Release("firmware", "2.0", 8_000_000, "ab" * 32)
SETTINGS = Settings(max_offline=3, soak=60, install_deadline=300, reboot_deadline=300, transfer_deadline=3600)
NAME = "r1"
# Virtual time between two turns, and after how many turns a rollout that is not over hangs.
TURN = 10_000
PATIENCE = 3000


def site(name: str, ring: str = "rest", **more: object) -> Site:
    return Site(name, ring, "moxa-uc-8220", version="1.0", **more)  # type: ignore[arg-type]  # arguments of several types


def some(count: int) -> list[Site]:
    """A canary, then sites of two rings."""
    rings = ["canary"] + ["early" if index % 3 == 0 else "rest" for index in range(1, count)]
    return [site(f"s{index:04d}", ring) for index, ring in enumerate(rings)]


def fleet_of(sites: list[Site], behaviours: dict[str, Behaviour] | None = None) -> SimulatedFleet:
    told = behaviours or {}
    return SimulatedFleet({one.name: Gateway("1.0", told.get(one.name, Behaviour.GOOD)) for one in sites})


def planned(ledger: Ledger, sites: list[Site], settings: Settings = SETTINGS) -> Plan:
    """Plan and start."""
    plan = make_plan(sites, RELEASE, settings, RINGS, NOW)
    pairs = {one.name: one.pair for one in sites if one.pair}
    versions = {one.name: one.version or "" for one in sites}
    ledger.write(operations.plan_steps(NAME, plan, versions, pairs), at=START, who="test")
    ledger.write(operations.start(operations.load(ledger, NAME), plan.digest), at=START, who="test")
    return plan


def run(
    ledger: Ledger,
    fleet: SimulatedFleet,
    each: Callable[[Rollout], None] = lambda _: None,
    turns: int = PATIENCE,
    patience: int = 400,
) -> Rollout:
    """Turn the driver until the rollout is over or waits for a person; the rollout as it is then."""
    driver = Driver(ledger, NAME, fleet, "test")
    fleet.now = fleet.now or START
    quiet, before = 0, ""
    for _ in range(turns):
        fleet.now += TURN
        rollout = driver.turn(fleet.now)
        each(rollout)
        after = rollout.state.value + "".join(record.state for record in rollout.sites.values())
        quiet, before = quiet + 1 if after == before else 0, after
        # Longer than any deadline, by default.
        if Driver.is_over(rollout) or quiet > patience:
            return rollout
    raise AssertionError(f"the rollout is not over after {turns} turns")


def fresh(path: Path) -> Ledger:
    return Ledger(path / "ledger.db")
