# SPDX-License-Identifier: Apache-2.0
"""From a site file to its readings in the hub's database, in the order in which an operator would do it.

The tests of this file build on each other: the fleet is provisioned once.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from energy_collector.config import SOURCES
from wattfleet.paths import BUILD
from wattfleet.playbook import PlaybookResult
from wattfleet_lab.addresses import Plan
from wattfleet_lab.leftovers import leftovers
from wattfleet_lab.meters import truth

from tests.fault import kill_services, power_cut
from tests.fleet import energies
from tests.fleet.counting import QUANTUM, STAMP_TOLERANCE, count_site
from tests.fleet.fleet import Fleet

pytestmark = pytest.mark.timeout(1800)

KILL_ROUNDS = 3
# Modules that a run without a change may execute on a gateway: behind a satellite each costs seconds.
EXECUTIONS_MAX = 12
# The hub is no satellite's round trip away, and has roles that ask databases, brokers and the authority for what no
# reading of the host tells: 18 or 19 were counted. More than two dozen would be a role that looks task by task again.
EXECUTIONS_MAX_HUB = 24
FIGURES = BUILD / "fleet" / "executions.json"
SETTLE = 60.0  # s, after which the hub has everything that was read before


def explain(result: PlaybookResult) -> str:
    return (
        "\n".join(f"{one.host}: {one.task}: {one.message}" for one in result.failures)
        + f"\nlog: {result.log}"
    )


def test_check_mode_works_on_fresh_hosts(fleet: Fleet) -> None:
    result = fleet.play("site", "--check", "--diff")
    assert result.ok, explain(result)
    assert result.changed > 0, "fresh hosts, and check mode announces no change"


def test_a_playbook_stopped_in_the_middle_is_run_again_and_finishes(fleet: Fleet) -> None:
    running = fleet.start_play("site")
    time.sleep(random.uniform(8, 25))
    assert running.poll() is None, "the playbook ended before it could be stopped"
    fleet.kill_play(running)
    result = fleet.play("site")
    assert result.ok, explain(result)


def test_a_second_run_changes_nothing(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    hosts = ["hub", *fleet.sites]
    before = {host: fleet.executions(host) for host in hosts}
    result = fleet.play("site")
    assert result.ok, explain(result)
    cost = {host: fleet.executions(host) - before[host] for host in hosts}
    most = {host: EXECUTIONS_MAX_HUB if host == "hub" else EXECUTIONS_MAX for host in hosts}
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    FIGURES.write_text(json.dumps({"executions": cost, "at most": most}, indent=2) + "\n", encoding="utf-8")
    with capsys.disabled():  # of a test that passes nobody would see it
        print(f"executions of modules in a run that changes nothing: {cost}")
    assert set(result.stats) >= {"hub", *fleet.sites}
    changed = {host: stats["changed"] for host, stats in result.stats.items() if stats["changed"]}
    assert not changed, f"tasks changed on a second run: {changed}, see {result.log}"
    dear = {host: cost[host] for host in hosts if not 0 < cost[host] <= most[host]}
    assert not dear, f"a run that changes nothing costs {dear} executions of modules, at most are {most}"


def test_check_mode_announces_nothing_on_provisioned_hosts(fleet: Fleet) -> None:
    result = fleet.play("site", "--check", "--diff")
    assert result.ok, explain(result)
    assert result.changed == 0, f"see {result.log}"


def verdicts(fleet: Fleet, report: Path) -> tuple[PlaybookResult, dict[str, dict[str, Any]]]:
    result = fleet.play("verify", verify_report=str(report))
    return result, {verdict["site"]: verdict for verdict in json.loads(report.read_text())["sites"]}


def test_every_site_is_well(fleet: Fleet, tmp_path: Path) -> None:
    time.sleep(20)
    result, found = verdicts(fleet, tmp_path / "verify.json")
    assert result.ok, found
    assert result.changed == 0
    assert set(found) == set(fleet.sites)
    for site, verdict in found.items():
        assert verdict["meters_answering"] == len(fleet.sites[site]["meters"])
        assert verdict["committed"] > 0


def test_verify_names_site_meter_and_cause(fleet: Fleet, tmp_path: Path) -> None:
    site, content = next(iter(fleet.sites.items()))
    meter = content["meters"][0]["name"]
    fleet.meters("fault", site=site, meter=meter, kind="silent", **{"for": 300})
    try:
        result, found = verdicts(fleet, tmp_path / "verify.json")
    finally:
        fleet.meters("clear", site=site)
    assert not result.ok, "a meter is silent, and verify passes"
    assert [name for name, verdict in found.items() if not verdict["ok"]] == [site]
    finding = next(one for one in found[site]["findings"] if one["check"] == "meter")
    assert meter in finding["subject"]
    assert finding["cause"]
    assert meter in result.log.read_text(), "the meter is not named where a person reads"


def test_kill_9_of_every_service_loses_nothing_and_doubles_nothing(fleet: Fleet) -> None:
    time.sleep(20)
    started = time.time()
    report = kill_services.run(fleet, rounds=KILL_ROUNDS)
    print(report)
    assert report.passed, report.findings[:10]
    # Of each site more than one poll a round, and all points of each.
    assert report.readings > report.polls > KILL_ROUNDS * len(fleet.sites)

    # The count must be able to fail: without one of the readings it goes red.
    site = next(iter(fleet.sites))
    start, end = started, time.time() - kill_services.SETTLE
    readings, answers = fleet.readings(site, start, end), fleet.answers(site)
    whole = count_site(answers, readings, fleet.intervals(site), start, end)
    readings.remove(next(one for one in reversed(readings) if one.value is not None and one.time < end - 15))
    assert len(count_site(answers, readings, fleet.intervals(site), start, end).lost) == len(whole.lost) + 1


def test_every_value_is_what_the_meter_sent(fleet: Fleet) -> None:
    """Register maps, word orders, scales and signs: the database against the simulators' own figures."""
    description = json.loads(fleet.state.meters.read_text())
    end = time.time() - SETTLE
    compared = 0
    for site in fleet.sites:
        answers: dict[str, list[float]] = {}
        for answer in fleet.answers(site):
            answers.setdefault(answer.meter, []).append(answer.time)
        for reading in fleet.readings(site, end - 60, end):
            # The gateway's own readings come from no meter.
            if reading.value is None or reading.meter in SOURCES:
                continue
            # The meter computed its registers within a second after the request was stamped.
            sent = [at for at in answers[reading.meter] if -QUANTUM <= at - reading.time <= STAMP_TOLERANCE]
            assert sent, f"{site} {reading.point}: no answer at {reading.time}"
            true = [
                truth.reading(description, site, reading.meter, reading.point.partition("/")[2], at)
                for at in sent
            ]
            error = min(abs(value - reading.value) for value in true)
            assert error <= max(1e-3 * abs(reading.value), 0.051), (
                f"{site} {reading.point} at {reading.time}: {reading.value} stored, the meter sent {true}"
            )
            compared += 1
    print(f"{compared} values compared")
    assert compared > 100


def test_the_fleets_totals_are_what_the_simulators_produced(fleet: Fleet) -> None:
    energies.held_against_the_simulators(fleet)


def test_a_power_cut_needs_nobody(fleet: Fleet) -> None:
    report = power_cut.run(fleet, rounds=1)
    print(report)
    assert report.passed, report.findings[:10]


def test_the_lab_leaves_nothing_behind(fleet: Fleet) -> None:
    index = fleet.state.index
    assert index is not None
    fleet.down()
    assert leftovers(fleet.name, Plan(index)) == []
