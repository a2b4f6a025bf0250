# SPDX-License-Identifier: Apache-2.0
"""The fleet's energy over a span, held against what was put in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from energy_hub import cli, description, rollup
from energy_hub.store import Store

from .conftest import Database
from .test_store import commit, known
from .writer import Reading

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
Total = Callable[[int, int], dict[str, Any]]


def at(minute: float) -> int:
    return int((BEGIN + timedelta(minutes=minute)).timestamp() * 1000)


def each(minutes: Sequence[int], value: Callable[[int], float | None]) -> list[Reading]:
    return [(at(n), value(n), 0 if value(n) is not None else 129) for n in minutes]


@pytest.fixture
def total(database: Database, capsys: pytest.CaptureFixture[str]) -> Total:
    """Of so many minutes after BEGIN, by the command."""

    def ask(since: int, until: int) -> dict[str, Any]:
        command = ["totals", "--database", database.conninfo("energy_read"), "--json"]
        for name, minute in (("--since", since), ("--until", until)):
            command += [name, (BEGIN + timedelta(minutes=minute)).isoformat()]
        assert cli.main(command) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)["roles"]
        return found

    return ask


def of(minute: float) -> str:
    """A meter's own date."""
    return f"{BEGIN + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"


def fill(
    database: Database,
    points: dict[str, list[Reading]],
    *files: tuple[int, list[dict[str, Any]]],
) -> None:
    """`files`: from which minute on the site's file has which meters."""
    store = Store(database.conninfo("energy_ingest"))
    commit(store, "plant-a", known(store, "plant-a").batch(points))
    store.close()
    with database.connect("energy_ingest") as connection:
        for minute, meters in files:
            site = {"interval": 60, "meters": meters}
            description.keep(connection, {"plant-a": site}, BEGIN + timedelta(minutes=minute))
    with database.connect("energy_rollup") as connection:
        while rollup.step(connection):
            pass


def test_statistics_count_as_samples_do(database: Database, total: Total) -> None:
    """The mean of an interval is what such a meter sends of its power; what it had sent before is not used."""
    fill(
        database,
        {
            "press/active_power_mean": each(range(60), lambda _: 6_000.0),
            "press/active_power": each(range(60), lambda _: 99.0),
            "lamp/active_power_mean": each(range(60), lambda _: 99.0),
            "lamp/active_power": each(range(60), lambda _: 1_000.0),
        },
        (-60, [
            {"name": "press", "report": 60},
            {"name": "lamp", "report": 60, "raw": ["active_power"]},
            {"name": "silent", "report": 60},
            {"name": "boiler", "role": "process"},
        ]),
    )  # fmt: skip
    assert total(0, 60) == {
        "consumption": {"energy_kwh": pytest.approx(7.0), "quarters": 8, "sites": 1, "unknown": 1}
    }


def test_a_quarter_with_one_reading_is_no_quarter(database: Database, total: Total) -> None:
    """It tells what was needed for one interval; a reading too many makes no quarter longer than it is."""
    fill(
        database,
        {
            "press/active_power": each([0, *range(15, 30)], lambda _: 6_000.0),
            "lamp/active_power": [(at(n / 2), 1_000.0, 0) for n in range(30)],
        },
        (-60, [{"name": "press"}, {"name": "lamp", "role": "storage"}]),
    )
    found = total(0, 60)
    assert found["consumption"]["energy_kwh"] == pytest.approx(6.0 * 16 / 60)
    assert found["storage"]["energy_kwh"] == pytest.approx(0.25)


def test_counters_know_what_was_in_a_gap(database: Database, total: Total) -> None:
    """And the sums of two spans are the sum of both."""
    there = [0, 1, *range(31, 61)]
    fill(
        database,
        {
            "grid/active_power": each(there, lambda _: 1.0),
            "grid/energy_import": each(there, lambda n: 5_000.0 + 100.0 * n),
            "grid/energy_export": each(there, lambda n: 10.0 * n),
        },
        (-60, [{"name": "grid", "role": "main"}]),
    )
    assert total(0, 60)["main"]["energy_kwh"] == pytest.approx(59 * 0.09)
    parts = [total(since, since + 15)["main"]["energy_kwh"] for since in (30, 45)]
    assert sum(parts) == pytest.approx(total(30, 60)["main"]["energy_kwh"])
    assert parts[1] == pytest.approx(15 * 0.09)


