# SPDX-License-Identifier: Apache-2.0
"""The lockout campaign without a lab: what is planned, and what is judged to be what."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import pytest

from tests.fault.lockout import bad, deaths, good, judge, look, plan
from tests.fault.lockout.changes import Change
from tests.fault.lockout.judge import Outcome
from tests.fault.lockout.report import LockoutReport
from tests.fault.lockout.site import SYSCTL_PATH, Site

SITES = [Site("site-1", "198.18.16.11", "198.18.0.1", "198.18.0.2", routed) for routed in (False, True)]
BEFORE = {
    "file /etc/hosts": "-rw-r--r-- 0:0 1",
    "link eth0": '{"mtu": 1500}',
    "sysctl net.ipv4.tcp_retries1": "3",
}


def test_a_seed_makes_the_same_campaign_again() -> None:
    first, second = plan.rounds(7, 60), plan.rounds(7, 60)
    assert first == second
    assert first != plan.rounds(8, 60)
    for site in SITES:
        assert [one.change(site).options for one in first] == [one.change(site).options for one in second]
    assert [one.deaths(20) for one in first] == [one.deaths(20) for one in second]


def test_a_campaign_has_all_kinds_all_deaths_and_a_fifth_of_good_changes() -> None:
    planned = plan.rounds(1, 300)
    assert {one.kind for one in planned} == {*bad.KINDS, *good.KINDS}
    assert {one.death for one in planned} == set(deaths.NAMES)
    assert sum(one.kind in good.KINDS for one in planned) == 60
    pairs = Counter((one.kind, one.death) for one in planned if one.kind in bad.KINDS)
    assert len(pairs) > 100
    assert {one.kind for one in plan.one_of_each(1)} == {*bad.KINDS, *good.KINDS}


@pytest.mark.parametrize("site", SITES, ids=["flat", "routed"])
@pytest.mark.parametrize("kind", plan.MAKERS)
def test_every_change_is_one(kind: str, site: Site) -> None:
    for number in range(30):
        change = plan.MAKERS[kind](random.Random(number), site)
        assert change.kind == kind
        assert change.good == (kind in good.KINDS)
        what = {"files", "units", "connections", "content"}
        assert any(option in what or option.startswith("hardening_") for option in change.options)
        assert str(change.task(20)).count("wait_min': 20") == 1
        assert change.good == bool(change.wanted)


def test_deaths_come_when_they_can_still_do_harm() -> None:
    for number in range(200):
        for name in deaths.NAMES:
            chosen = deaths.choose(name, random.Random(number), 20)
            assert len(chosen) == {"none": 0, "two": 2, "cut-in-restore": 2}.get(name, 1)
            assert all(0 <= death.delay <= 22 for death in chosen)
            # The guard cannot bring back what was stopped before it had looked.
            assert all(death.moment == deaths.ARMED for death in chosen if death.what == "nm-stopped")


def _good() -> Change:
    return good.sysctl(random.Random(1), SITES[0])


def test_a_host_is_as_it_was_or_as_it_was_wanted_or_neither() -> None:
    change = _good()
    kept = {**BEFORE, **change.wanted}
    assert judge.state(change, BEFORE, dict(BEFORE)) == (judge.BEFORE, [])
    assert judge.state(change, BEFORE, kept) == (judge.KEPT, [])
    half = {**BEFORE, "sysctl net.ipv4.tcp_retries1": change.options["sysctls"]["net.ipv4.tcp_retries1"]}
    state, lines = judge.state(change, BEFORE, half)
    assert state == judge.NEITHER
    assert lines == [f"sysctl net.ipv4.tcp_retries1: 3 | {half['sysctl net.ipv4.tcp_retries1']}"]
    more = {**kept, "file /etc/left": "-rw------- 0:0 2"}
    assert judge.state(change, BEFORE, more) == (judge.NEITHER, ["file /etc/left: absent | -rw------- 0:0 2"])
    bad_change = bad.hub_name(random.Random(1), SITES[0])
    assert judge.state(bad_change, BEFORE, kept)[0] == judge.NEITHER


def test_a_part_of_a_value_may_be_wanted() -> None:
    change = Change("good-mtu", "", {}, wanted={"link eth0": {"mtu": 1400}})
    assert judge.wanted(change, BEFORE, {})["link eth0"] == json.dumps({"mtu": 1400})


def outcome(state: str, recorded: list[str], reported: str, died: bool) -> Outcome:
    return Outcome(
        1,
        "1/1",
        "site-1",
        "x",
        "",
        ["cut"] if died else [],
        True,
        state,
        reported=reported,
        recorded=recorded,
    )


@pytest.mark.parametrize(
    ("state", "recorded", "reported", "died", "ok", "failure"),
    [
        (judge.KEPT, ["confirmed"], "confirmed", False, True, ""),
        (judge.KEPT, ["confirmed"], "", True, False, ""),
        (judge.BEFORE, ["undone"], "undone", True, False, ""),
        (judge.BEFORE, ["undone"], "unknown", True, False, ""),
        (judge.BEFORE, ["undone"], "undone", False, False, "wrong"),  # a good one, and nothing had died
        (judge.KEPT, ["undone"], "confirmed", True, True, "wrong"),
        (judge.KEPT, [], "confirmed", True, True, "wrong"),
        (judge.BEFORE, ["undone", "confirmed"], "undone", True, False, "wrong"),
        (judge.BEFORE, ["undone"], "confirmed", True, False, "wrong"),
        (judge.BEFORE, ["undone"], "undone", True, True, "wrong"),  # the play says that all is well
    ],
)
def test_everybody_has_to_say_the_same(
    state: str, recorded: list[str], reported: str, died: bool, ok: bool, failure: str
) -> None:
    one = outcome(state, recorded, reported, died)
    judge.verdict(one, _good(), True, ok)
    assert one.failure == failure, one.findings


def test_a_report_is_red_with_one_site_lost_or_with_nothing_kept() -> None:
    fine = [outcome(judge.KEPT, ["confirmed"], "", True), outcome(judge.BEFORE, ["undone"], "", True)]
    assert LockoutReport("x", 1, 2, 20, fine).passed
    assert not LockoutReport("x", 1, 2, 20, fine[1:]).passed
    gone = outcome(judge.NEITHER, [], "", True)
    gone.fail("inexact", "a file")
    gone.fail("lost", "no connection")
    report = LockoutReport("x", 1, 2, 20, [*fine, gone])
    assert not report.passed
    assert report.counts()["sites_lost"] == 1
    assert report.counts()["not_exact"] == 0


def test_what_is_left_out_of_a_look_is_no_more_than_it_says() -> None:
    kept = (
        "file /etc/hosts",
        f"file {SYSCTL_PATH}",
        "unit ssh.service",
        "sysctl net.ipv4.conf.all.rp_filter",
    )
    assert not any(re.fullmatch(pattern, key) for pattern in look.IGNORED for key in kept)
    counted = {"rule": {"handle": 4, "expr": [{"counter": {"packets": 3, "bytes": 9}}, {"drop": None}]}}
    assert look.plain(counted) == {"rule": {"expr": [{"counter": {}}, {"drop": None}]}}
