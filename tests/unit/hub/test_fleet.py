# SPDX-License-Identifier: Apache-2.0
"""`energy-hub fleet` over a fleet whose every figure can be counted by hand.

It is 12:30 UTC. Meters were read once a minute since 12:00 of the day before. The hours that completeness is of end at
12:00.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import psycopg
import pytest
from energy_hub import cli, description, migrate, rollup
from energy_hub.commands import tools
from energy_hub.evidence.step import Shard
from energy_hub.fleet.document import document, of_all
from energy_hub.store import Store

from .conftest import Cluster, Database
from .test_store import commit, known
from .writer import Gateway, Reading

NOW = datetime(2026, 1, 10, 12, 30, tzinfo=UTC)
BEGIN = NOW - timedelta(hours=24, minutes=30)
MINUTES = 24 * 60 + 30
SCHEMA = Path(__file__).parents[3] / "docs/reference/schema/fleet-status.schema.json"
BAD = 129


def meter(name: str, role: str = "consumption", **more: object) -> dict[str, object]:
    return {"name": name, "bus": "hall", "unit": 1, "profile": "eastron-sdm630", "role": role, **more}


FILES: dict[str, dict[str, Any]] = {
    # A supply, solar, a battery; its own loads are metered in part, which changes nothing.
    "plant-a": {
        "name": "Plant <script>alert(1)</script>",
        "region": "north",
        "interval": 60,
        "timezone": "Europe/Berlin",
        "meters": [
            meter("grid", "main"),
            meter("roof", "generation"),
            meter("cells", "storage"),
            meter("office"),
            meter("boiler", "process"),
        ],
    },
    "plant-b": {
        "interval": 60,
        "meters": [meter("press"), meter("lights", report=60), meter("probe", "process")],
    },
    "plant-c": {"interval": 60, "meters": [meter("grid", "main")]},
    "plant-e": {"interval": 60, "meters": [meter("grid", "main")]},
    "plant-f": {"interval": 60, "meters": [meter("press")]},
}


def at(minute: int) -> int:
    """Milliseconds of the n-th minute since BEGIN."""
    return int((BEGIN + timedelta(minutes=minute)).timestamp() * 1000)


def minute_of(clock: str) -> int:
    """Of the day that it is."""
    hours, minutes = map(int, clock.split(":"))
    return 12 * 60 + hours * 60 + minutes


def flat(watt: float) -> list[Reading]:
    return [(at(n), watt, 0) for n in range(MINUTES)]


def counter(step: float, reset: int | None = None) -> list[Reading]:
    return [
        (at(n), step * (n - (reset if reset is not None and n >= reset else 0)), 0) for n in range(MINUTES)
    ]


def deliver(store: Store, gateway: Gateway, points: dict[str, list[Reading]]) -> None:
    """All but the last hour in one batch, then a batch a minute."""
    last = at(MINUTES - 60)
    batches = [{name: [one for one in rows if one[0] < last] for name, rows in points.items()}]
    batches += [
        {name: [one for one in rows if one[0] == at(n)] for name, rows in points.items()}
        for n in range(MINUTES - 60, MINUTES)
    ]
    kept = [{name: rows for name, rows in batch.items() if rows} for batch in batches]
    commit(store, gateway.site, *(gateway.batch(batch) for batch in kept if batch))


@pytest.fixture(scope="module")
def filled(cluster: Cluster) -> Iterator[Database]:
    """Filled once; each test has a copy."""
    one = Database(cluster, "fleet_filled")
    with psycopg.connect(cluster.conninfo("postgres", "owner"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE fleet_filled OWNER energy_migrate")
    with one.connect("energy_migrate") as connection:
        list(migrate.apply(connection))
    store = Store(one.conninfo("energy_ingest"))
    fill(one, store)
    store.close()
    yield one
    with psycopg.connect(cluster.conninfo("postgres", "owner"), autocommit=True) as connection:
        connection.execute("DROP DATABASE fleet_filled WITH (FORCE)")


@pytest.fixture
def fleet(filled: Database) -> Iterator[Database]:
    with psycopg.connect(filled.cluster.conninfo("postgres", "owner"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE fleet TEMPLATE fleet_filled")
        yield Database(filled.cluster, "fleet")
        connection.execute("DROP DATABASE fleet WITH (FORCE)")


def fill(database: Database, store: Store) -> None:
    with database.connect("energy_ingest") as connection:
        description.keep(connection, FILES, BEGIN - timedelta(days=30))
    one = known(store, "plant-a")
    deliver(
        store,
        one,
        {
            "grid/active_power": flat(60_000.0),
            "grid/energy_import": counter(1000.0),
            "grid/energy_export": counter(0.0),
            "roof/active_power": flat(-30_000.0),
            "roof/energy_export": counter(500.0),
            "cells/active_power": flat(6_000.0),
            "cells/energy_import": counter(100.0),
            "office/active_power": flat(1_000.0),
            "boiler/flow": flat(55.0),
        },
    )
    two = known(store, "plant-b")
    press = flat(10_000.0)
    lost = range(minute_of("10:00"), minute_of("10:30"))
    dark = range(minute_of("09:00"), minute_of("09:20"))
    lights: list[Reading] = [(at(n), None, BAD) if n in dark else (at(n), 2_000.0, 0) for n in range(MINUTES)]
    again = minute_of("11:15")
    crc = [7.0 if n >= minute_of("08:30") else 0.0 for n in range(MINUTES)]
    crc[again:] = [2.0 if n >= minute_of("11:20") else 0.0 for n in range(again, MINUTES)]
    timeouts = [3.0 if n >= minute_of("12:10") else 0.0 for n in range(MINUTES)]
    deliver(
        store,
        two,
        {
            "press/active_power": [one for n, one in enumerate(press) if n not in lost],
            "lights/active_power_mean": lights,
            # What was read before statistics were asked for is of no use now.
            "lights/active_power": [(at(0), 99.0, 0)],
            "lights/energy_import": counter(33.0, reset=minute_of("06:00")),
            "probe/temperature": flat(20.0),
            "buses/hall-requests": counter(100.0, reset=again),
            "buses/hall-crc_errors": [(at(n), value, 0) for n, value in enumerate(crc)],
            "buses/hall-timeouts": [(at(n), value, 0) for n, value in enumerate(timeouts)],
            "buses/hall-connects": flat(1.0),
        },
    )
    four = known(store, "plant-d")
    commit(store, "plant-d", four.batch({"m/active_power": [(at(MINUTES - 1), 5.0, 0)]}))
    known(store, "plant-e")
    six = known(store, "plant-f")
    commit(store, "plant-f", six.batch({"press/active_power": [(at(minute_of("10:00")), 400.0, 0)]}))
    for site in ("plant-a", "plant-b", "plant-d", "plant-e", "plant-f"):
        store.set_status(site, "online", {"version": "0.4.0" if site == "plant-a" else "0.3.0"}, seen=True)
    store.set_status("plant-e", "offline", {}, seen=False)
    with database.connect("energy_rollup") as connection:
        connection.execute("SET timezone = 'UTC'")
        while rollup.step(connection):
            pass
    with database.connect() as connection:
        connection.execute("UPDATE site SET first_seen = %s", (BEGIN - timedelta(days=20),))
        connection.execute("UPDATE site SET state_since = %s", (NOW - timedelta(hours=3),))
        # 5 s under way, and 90 s in the last six minutes.
        connection.execute(
            "UPDATE batch b SET received = r.newest + CASE WHEN r.newest >= %s THEN interval '90 s'"
            " ELSE interval '5 s' END FROM (SELECT batch, max(time) AS newest FROM reading GROUP BY batch) r"
            " WHERE r.batch = b.id",
            (NOW - timedelta(minutes=6),),
        )


def looked(fleet: Database, names: list[str] | None = None) -> dict[str, Any]:
    """As it travels: JSON, and by the schema."""
    with fleet.connect("energy_read") as connection:
        connection.execute("SET timezone = 'UTC'")
        text = json.dumps(document(connection, names, NOW), default=tools.iso)
    found: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator(
        json.loads(SCHEMA.read_text()), format_checker=jsonschema.FormatChecker()
    ).validate(found)
    return found


def test_what_flows_is_what_was_put_in(fleet: Database) -> None:
    found = looked(fleet)
    one, two = found["sites"]["plant-a"], found["sites"]["plant-b"]
    assert one["power_kw"] == {"load": 84.0, "generation": -30.0, "storage": 6.0, "net": 60.0}
    assert two["power_kw"] == {"load": 12.0, "generation": 0.0, "storage": 0.0, "net": 12.0}
    # plant-a's day began at 23:00 UTC: 13 h 29 min, by its counters. plant-b has none, or one that was reset: its mean
    # power for 12 h 29 min.
    assert one["energy_kwh"] == {"load": 1132.6, "generation": -404.5, "storage": 80.9, "net": 809.0}
    assert two["energy_kwh"]["load"] == pytest.approx(12 * (12 + 29 / 60), abs=0.001)
    total = found["fleet"]["power_kw"]
    assert {name: total[name] for name in ("load", "generation", "storage", "net")} == {
        "load": 96.0,
        "generation": -30.0,
        "storage": 6.0,
        "net": 72.0,
    }
    assert total["known"] == {"load": 2, "generation": 5, "storage": 5, "net": 2}
    assert found["fleet"]["energy_kwh"]["net"] == pytest.approx(809.0 + 149.8, abs=0.001)


@pytest.mark.parametrize(
    ("before", "told", "hours"),
    [
        ({}, {"since": "2026-01-10T06:10:00Z"}, 1),
        ({}, {"since": "2026-01-10T06:10:00Z"}, 6),
        ({"ct_ratio": "200:5"}, {"ct_ratio": "250:5", "since": "2026-01-08T09:00:00Z"}, 1),
    ],
    ids=["told-later", "told-before", "ratio"],
)
def test_a_day_in_which_a_meter_was_exchanged_does_not_count_what_the_new_one_shows(
    fleet: Database, before: dict[str, str], told: dict[str, str], hours: int
) -> None:
    """And then the file was changed once more."""
    with fleet.connect() as connection:
        connection.execute(
            "UPDATE rollup_day SET last_value = last_value + 1e6 FROM point p"
            " WHERE p.id = point AND p.name = 'grid/energy_import'"
        )
    assert looked(fleet)["sites"]["plant-a"]["energy_kwh"]["net"] == 1809.0
    grid, *others = FILES["plant-a"]["meters"]
    first = NOW - timedelta(hours=hours)
    with fleet.connect("energy_ingest") as connection:
        for changed, since in (
            (before, NOW - timedelta(days=1)),
            (told, first),
            (told | {"max_power": 250_000}, first + timedelta(minutes=10)),
        ):
            file = FILES["plant-a"] | {"meters": [grid | changed, *others]}
            description.keep(connection, {"plant-a": file}, since)
    # 60 kW for 13 h 29 min.
    assert looked(fleet)["sites"]["plant-a"]["energy_kwh"] == {
        "load": 1132.6,
        "generation": -404.5,
        "storage": 80.9,
        "net": 809.0,
    }


def test_by_hour(fleet: Database) -> None:
    hours = looked(fleet)["hours"]
    assert (len(hours["start"]), hours["start"][0], hours["start"][-1]) == (
        25,
        "2026-01-09T12:00:00.000Z",
        "2026-01-10T12:00:00.000Z",
    )
    # At 10:00 plant-f was there, too, with 0.4 kW.
    assert hours["sites"] == [2] * 22 + [3] + [2] * 2
    assert hours["load"] == [96.0] * 22 + [96.4] + [96.0] * 2
    assert hours["generation"] == [-30.0] * 25
    assert hours["net"] == [72.0] * 22 + [72.4] + [72.0] * 2


def test_agreement(fleet: Database) -> None:
    found = looked(fleet)
    # Readings began at 12:00 UTC, and the day ended at 23:00: 11 hours, of which 83 kW are in no meter.
    assert found["sites"]["plant-a"]["agreement"] == {
        "since": "2026-01-08T23:00:00.000Z",
        "until": "2026-01-09T23:00:00.000Z",
        "state": "differs",
        "supply_kwh": 660.0,
        "parts_kwh": -253.0,
        "share": round(83 / 60, 4),
        "meter": None,
        "causes": ["a load constant, of 83.00 kW in the mean, has no meter"],
    }
    assert found["sites"]["plant-b"]["agreement"]["state"] == "unknown"
    assert found["sites"]["plant-b"]["agreement"]["causes"] == [
        "the site has no meter of the supply (role main)"
    ]
    assert {name for name, one in found["sites"].items() if one["agreement"] is None} == {
        "plant-c", "plant-d", "plant-e",
    }  # fmt: skip
    assert found["fleet"]["agreement"] == {"agrees": 0, "differs": 1, "unknown": 2}


@pytest.mark.parametrize("site", ["plant-f", "plant-a"], ids=["late", "online"])
def test_a_reading_of_the_future_says_nothing_of_now(fleet: Database, site: str) -> None:
    """Of a site that measures no more, and of one that does; a clock that is a little fast is none."""
    before = looked(fleet)["sites"][site]
    with fleet.connect() as connection:
        for ahead in (timedelta(minutes=2), timedelta(days=40)):
            connection.execute(
                "INSERT INTO reading (time, value, batch, point, quality)"
                " SELECT %s, 1e6, (SELECT max(id) FROM batch), p.id, 0 FROM point p JOIN site s ON s.id = p.site"
                " WHERE s.name = %s AND p.name LIKE '%%/active_power'",
                (NOW + ahead, site),
            )
    found = looked(fleet)["sites"][site]
    assert {name: found[name] for name in ("state", "since", "last_reading", "power_kw")} == {
        name: before[name] for name in ("state", "since", "last_reading", "power_kw")
    }
    with fleet.connect() as connection:
        connection.execute(
            "UPDATE reading SET time = %s WHERE time = %s",
            (NOW + timedelta(seconds=30), NOW + timedelta(minutes=2)),
        )
    assert looked(fleet)["sites"][site]["last_reading"] == "2026-01-10T12:30:30.000Z"


def test_states(fleet: Database) -> None:
    found = looked(fleet)
    assert {name: (one["state"], one["since"]) for name, one in found["sites"].items()} == {
        "plant-a": ("online", "2026-01-10T09:30:00.000Z"),
        "plant-b": ("online", "2026-01-10T09:30:00.000Z"),
        "plant-c": ("never seen", "2025-12-10T12:00:00.000Z"),
        "plant-d": ("online", "2026-01-10T09:30:00.000Z"),
        "plant-e": ("offline", "2026-01-10T09:30:00.000Z"),
        "plant-f": ("late", "2026-01-10T10:00:00.000Z"),
    }
    assert found["fleet"]["states"] == {"online": 3, "late": 1, "offline": 1, "never seen": 1}
    assert found["sites"]["plant-a"]["last_reading"] == "2026-01-10T12:29:00.000Z"
    assert found["sites"]["plant-d"]["described"] is False
    assert found["sites"]["plant-a"]["certificate"]["days_left"] > 1000
    assert found["fleet"]["collectors"] == {"0.4.0": 1, "0.3.0": 4}


def test_delay(fleet: Database) -> None:
    found = looked(fleet)["sites"]
    assert found["plant-a"]["delay"] == {"p50": 5.0, "p95": 90.0, "samples": 29}
    assert found["plant-f"]["delay"] is None


def test_completeness(fleet: Database) -> None:
    found = looked(fleet)
    whole = {"hours": 24, "expected": 7200, "received": 7200, "missing": 0, "null": 0}
    assert found["sites"]["plant-a"]["completeness"] == whole
    assert found["sites"]["plant-b"]["completeness"] == {
        "hours": 24,
        "expected": 4320,
        "received": 4290,
        "missing": 30,
        "null": 20,
    }
    assert found["sites"]["plant-c"]["completeness"] is None
    assert found["sites"]["plant-e"]["completeness"]["missing"] == 1440
    assert found["fleet"]["completeness"] == {
        "expected": 7200 + 4320 + 2 * 1440,
        "received": 7200 + 4290 + 1,
        "missing": 30 + 1440 + 1439,
        "null": 20,
    }


def test_a_new_site_is_not_blamed_for_what_was_before_it(fleet: Database) -> None:
    with fleet.connect() as connection:
        connection.execute("UPDATE site SET first_seen = '2026-01-10T09:40Z' WHERE name = 'plant-a'")
        connection.execute("UPDATE site SET first_seen = '2026-01-10T11:40Z' WHERE name = 'plant-e'")
    found = looked(fleet)["sites"]
    assert found["plant-a"]["completeness"] == {
        "hours": 2,
        "expected": 600,
        "received": 600,
        "missing": 0,
        "null": 0,
    }
    assert found["plant-e"]["completeness"] is None


def held_back(fleet: Database, site: int) -> None:
    """A batch of 09:10 that the rollups have not counted, by a note of this site; 0: it does not say whose it is."""
    with fleet.connect() as connection:
        batch = fleet.one("SELECT min(id) FROM batch")
        connection.execute("UPDATE batch SET received = '2026-01-10T09:10Z' WHERE id = %s", (batch,))
        connection.execute(
            "INSERT INTO touched (batch, first, last, site) VALUES (%s, %s, %s, %s)",
            (batch, BEGIN, BEGIN, site),
        )


def test_what_the_rollups_have_not_counted_is_not_missing(fleet: Database) -> None:
    held_back(fleet, 0)
    found = looked(fleet)
    assert found["window"] == {"since": "2026-01-09T09:00:00.000Z", "until": "2026-01-10T09:00:00.000Z"}
    # Of the three hours before the first reading, of five meters.
    assert found["sites"]["plant-a"]["completeness"]["missing"] == 3 * 60 * 5


def test_a_site_that_the_rollups_are_behind_with_holds_back_its_own_figures_alone(fleet: Database) -> None:
    before = looked(fleet)
    held_back(fleet, fleet.one("SELECT id FROM site WHERE name = 'plant-a'"))
    found = looked(fleet)
    assert found["window"] == before["window"]
    assert found["window"]["until"] == "2026-01-10T12:00:00.000Z"
    own = found["sites"]["plant-a"]["completeness"]
    assert (own["hours"], own["missing"]) == (before["sites"]["plant-a"]["completeness"]["hours"] - 3, 0)
    for name in ("plant-b", "plant-c"):
        assert found["sites"][name]["completeness"] == before["sites"][name]["completeness"]


def test_a_site_that_the_rollups_are_more_than_a_day_behind_with_has_no_figure(fleet: Database) -> None:
    held_back(fleet, fleet.one("SELECT id FROM site WHERE name = 'plant-a'"))
    with fleet.connect() as connection:
        connection.execute(
            "UPDATE batch SET received = '2026-01-08T09:10Z' WHERE id = (SELECT min(batch) FROM touched)"
        )
    found = looked(fleet)
    assert found["sites"]["plant-a"]["completeness"] is None
    assert found["window"]["until"] == "2026-01-10T12:00:00.000Z"


def test_bus_errors(fleet: Database) -> None:
    found = looked(fleet)["sites"]
    errors = found["plant-b"]["bus_errors"]
    # The first hour begins with the first value; a restart at 11:15 leaves 44 minutes of that hour, and then 30.
    assert errors["requests"] == 100 * (59 + 22 * 60 + 44 + 30)
    assert (errors["crc_errors"], errors["timeouts"]) == (9, 3)
    assert errors["crc_by_hour"] == [0] * 20 + [7, 0, 0, 2, 0]
    assert errors["timeouts_by_hour"] == [0] * 24 + [3]
    assert found["plant-a"]["bus_errors"] is None


def test_one_meter_without_a_value_makes_a_site_unknown_and_not_smaller(
    fleet: Database,
) -> None:
    with fleet.connect() as connection:
        connection.execute(
            "UPDATE reading SET value = NULL, quality = 129 FROM point p WHERE p.id = point"
            " AND p.name = 'roof/active_power' AND time = %s",
            (NOW - timedelta(minutes=1),),
        )
    found = looked(fleet)
    assert found["sites"]["plant-a"]["power_kw"] == {
        "load": None,
        "generation": None,
        "storage": 6.0,
        "net": 60.0,
    }
    assert found["fleet"]["power_kw"]["load"] == 12.0
    assert found["fleet"]["power_kw"]["known"]["load"] == 1


def test_a_broken_chain(fleet: Database) -> None:
    with fleet.connect() as connection:
        connection.execute("UPDATE batch SET chain = 2 WHERE id = (SELECT max(id) FROM batch)")
    found = looked(fleet)["sites"]
    assert (found["plant-a"]["chain"], found["plant-c"]["chain"], found["plant-f"]["chain"]) == (
        "ok",
        None,
        "broken",
    )


def test_the_command_with_names(fleet: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "names"
    file.write_text("plant-a\nghost\n")
    command = ["fleet", "--database", fleet.conninfo("energy_read"), "--sites", str(file)]
    assert cli.main(command) == tools.OK
    found = json.loads(capsys.readouterr().out)
    assert list(found["sites"]) == ["ghost", "plant-a"]
    assert (found["sites"]["ghost"]["state"], found["sites"]["ghost"]["since"]) == ("never seen", None)
    assert found["fleet"]["sites"] == 2
    assert "<script>" in found["sites"]["plant-a"]["label"]


def test_several_databases_make_one_fleet(fleet: Database) -> None:
    """The same database twice, with half of the sites living in each."""
    whole = looked(fleet)
    names = list(whole["sites"])
    with fleet.connect("energy_read") as one, fleet.connect("energy_read") as other:
        for connection in (one, other):
            connection.execute("SET timezone = 'UTC'")
        halves = [Shard(one, frozenset(names[::2])), Shard(other, frozenset(names[1::2]))]
        found = json.loads(json.dumps(of_all(halves, None, NOW), default=tools.iso))
        asked = of_all(halves, [names[0], names[1], "ghost"], NOW)
    assert found["sites"] == whole["sites"]
    assert found["fleet"] == whole["fleet"]
    assert found["hours"]["start"] == whole["hours"]["start"]
    assert found["hours"]["sites"] == whole["hours"]["sites"]
    for name in ("load", "net"):
        assert found["hours"][name] == pytest.approx(whole["hours"][name], abs=0.002)
    assert sorted(asked["sites"]) == sorted([names[0], names[1], "ghost"])
    assert asked["sites"]["ghost"]["state"] == "never seen"


def test_since_when_a_state_holds(database: Database) -> None:
    store = Store(database.conninfo("energy_ingest"))
    known(store, "plant-a")
    first = database.one("SELECT state_since FROM site")
    store.set_status("plant-a", "online", {}, seen=True)
    assert database.one("SELECT state_since FROM site") == first
    store.set_status("plant-a", "offline", {}, seen=False)
    assert database.one("SELECT state_since > %s FROM site", first) is True
    store.close()