def test_a_counter_that_was_reset_gives_way_to_the_power(database: Database, total: Total) -> None:
    fill(
        database,
        {
            "grid/active_power": each(range(60), lambda _: 6_000.0),
            "grid/energy_import": each(
                range(60), lambda n: 100.0 * (n if n < 20 else n - 20) + 50.0 * (n < 20)
            ),
        },
        (-60, [{"name": "grid", "role": "main"}]),
    )
    assert total(0, 60)["main"]["energy_kwh"] == pytest.approx(6.0)


def test_a_site_whose_file_has_changed_counts_by_what_it_said_then(database: Database, total: Total) -> None:
    """A role that was put right, and statistics instead of samples."""
    fill(
        database,
        {
            "press/active_power": each(range(30), lambda _: 6_000.0),
            "press/active_power_mean": each(range(30, 60), lambda _: 6_000.0),
        },
        (10, [{"name": "press", "role": "storage"}]),
        (30, [{"name": "press", "report": 60}]),
    )
    found = total(0, 60)
    assert {role: one["energy_kwh"] for role, one in found.items()} == {
        "storage": pytest.approx(3.0),
        "consumption": pytest.approx(3.0),
    }
    assert list(total(30, 60)) == ["consumption"]


# ---- Meters with a date of their own


def six_kilowatts(changed: int, of_new: Callable[[int], float]) -> dict[str, list[Reading]]:
    """Each minute of two hours; from one of them on the counter is another one."""
    return {
        "grid/active_power": each(range(120), lambda _: 6_000.0),
        "grid/energy_import": each(range(120), lambda n: 50_000.0 + 100.0 * n if n < changed else of_new(n)),
    }


def test_a_new_meter_that_shows_more_has_not_used_it(database: Database, total: Total) -> None:
    """It was exchanged within a quarter of an hour, and the file came fifty minutes later."""
    fill(
        database,
        six_kilowatts(40, lambda n: 900_000.0 + 100.0 * n),
        (-60, [{"name": "grid", "role": "main"}]),
        (90, [{"name": "grid", "role": "main", "since": of(40)}]),
    )
    # 29 minutes of the old one, a quarter of both by its power, 74 minutes of the new one.
    assert total(0, 120)["main"] == {
        "energy_kwh": pytest.approx(2.9 + 1.5 + 7.4), "quarters": 8, "sites": 1, "unknown": 0,
    }  # fmt: skip
    # What was asked of a time before the file came is answered by it as well.
    parts = [total(since, until)["main"]["energy_kwh"] for since, until in ((0, 30), (30, 45), (45, 120))]
    assert parts == [pytest.approx(2.9), pytest.approx(1.5), pytest.approx(7.4)]
    assert total(35, 60)["main"]["energy_kwh"] == pytest.approx(1.4)
    assert database.rows("SELECT since, content -> 'meters' FROM site_description ORDER BY since") == [
        (BEGIN - timedelta(hours=1), [{"name": "grid", "role": "main"}]),
        (BEGIN + timedelta(minutes=90), [{"name": "grid", "role": "main", "since": of(40)}]),
    ]


def test_an_exchange_at_the_beginning_of_a_quarter_tears_none(database: Database, total: Total) -> None:
    points = six_kilowatts(45, lambda n: 900_000.0 + 100.0 * n)
    del points["grid/active_power"]
    fill(
        database,
        points,
        (-60, [{"name": "grid", "role": "main"}]),
        (90, [{"name": "grid", "role": "main", "since": of(45)}]),
    )
    assert total(0, 120)["main"]["energy_kwh"] == pytest.approx(4.4 + 7.4)


def test_a_date_to_come_begins_then_and_later_files_do_not_move_it(database: Database, total: Total) -> None:
    fill(
        database,
        six_kilowatts(45, lambda n: 900_000.0 + 100.0 * n),
        (-60, [{"name": "grid", "role": "storage"}]),
        (10, [{"name": "grid", "role": "main", "since": of(45)}]),
        (60, [{"name": "grid", "since": of(45)}]),
    )
    found = total(0, 120)
    assert {role: one["energy_kwh"] for role, one in found.items()} == {
        "storage": pytest.approx(4.4),
        "main": pytest.approx(1.4),
        "consumption": pytest.approx(6.0),
    }


