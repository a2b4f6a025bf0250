# SPDX-License-Identifier: Apache-2.0
"""Whether the glance at the fleet finds the sites whose meters differ, over the last whole day of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from energy_hub import cli, description, rollup
from energy_hub.causes.fit import Meter
from energy_hub.fleet import agreement
from energy_hub.fleet import document as fleet
from energy_hub.fleet.document import document
from energy_hub.store import Store

from .conftest import Database
from .test_reconcile import START, healthy, ratio_and_load, unmetered_varying, wrong_ratio
from .test_store import commit, known
from .writer import Reading

# The fourth day goes on; by the clock of Kolkata the third ended half past an hour of UTC.
NOW = START + timedelta(days=3, hours=12)


def deliver(store: Store, site: str, meters: Mapping[str, Meter], point: str = "active_power") -> None:
    points: dict[str, list[Reading]] = {
        f"{name}/{point}": [(int(at.timestamp() * 1000), power, 0) for at, power in one.power.items()]
        for name, one in meters.items()
    }
    commit(store, site, known(store, site).batch(points))


def file_of(meters: Mapping[str, Meter], zone: str = "UTC", **more: object) -> dict[str, Any]:
    listed = [{"name": m.name, "role": m.role, "ct_ratio": m.ct_ratio, **more} for m in meters.values()]
    return {"timezone": zone, "interval": 900, "meters": listed}


def roll_up(database: Database) -> None:
    with database.connect("energy_rollup") as connection:
        while rollup.step(connection):
            pass


@pytest.fixture
def sites(database: Database) -> Database:
    wrong, partly, both = healthy(), healthy(), healthy()
    wrong_ratio(wrong)
    unmetered_varying(partly)
    ratio_and_load(both)
    plants = {
        "plant-well": (healthy(), file_of(healthy())),
        "plant-wrong": (wrong, file_of(wrong, "Asia/Kolkata")),
        "plant-mean": (wrong, file_of(wrong, report=900)),
        "plant-partly": (partly, file_of(partly)),
        "plant-both": (both, file_of(both)),
    }
    with database.connect("energy_ingest") as connection:
        for name, (_, file) in plants.items():
            description.keep(connection, {name: file}, START - timedelta(days=1))
    store = Store(database.conninfo("energy_ingest"))
    for name, (meters, _) in plants.items():
        deliver(store, name, meters, "active_power_mean" if name == "plant-mean" else "active_power")
    store.close()
    roll_up(database)
    return database


def looked(database: Database, now: datetime = NOW) -> dict[str, Any]:
    with database.connect("energy_read") as connection:
        connection.execute("SET timezone = 'UTC'")
        return document(connection, None, now)


def test_each_verdict_with_its_cause(sites: Database) -> None:
    found = {name: one["agreement"] for name, one in looked(sites)["sites"].items()}
    assert {name: (one["state"], one["meter"]) for name, one in found.items()} == {
        "plant-well": ("agrees", None),
        "plant-wrong": ("differs", "press"),
        "plant-mean": ("differs", "press"),
        "plant-partly": ("differs", None),
        "plant-both": ("differs", None),
    }
    cause = "press shows 80 % of what it should: likely its CT ratio is 250:5 and not 200:5"
    assert found["plant-wrong"]["causes"] == found["plant-mean"]["causes"] == [cause]
    assert found["plant-wrong"]["since"] == datetime(2026, 3, 2, 18, 30, tzinfo=UTC)
    assert found["plant-well"]["supply_kwh"] == pytest.approx(found["plant-well"]["parts_kwh"], rel=0.01)


def test_it_is_the_verdict_of_the_command(sites: Database, capsys: pytest.CaptureFixture[str]) -> None:
    found = looked(sites)["sites"]
    command = ["reconcile", "--database", sites.conninfo("energy_read"), "--json"]
    for name in found:
        one = found[name]["agreement"]
        span = ["--since", one["since"].isoformat(), "--until", one["until"].isoformat()]
        cli.main([*command, "--site", name, *span])
        said = json.loads(capsys.readouterr().out)["sites"][name]
        assert (one["state"], one["meter"], one["causes"]) == (said["state"], said["meter"], said["causes"])
        assert one["supply_kwh"] == pytest.approx(said["supply"], abs=0.001)


def test_what_was_before_the_files_last_change_does_not_count(sites: Database) -> None:
    """So that a ratio that was put right is no trouble any more."""
    meters = healthy()
    with sites.connect("energy_ingest") as connection:
        description.keep(connection, {"plant-wrong": file_of(meters)}, NOW - timedelta(hours=1))
    one = looked(sites)["sites"]["plant-wrong"]["agreement"]
    assert (one["state"], one["causes"]) == ("unknown", ["the site's file was changed since"])


def test_what_was_before_a_meters_own_date_does_not_count_either(
    sites: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file came first. A date before the file changes nothing: what was read then went by the one before."""
    begins = START + timedelta(days=2)
    late, early = ({"since": f"{begins + timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"} for hours in (16, -40))
    with sites.connect("energy_ingest") as connection:
        for name, date in (("plant-well", late), ("plant-mean", early)):
            file = file_of(healthy(), **({"report": 900} if name == "plant-mean" else {}))
            file["meters"][1] |= date
            description.keep(connection, {name: file}, begins)
    found = {name: one["agreement"] for name, one in looked(sites)["sites"].items()}
    assert found["plant-well"]["state"] == "agrees"
    assert found["plant-mean"]["state"] == "differs"
    command = ["reconcile", "--database", sites.conninfo("energy_read"), "--json"]
    command += ["--since", START.isoformat(), "--until", (START + timedelta(days=3)).isoformat()]
    cli.main(command)
    said = json.loads(capsys.readouterr().out)["sites"]
    assert (said["plant-well"]["quarters"], said["plant-mean"]["quarters"]) == (8 * 4, 24 * 4)
    with sites.connect("energy_read") as connection:
        (row,) = connection.execute("SELECT count(*) FROM site_description WHERE site = 'plant-well'")
    assert row == (2,)


def test_too_little_is_no_verdict(sites: Database) -> None:
    one = looked(sites, START + timedelta(days=1))["sites"]["plant-well"]["agreement"]
    assert one["state"] == "agrees"
    found = looked(sites, START)["sites"]["plant-well"]["agreement"]
    assert (found["state"], found["share"], found["causes"]) == (
        "unknown", None, ["all meters have measured in 0 hours, and 6 are needed"],
    )  # fmt: skip


def test_what_is_asked_does_not_grow_with_the_sites(sites: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Causes are looked for where most is between the meters; the others are still told."""
    asked: list[str] = []
    rows = fleet._Glance._rows

    def counted(glance: fleet._Glance, query: str, **values: object) -> list[dict[str, Any]]:
        asked.append(query)
        return rows(glance, query, **values)

    monkeypatch.setattr(fleet._Glance, "_rows", counted)
    with sites.connect("energy_read") as connection:
        document(connection, ["plant-wrong"], NOW)
    one, asked[:] = len(asked), []
    whole = looked(sites)
    assert len(asked) == one
    monkeypatch.setattr(agreement, "MOST_EXPLAINED", 1)
    few = looked(sites)
    assert few["fleet"]["agreement"] == whole["fleet"]["agreement"] == {
        "agrees": 1, "differs": 4, "unknown": 0,
    }  # fmt: skip
    assert sum(bool(one["agreement"]["causes"]) for one in few["sites"].values()) == 1
