# SPDX-License-Identifier: Apache-2.0
"""Every check of a gate: what passes, what fails, what is inconclusive, and what only shows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from wattfleet.errors import WattfleetError
from wattfleet.rollout.gate_settings import DEFAULTS, GateSettings, gate_settings
from wattfleet.rollout.gates import Outcome, judge
from wattfleet.rollout.health import Health, Meter, Span
from wattfleet.rollout.measures import measures

BEGIN = datetime(2026, 11, 2, 6, 0, tzinfo=UTC)
TOLD: dict[str, Any] = {
    "version": "2.0",
    "services": {"energy-gateway.service": True, "energy-persistence.service": "active"},
    "clock": 0.2,
}
PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def meter(polls: int, points: int = 16, nulls: int = 0, uncertain: int = 0) -> Meter:
    answered = polls - -(-nulls // points)
    return Meter(points, polls, answered, polls * points, nulls, uncertain, 1.0)


def health(seconds: float = 900, **changes: Any) -> Health:
    """A site of two meters at 10 s on one bus, for which all is well."""
    polls = round(seconds / 10)
    usual = Health(
        Span(BEGIN, BEGIN + timedelta(seconds=seconds)),
        {"main": meter(polls), "pv": meter(polls)},
        {"hall": {"requests": 4 * polls, "crc_errors": 0, "timeouts": 0}},
        least_delay=1.0,
    )
    return replace(usual, **changes)


def buses(**counters: int) -> dict[str, dict[str, int]]:
    return {"hall": {"requests": 3000, "crc_errors": 0, "timeouts": 0, **counters}}


def told(**changes: Any) -> dict[str, Any]:
    return TOLD | changes


Case = tuple[str, Outcome, Health | None, Health | None, dict[str, Any]]
CASES: dict[str, Case] = {
    "as before": ("readings", PASS, health(), health(), TOLD),
    "a shorter soak has less, at the same rate": ("readings", PASS, health(600), health(), TOLD),
    "one poll less": ("readings", PASS, health(meters={"main": meter(89), "pv": meter(90)}), health(), TOLD),
    "a tenth less": ("readings", FAIL, health(meters={"main": meter(90), "pv": meter(72)}), health(), TOLD),
    "polled, but without values": (
        "readings", FAIL, health(meters={"main": meter(90), "pv": meter(90, nulls=1440)}), health(), TOLD,
    ),
    "nothing at all": ("readings", FAIL, health(meters={}), health(), TOLD),
    "too few were due": ("readings", INCONCLUSIVE, health(240), health(240), TOLD),
    "nothing before": ("readings", INCONCLUSIVE, health(), health(meters={}), TOLD),
    "no answer of the hub": ("readings", INCONCLUSIVE, None, health(), TOLD),
    "no baseline": ("readings", INCONCLUSIVE, health(), None, TOLD),
    "each meter as before": ("meters", PASS, health(), health(), TOLD),
    "a small meter of many is gone": (
        "meters", FAIL,
        health(meters={"main": meter(900, points=100)}),
        health(meters={"main": meter(900, points=100), "pv": meter(90, points=2)}),
        TOLD,
    ),
    "half of a meter's points": (
        "meters", FAIL, health(meters={"main": meter(90), "pv": meter(90, points=8)}), health(), TOLD,
    ),
    "a meter that slept before may sleep": (
        "meters", PASS,
        health(meters={"main": meter(90), "pv": meter(90, nulls=1440)}),
        health(meters={"main": meter(90), "pv": meter(90, nulls=1440)}),
        TOLD,
    ),
    "a new meter has nothing to be compared with": (
        "meters", PASS, health(meters={"main": meter(90), "pv": meter(90), "new": meter(3)}), health(), TOLD,
    ),
    "a slow meter, one poll of fourteen missed": (
        "meters", PASS, health(meters={"main": meter(14)}), health(meters={"main": meter(15)}), TOLD,
    ),
    "only meters that are slower still": (
        "meters", INCONCLUSIVE, health(meters={"main": meter(3)}), health(meters={"main": meter(3)}), TOLD,
    ),
    "few nulls": ("nulls", PASS, health(meters={"main": meter(180, nulls=48)}), health(), TOLD),
    "many nulls": ("nulls", FAIL, health(meters={"main": meter(180, nulls=480)}), health(), TOLD),
    "many nulls as ever": (
        "nulls", PASS,
        health(meters={"main": meter(180, nulls=500)}), health(meters={"main": meter(180, nulls=480)}), TOLD,
    ),
    "few polls": ("nulls", INCONCLUSIVE, health(200), health(), TOLD),
    "few polls before": ("nulls", INCONCLUSIVE, health(), health(200), TOLD),
    "certain": ("uncertain", PASS, health(), health(), TOLD),
    "every value uncertain": (
        "uncertain", FAIL, health(meters={"main": meter(180, uncertain=2880)}), health(), TOLD,
    ),
    "uncertain, without an answer": ("uncertain", INCONCLUSIVE, None, None, TOLD),
    "a CRC error in 3,000": ("crc_errors", PASS, health(buses=buses(crc_errors=1)), health(buses=buses()), TOLD),
    "CRC errors as ever": (
        "crc_errors", PASS, health(buses=buses(crc_errors=45)), health(buses=buses(crc_errors=40)), TOLD,
    ),
    "CRC errors above the baseline": (
        "crc_errors", FAIL, health(buses=buses(crc_errors=120)), health(buses=buses(crc_errors=40)), TOLD,
    ),
    "CRC errors from nowhere": (
        "crc_errors", FAIL, health(buses=buses(crc_errors=30)), health(buses=buses()), TOLD,
    ),
    "few requests": (
        "crc_errors", INCONCLUSIVE, health(buses=buses(requests=40, crc_errors=9)), health(buses=buses()), TOLD,
    ),
    "buses that nobody counted": ("crc_errors", INCONCLUSIVE, health(buses={}), health(buses=buses()), TOLD),
    "buses that nobody counted before": ("crc_errors", INCONCLUSIVE, health(), health(buses={}), TOLD),
    "time-outs as ever": (
        "timeouts", PASS, health(buses=buses(timeouts=33)), health(buses=buses(timeouts=30)), TOLD,
    ),
    "time-outs above the baseline": (
        "timeouts", FAIL, health(buses=buses(timeouts=300)), health(buses=buses(timeouts=30)), TOLD,
    ),
    "time-outs of few requests": (
        "timeouts", INCONCLUSIVE, health(buses=buses(requests=10)), health(buses=buses()), TOLD,
    ),
    "services run": ("services", PASS, health(), health(), TOLD),
    "a service is down": (
        "services", FAIL, health(), health(), told(services={"energy-gateway.service": False}),
    ),
    "a service failed": (
        "services", FAIL, health(), health(), told(services={"energy-gateway.service": "failed"}),
    ),
    "services untold": ("services", INCONCLUSIVE, health(), health(), {}),
    "the clock is right": ("clock", PASS, health(), health(), TOLD),
    "the clock is slow": ("clock", FAIL, health(), health(), told(clock=-60.0)),
    "the clock by its readings": ("clock", PASS, health(least_delay=1.4), health(), told(clock=None)),
    "the clock by its readings, fast": ("clock", FAIL, health(least_delay=-30.0), health(), told(clock=None)),
    "the clock unknown": ("clock", INCONCLUSIVE, None, health(), told(clock=None)),
    "its version": ("version", PASS, health(), health(), TOLD),
    "another version": ("version", FAIL, health(), health(), told(version="1.0")),
    "no version": ("version", INCONCLUSIVE, health(), health(), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_check(case: str) -> None:
    name, outcome, soak, baseline, said = CASES[case]
    found = {one.name: one for one in measures(soak, baseline, said, "2.0", GateSettings())}
    assert found[name].outcome is outcome, str(found[name])
    assert not found[name].dry_run


def test_every_check_has_each_outcome() -> None:
    """A check without a case for each outcome is not tested."""
    assert {(name, outcome) for name, outcome, *_ in CASES.values()} == {
        (name, outcome) for name in DEFAULTS for outcome in Outcome
    }


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_dry_run_shows_and_decides_nothing(name: str) -> None:
    failing = next(case for case in CASES.values() if case[0] == name and case[1] is FAIL)
    settings = gate_settings({name: {"dry_run": True}})
    found = measures(failing[2], failing[3], failing[4], "2.0", settings)
    shown = next(one for one in found if one.name == name)
    assert shown.outcome is FAIL
    assert "(dry run)" in str(shown)
    assert name not in judge([shown]).why
    assert judge([shown]).outcome is INCONCLUSIVE
    off = measures(failing[2], failing[3], failing[4], "2.0", gate_settings({name: {"enabled": False}}))
    assert name not in {one.name for one in off}


def test_all_together() -> None:
    assert judge(measures(health(), health(), TOLD, "2.0", GateSettings())).outcome is PASS
    assert judge(measures(None, None, TOLD, "2.0", GateSettings())).outcome is INCONCLUSIVE
    verdict = judge(
        measures(health(), health(), told(services={"energy-gateway": False}), "2.0", GateSettings())
    )
    assert verdict.outcome is FAIL
    assert verdict.why == "services (energy-gateway) 1, at most 0 is right, 1 samples: fail"


@pytest.mark.parametrize(
    ("name", "setting", "soak"),
    [
        ("readings", {"limit": 0.7}, health(meters={"main": meter(90), "pv": meter(45)})),
        ("meters", {"limit": 0.4}, health(meters={"main": meter(90), "pv": meter(45)})),
        ("nulls", {"limit": 0.2}, health(meters={"main": meter(90, nulls=300), "pv": meter(90)})),
        ("clock", {"limit": 90}, health()),
    ],
)
def test_limits_can_be_set(name: str, setting: dict[str, Any], soak: Health) -> None:
    def outcome(settings: GateSettings) -> Outcome:
        found = measures(soak, health(), told(clock=60.0), None, settings)
        return next(one for one in found if one.name == name).outcome

    assert outcome(GateSettings()) is FAIL
    assert outcome(gate_settings({name: setting})) is PASS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"reading": {}}, "gates.reading: unknown key, expected one of samples, settle, readings"),
        ({"readings": {"margin": 2, "max": 3}}, "expected a mapping with limit, enabled or dry_run"),
        ({"services": True}, "gates.services: found True, expected a mapping with enabled or dry_run"),
    ],
)
def test_settings_that_are_none(given: dict[str, Any], message: str) -> None:
    with pytest.raises(WattfleetError, match=message):
        gate_settings(given)
