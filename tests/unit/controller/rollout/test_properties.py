# SPDX-License-Identifier: Apache-2.0
"""Random fleets, limits and fault plans: what may never happen does not, whatever a gateway does.

`WATTFLEET_EXAMPLES` says how many; `make rollout-properties` runs 10,000.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wattfleet.rollout import operations
from wattfleet.rollout.engine import Action
from wattfleet.rollout.ledger import Ledger
from wattfleet.rollout.model import Settings, Site
from wattfleet.rollout.planning import PlanError
from wattfleet.rollout.states import ACTIVE, AT_RISK, OVER, RolloutState, SiteState

from .simulated import Behaviour
from .support import RINGS, fleet_of, planned, run, site

EXAMPLES = int(os.environ.get("WATTFLEET_EXAMPLES", "60"))


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[Site], dict[str, Behaviour], Settings]:
    """A few sites with rings, critical ones and pairs; what each gateway does with the release; the limits."""
    count = draw(st.integers(1, 12))
    names = [f"s{index:02d}" for index in range(count)]
    sites = []
    for index, name in enumerate(names):
        # Neighbours stand in for each other, or nobody does.
        pair = names[index ^ 1] if (index ^ 1) < count and draw(st.booleans()) and index % 2 == 0 else None
        if index % 2 == 1 and sites[-1].pair == name:
            pair = names[index - 1]
        critical = index > 0 and draw(st.booleans())
        ring = draw(st.sampled_from(RINGS[1:] if critical else RINGS))
        sites.append(site(name, ring, critical=critical, pair=pair))
    bad = draw(st.dictionaries(st.sampled_from(names), st.sampled_from(list(Behaviour)), max_size=4))
    limits = Settings(
        max_offline=draw(st.integers(1, 5)),
        max_failed=draw(st.integers(0, 2)),
        growth=draw(st.sampled_from([1.0, 2.0, 4.0])),
        soak=draw(st.sampled_from([0, 60, 600])),
        install_deadline=300,
        reboot_deadline=300,
        transfer_deadline=300,
    )
    return sites, bad, limits


@pytest.mark.timeout(3600)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fleets())
def test_what_may_never_happen(case: tuple[list[Site], dict[str, Behaviour], Settings]) -> None:
    sites, bad, limits = case
    known = {one.name: one for one in sites}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        ledger = Ledger(Path(folder, "ledger.db"))
        fleet = fleet_of(sites, bad)
        try:
            planned(ledger, sites, limits)
        except PlanError:
            assert all(one.critical for one in sites)
            return
        halted_at: int | None = None
        told: set[str] = set()
        begun: set[tuple[str, int]] = set()

        def watch(rollout: operations.Rollout) -> None:
            nonlocal halted_at
            states = {name: SiteState(record.state) for name, record in rollout.sites.items()}
            away = {name for name, state in states.items() if state in AT_RISK}
            installing = {
                (name, int(rollout.sites[name].data["attempt"]))
                for name, state in states.items()
                if state is SiteState.INSTALLING
            }
            # Whoever is told to install has a place in the budget beside all that failed or fell silent, in whatever
            # state that was. A link that breaks in a transfer is nobody's doing, and may find the budget spent.
            assert not installing - begun or len(away) <= limits.max_offline, (
                "told although the budget is spent"
            )
            begun.update(installing)
            told.update(name for name, _ in installing)
            at_risk = away & told
            assert len(at_risk) <= limits.max_offline, "more at risk than allowed"
            for name in at_risk:
                assert known[name].pair not in at_risk, "both of a pair at risk"
                if known[name].critical:
                    waiting = [
                        one
                        for one in sites
                        if not one.critical and states[one.name] in ACTIVE | {SiteState.PENDING}
                    ]
                    assert not waiting, "a critical site before the others"
            if rollout.state is RolloutState.HALTED and halted_at is None:
                halted_at = fleet.now

        rollout = run(ledger, fleet, watch, patience=75)
        assert all(len(gateway.flashed) <= 1 for gateway in fleet.gateways.values()), "flashed twice"
        if halted_at is not None:
            late = [command for at, command in fleet.dispatched if at >= halted_at]
            assert not [command for command in late if command.action in (Action.TRANSFER, Action.INSTALL)]
        if rollout.state in OVER:
            assert not any(SiteState(record.state) in ACTIVE for record in rollout.sites.values())
        else:
            # A person is waited for, and it is told for what.
            assert rollout.state is RolloutState.HOLDING
        assert ledger.verify() == []
        ledger.close()
