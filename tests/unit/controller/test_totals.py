# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from wattfleet.demo.totals import Meter, compare
from wattfleet.hub import Newest, SiteState

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
POWER = 36_000.0  # W, so 10 W.h a second
MAIN = Meter("a", "main", "main", 10.0)
ROOF = Meter("a", "roof", "generation", 10.0)


def truth(site: str, meter: str, at: datetime) -> Mapping[str, float]:
    elapsed = (at - NOW).total_seconds() / 3600
    if meter == "main":
        return {"energy_import": 50_000 + POWER * elapsed, "energy_export": 7_000.0}
    return {"energy_import": 0.0, "energy_export": 20_000 + POWER * elapsed}


def state(meters: dict[str, dict[str, float]], at: datetime = NOW) -> SiteState:
    newest = {
        meter: {point: Newest(at, value, 0) for point, value in points.items()}
        for meter, points in meters.items()
    }
    return SiteState("online", at, 10, 1, "ok", None, newest)


RIGHT = {
    "main": {"energy_import": 50_000.0, "energy_export": 7_000.0},
    "roof": {"energy_import": 0.0, "energy_export": 20_000.0},
}


def test_both_ends_agree_and_add_up() -> None:
    found = compare([MAIN, ROOF], {"a": state(RIGHT)}, truth)
    assert found.disagreements == []
    assert found.compared == 4
    assert (found.database.grid_import, found.database.generation, found.database.net) == (
        50_000,
        20_000,
        43_000,
    )
    assert found.simulators == found.database


@pytest.mark.parametrize(
    ("value", "agrees"), [(50_100, True), (50_190, True), (50_210, False), (49_790, False)]
)
def test_a_difference_beyond_the_sampling_interval_is_told(value: float, agrees: bool) -> None:
    wrong = {**RIGHT, "main": {"energy_import": value, "energy_export": 7_000.0}}
    assert (compare([MAIN], {"a": state(wrong)}, truth).disagreements == []) is agrees


def test_a_value_is_compared_with_the_truth_of_its_own_time() -> None:
    later = NOW + timedelta(minutes=5)
    moved = {"main": {"energy_import": 50_000 + POWER / 12, "energy_export": 7_000.0}}
    assert compare([MAIN], {"a": state(moved, later)}, truth).disagreements == []
    assert compare([MAIN], {"a": state(moved)}, truth).disagreements != []


def test_a_meter_without_counters_is_told() -> None:
    (line,) = compare([MAIN], {"a": state({})}, truth).disagreements
    assert line == "a main: no energy counter in the database"


def test_a_site_that_the_hub_does_not_know_is_told() -> None:
    (line,) = compare([MAIN], {}, truth).disagreements
    assert line.startswith("a main:")
