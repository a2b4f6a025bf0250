# SPDX-License-Identifier: Apache-2.0
"""Sites whose gates would know nothing are named with the plan, and a soak that helps with them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from wattfleet.rollout import fleet, plan_file, show
from wattfleet.rollout.foresight import doubts
from wattfleet.rollout.gate_settings import gate_settings
from wattfleet.rollout.model import Release, Settings, Site
from wattfleet.rollout.plan_file import PlanFile
from wattfleet.rollout.planning import make_plan
from wattfleet.rollout.telemetry import spent

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
GATES = gate_settings({})


def site(name: str, poll_rate: float | None) -> Site:
    return Site(name, "canary", "uc-5112", poll_rate=poll_rate)


def test_who_is_polled_too_seldom_is_named_with_both_figures() -> None:
    # 60 s, of which a quarter at each end is not judged.
    found = doubts([site("slow", 0.2), site("quick", 1.7), site("unknown", None)], 60, GATES)
    assert found == {
        "slow": "about 6 polls in the 30 s of its soak that are judged, and its gate needs 50: "
        "a soak (rollout.soak) of 325 s has them"
    }


@pytest.mark.parametrize("rate", [0.001, 0.2, 0.9, 1.5, 4, 40])
@pytest.mark.parametrize("settle", [0, 5, 60, 600])
def test_the_soak_that_it_names_is_the_shortest(rate: float, settle: float) -> None:
    gates = gate_settings({"settle": settle})
    told = doubts([site("a", rate)], 1, gates)["a"]
    named = re.search(r"of (\d+) s has", told)
    assert named is not None, told
    soak = int(named[1])
    assert doubts([site("a", rate)], soak, gates) == {}
    assert "a" in doubts([site("a", rate)], soak - 1, gates)


def test_what_is_judged_is_what_the_gate_judges() -> None:
    assert spent(900, 60, 0) == (60, 15)
    assert spent(900, 60, 20) == (60, 35)
    assert spent(40, 60, 20) == (10, 10)


def test_a_site_without_a_bus_is_told_apart() -> None:
    assert doubts([site("radio", 0.0)], 900, GATES)["radio"].endswith("none of its meters is on a bus")


def test_gates_that_decide_nothing_by_polls_know_enough() -> None:
    off = {"nulls": {"enabled": False}, "uncertain": {"enabled": False}}
    assert doubts([site("a", 0.1)], 60, gate_settings(off)) != {}
    assert doubts([site("a", 0.1)], 60, gate_settings({**off, "readings": {"dry_run": True}})) == {}


@pytest.mark.parametrize(
    ("meters", "rate"),
    [
        ([{"bus": "a"}, {"bus": "a", "interval": 2}], 0.1 + 0.5),
        ([{"bus": "a", "report": 60}], 1 / 60),
        ([{"bus": "a", "report": 60, "raw": ["active_power"]}], 0.1),
        ([{"radio": "z"}], 0),
    ],
)
def test_a_meter_counts_as_often_as_its_readings_travel(meters: list[dict[str, object]], rate: float) -> None:
    file = {"interval": 10, "meters": meters}
    assert fleet._poll_rate(file) == pytest.approx(rate)


def test_it_is_in_the_plan_and_changes_nothing_of_what_was_agreed(tmp_path: Path) -> None:
    release = Release("firmware", "2.4.1", 1_000_000, "ab" * 32)
    sites = [site(f"site-{number}", 0.1) for number in range(7)]
    plan = make_plan(sites, release, Settings(soak=60), ["canary"], NOW, GATES)
    assert set(plan.doubts) == {one.name for one in sites}
    calm = make_plan(sites, release, Settings(soak=60), ["canary"], NOW, gate_settings({"samples": 1}))
    assert (calm.doubts, calm.digest) == ({}, plan.digest)

    plan_file.save(tmp_path / "plan.json", PlanFile("one", plan, {}, NOW))
    assert plan_file.load(tmp_path / "plan.json").plan == plan
    text = show.as_text(show.plan(PlanFile("one", plan, {}, NOW)))
    assert (
        "would wait for a person:\n  site-0, site-1, site-2, site-3, site-4 and 2 more: about 3 polls" in text
    )
