# SPDX-License-Identifier: Apache-2.0
"""Commands on two databases: what belongs to one site is asked where it lives, the rest everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from energy_hub import cli
from energy_hub.config import ConfigError, databases, load
from energy_hub.evidence import keys

from .conftest import IN_SCHEMAS_TOO, Shards
from .test_move import START, Plant

Run = Callable[..., Any]
SPAN = ("--since", "2026-01-01", "--until", "2026-01-03")


@pytest.fixture
def config(shards: Shards, tmp_path: Path) -> Path:
    path = tmp_path / "ingest.yaml"
    path.write_text(json.dumps({key: value for key, value in shards.config().items() if value is not None}))
    return path


@pytest.fixture
def run(config: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def one(*arguments: str, code: int = 0) -> Any:
        assert cli.main([*arguments, "--config", str(config)]) == code
        text = capsys.readouterr().out
        return json.loads(text) if "--json" in arguments else text

    return one


@pytest.fixture
def plants(shards: Shards, run: Run) -> list[Plant]:
    """One in each database; of the first there is an old copy in the second."""
    found = [Plant(shards, name) for name in ("plant-a", "plant-b")]
    for one, name in zip(found, ("north", "south"), strict=True):
        store = one.store(name)
        one.trust(store)
        store.close()
        one.deliver(2)
    found[0].move("south")
    found[0].move("north")
    found[0].deliver(2)
    return found


@IN_SCHEMAS_TOO
def test_questions_of_all_sites_are_asked_everywhere(plants: list[Plant], run: Run, tmp_path: Path) -> None:
    sites = run("status", "--json")["sites"]
    assert {name: row["batches"] for name, row in sites.items()} == {"plant-a": 4, "plant-b": 2}
    assert run("committed", "--json")["sites"]["plant-a"] == {"readings": 480, "batches": 4}
    assert list(json.loads(run("fleet"))["sites"]) == ["plant-a", "plant-b"]
    health = run("health", *SPAN, "--json")
    assert {name: row["batches"] for name, row in health["sites"].items()} == {"plant-a": 4, "plant-b": 2}
    assert health["unknown"] == []
    asked = run("health", *SPAN, "--site", "plant-b", "--site", "plant-x", "--json")
    assert (list(asked["sites"]), asked["unknown"]) == (["plant-b"], ["plant-x"])


def test_questions_of_one_site_are_asked_where_it_lives(
    plants: list[Plant], run: Run, shards: Shards
) -> None:
    assert len(run("export-identities", "--site", "plant-a").splitlines()) == 481
    assert len(run("export-identities", "--site", "plant-b").splitlines()) == 241
    shards.clusters["south"].stop()
    try:
        assert len(run("export-identities", "--site", "plant-a").splitlines()) == 481
        run("export-identities", "--site", "plant-b", code=1)
    finally:
        shards.clusters["south"].start()


@IN_SCHEMAS_TOO
def test_rollups_are_counted_and_summed_over_all(plants: list[Plant], run: Run, tmp_path: Path) -> None:
    file = tmp_path / "sites.json"
    meters = [{"name": "main", "role": "main", "interval": 60}]
    file.write_text(json.dumps({name: {"meters": meters} for name in ("plant-a", "plant-b", "plant-c")}))
    assert run("describe", "--since", "2025-01-01", str(file)).split() == [
        "described", "plant-a", "described", "plant-b", "described", "plant-c",
    ]  # fmt: skip
    # One that nobody has heard of yet has its database from now on.
    assert plants[0].shards.homes()["plant-c"] == "north"
    run("rollup", "--once")
    total = run("totals", *SPAN, "--json")["roles"]["main"]
    assert (total["quarters"], total["sites"]) == (24, 2)
    power = [
        float(line.split(",")[2])
        for site in ("plant-a", "plant-b")
        for line in run("export-identities", "--site", site).splitlines()[1:]
        if "active_power" in line
    ]
    assert total["energy_kwh"] == pytest.approx(sum(power) / 60 / 1000)
    assert "main" in run("totals", *SPAN)
    assert run("completeness", *SPAN).startswith("site")
    verdicts = run("reconcile", *SPAN, "--json")["sites"]
    assert sorted(verdicts) == ["plant-a", "plant-b", "plant-c"]
    assert list(run("reconcile", *SPAN, "--site", "plant-b", "--json")["sites"]) == ["plant-b"]


@IN_SCHEMAS_TOO
def test_one_checkpoint_for_all_and_an_audit_of_all(plants: list[Plant], run: Run, tmp_path: Path) -> None:
    key = tmp_path / "key"
    keys.make(key)
    run("checkpoint", "--key", str(key))
    north, south = (plants[0].shards.databases[name] for name in ("north", "south"))
    assert north.rows("SELECT site, size FROM checkpoint_site ORDER BY site") == [
        ("plant-a", 4),
        ("plant-b", 2),
    ]
    assert south.one("SELECT count(*) FROM checkpoint") == 0
    audit = ("audit", "verify", "--key", str(key.with_suffix(".pub")), "--json")
    assert run(*audit, code=2)["checked"]["readings"] == 720
    assert run(*audit, "--site", "plant-b", code=2)["checked"]["batches"] == 2
    with south.connect() as connection:
        connection.execute(
            "UPDATE reading SET value = 1 WHERE time = to_timestamp(%s)", ((START + 3_600_000) / 1000,)
        )
    findings = run(*audit, code=1)["findings"]
    # Not of the copy that the first site has left there.
    assert {(one["site"], one["kind"]) for one in findings} == {("plant-b", "value-changed")}


def test_a_checkpoint_does_not_wait_for_a_database_that_is_away(
    plants: list[Plant], run: Run, tmp_path: Path, shards: Shards
) -> None:
    key = tmp_path / "key"
    keys.make(key)
    run("checkpoint", "--key", str(key))
    for one in plants:
        one.deliver(1)
    shards.clusters["south"].stop()
    try:
        run("checkpoint", "--key", str(key), code=1)
    finally:
        shards.clusters["south"].start()
    trees = "SELECT checkpoint, site, size FROM checkpoint_site ORDER BY 1, 2"
    first = [(1, "plant-a", 4), (1, "plant-b", 2), (2, "plant-a", 5)]
    assert shards.databases["north"].rows(trees) == first
    run("checkpoint", "--key", str(key))
    assert shards.databases["north"].rows(trees) == [*first, (3, "plant-b", 3)]


@IN_SCHEMAS_TOO
def test_migrate_brings_all_and_learns_where_sites_are(plants: list[Plant], run: Run, shards: Shards) -> None:
    assert run("migrate", "--check") == ""
    with shards.databases["south"].connect() as connection:
        connection.execute("DELETE FROM shard")
    with shards.databases["north"].connect() as connection:
        connection.execute("DELETE FROM directory WHERE site = 'plant-b'")
    assert run("migrate", "--check", code=3).splitlines() == [
        "would apply south: its name",
        "would apply south: plant-b in the directory",
    ]
    assert run("migrate") == "applied south: plant-b in the directory\n"
    assert run("migrate", "--check") == ""
    assert shards.homes()["plant-b"] == "south"


@IN_SCHEMAS_TOO
def test_move_site_and_purge(plants: list[Plant], run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("move-site", "plant-b", "north", "--purge").splitlines()[-2:] == [
        "plant-b lives in north",
        "the copy of plant-b in south is deleted",
    ]
    run("move-site", "plant-b", "east", code=1)
    assert run("move-site", "plant-b", "north") == "plant-b lives in north already\n"


def test_too_little_in_flight_for_two_is_said(tmp_path: Path, config: Path) -> None:
    path = tmp_path / "few.yaml"
    few = json.loads(config.read_text()) | {"broker": {"host": "localhost"}, "in_flight": 7}
    path.write_text(json.dumps(few))
    with pytest.raises(ConfigError, match="in_flight: found 7, expected 4 or more for each of databases"):
        load(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("databases: {a: dbname=x}", "directory: found '-', expected one of databases: a"),
        ("databases: {a: dbname=x}\ndirectory: b", "directory: found 'b', expected one of databases: a"),
        ("directory: a", "directory without databases: expected both, or database alone"),
        ("database: dbname=x\ndatabases: {a: dbname=x}\ndirectory: a", "found database and databases"),
        ("databases: {A: dbname=x}\ndirectory: A", "name 'A': expected small letters, digits and -"),
        (
            "databases: {a: dbname=x user=y}\ndirectory: a",
            "a: found a user, expected none: each command has its role",
        ),
        ("databases: {a: nonsense}\ndirectory: a", 'a: missing "=" after'),
        ("databases: [a]\ndirectory: a", "found ['a'], expected keys and values"),
    ],
)
def test_what_is_wrong_with_databases_is_said(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "ingest.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        databases(path)
    assert why in str(error.value)