def test_until_a_date_to_come_the_file_before_holds(database: Database, total: Total) -> None:
    fill(
        database,
        six_kilowatts(120, float),
        (-60, [{"name": "grid", "role": "main"}]),
        (10, [{"name": "grid", "role": "storage", "since": "9999-12-31T23:59:00Z"}]),
    )
    found = total(0, 120)
    assert list(found) == ["main"]
    assert found["main"]["energy_kwh"] == pytest.approx(11.9)


def test_what_a_corrected_date_had_said_holds_no_more(database: Database, total: Total) -> None:
    fill(
        database,
        six_kilowatts(45, lambda n: 900_000.0 + 100.0 * n),
        (-60, [{"name": "grid", "role": "storage"}]),
        (70, [{"name": "grid", "role": "generation", "since": of(60)}]),
        (80, [{"name": "grid", "role": "main", "since": of(45)}]),
    )
    found = total(0, 120)
    assert sorted(found) == ["main", "storage"]
    assert found["storage"]["energy_kwh"] == pytest.approx(4.4)


def test_a_changed_ratio_is_no_energy(database: Database, total: Total) -> None:
    """The transformers were changed in minute 5; the hub got the file in minute 32, and the gateway in minute 50."""
    fill(
        database,
        six_kilowatts(50, lambda n: 1.25 * (50_000.0 + 100.0 * 50) + 100.0 * (n - 50)),
        (-60, [{"name": "grid", "role": "main", "ct_ratio": "200:5"}]),
        (32, [{"name": "grid", "role": "main", "ct_ratio": "250:5", "since": of(5)}]),
    )
    # By the power until minute 15 and for an hour and its quarters from minute 30 on.
    assert total(0, 120)["main"]["energy_kwh"] == pytest.approx(1.5 + 1.4 + 7.5 + 1.4)
    assert total(0, 60)["main"]["energy_kwh"] == pytest.approx(1.5 + 1.4 + 3.0)


def test_a_gateway_tells_as_its_file_said_then(database: Database, total: Total) -> None:
    """The date of the meter is not that from which on its gateway sent statistics."""
    fill(
        database,
        {
            "press/active_power": each(range(60), lambda _: 6_000.0),
            "press/active_power_mean": each(range(60, 120), lambda _: 6_000.0),
        },
        (-60, [{"name": "press"}]),
        (60, [{"name": "press", "report": 60, "since": of(15)}]),
    )
    assert total(0, 120)["consumption"]["energy_kwh"] == pytest.approx(12.0)


def test_before_a_meter_was_there_it_has_measured_nothing(database: Database, total: Total) -> None:
    """Whether it came with the site or later; it was tried on a bench."""
    fill(
        database,
        {
            "grid/active_power": each(range(120), lambda _: 6_000.0),
            "press/active_power": each(range(120), lambda _: 2_000.0),
        },
        (50, [{"name": "grid", "role": "main", "since": of(30)}]),
        (90, [{"name": "grid", "role": "main", "since": of(30)}, {"name": "press", "since": of(60)}]),
    )
    found = total(0, 120)
    assert found["main"]["energy_kwh"] == pytest.approx(9.0)
    assert found["consumption"]["energy_kwh"] == pytest.approx(2.0)


def test_a_counter_that_is_silent_has_not_counted_nothing(database: Database, total: Total) -> None:
    """One that stands still has, and so has one that is not read any more."""
    power = each(range(120), lambda _: 1_000.0)
    imported = each(range(120), lambda n: 100.0 * n)
    fill(
        database,
        {
            "cells/active_power": power,
            "cells/energy_import": imported,
            "cells/energy_export": each(range(30), lambda n: 80.0 * n),
            "grid/active_power": power,
            "grid/energy_import": imported,
            "grid/energy_export": each(range(120), lambda _: 0.0),
            "press/active_power": power,
            "press/energy_import": imported,
            "press/energy_export": each(range(30), lambda n: 80.0 * n),
            "blind/energy_import": imported,
            "blind/energy_export": each(range(30), lambda n: 80.0 * n),
        },
        (-60, [
            {"name": "cells", "role": "storage"},
            {"name": "grid", "role": "main"},
            {"name": "press", "points": ["active_power", "energy_import"]},
            {"name": "blind", "role": "generation"},
        ]),
    )  # fmt: skip
    found = total(60, 120)
    assert {role: one["energy_kwh"] for role, one in found.items()} == {
        "storage": pytest.approx(1.0),
        "main": pytest.approx(6.0),
        "consumption": pytest.approx(6.0),
        "generation": 0,
    }
    assert found["generation"]["unknown"] == 1
