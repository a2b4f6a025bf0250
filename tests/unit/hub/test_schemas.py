# SPDX-License-Identifier: Apache-2.0
"""Databases of the directory that are schemas of one PostgreSQL database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import cli, migrate, partitions, rollup
from energy_hub.commands import tools
from energy_hub.config import with_settings
from energy_hub.evidence import step
from energy_hub.migrate import MONTHS_AHEAD
from energy_hub.pipeline import examine
from energy_hub.store import Signed, Store
from energy_hub.trust import TrustedKey

from .authority import Authority
from .conftest import IN_SCHEMAS, Database, Shards
from .writer import Gateway

START = 1_767_225_600_000
ROLES = ("energy_ingest", "energy_rollup", "energy_read")
IN_PUBLIC = (
    "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "SELECT count(*) FROM pg_default_acl",
)


def run(database: Database, *arguments: str) -> int:
    return cli.main(["migrate", "--database", database.conninfo("energy_migrate"), *arguments])


def filled(database: Database, site: str, values: list[float]) -> Store:
    """A site with a reading a minute of January 2026, and its worker."""
    store = Store(database.conninfo("energy_ingest"))
    gateway = Gateway(site, Ed25519PrivateKey.generate())
    certificate = Authority().client(site).pem()
    store.trust(site, TrustedKey(gateway.public, b"s", certificate, b"f", datetime(2030, 1, 1, tzinfo=UTC)))
    points = {"main/active_power": [(START + 60_000 * n, value, 0) for n, value in enumerate(values)]}
    one = examine(store, site, gateway.batch(points), 1_000_000)
    assert isinstance(one, Signed)
    store.commit([one])
    return store


@pytest.fixture
def schema(empty_database: Database) -> Database:
    return Database(empty_database.cluster, empty_database.name, "north")


def test_migrate_makes_the_schema_and_leaves_public_alone(
    schema: Database, empty_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(schema, "--check") == tools.WOULD_CHANGE
    assert empty_database.one("SELECT count(*) FROM pg_namespace WHERE nspname = 'north'") == 0
    assert run(schema) == tools.OK
    assert run(schema, "--check") == tools.OK
    assert "would" not in capsys.readouterr().out.splitlines()[-1]
    # One rule for who may read what comes later, and it is the schema's.
    assert [empty_database.one(query) for query in IN_PUBLIC] == [0, 0, 1]
    assert empty_database.rows(
        "SELECT DISTINCT unnest(proconfig) FROM pg_proc WHERE pronamespace = 'north'::regnamespace ORDER BY 1"
    ) == [("TimeZone=UTC",), ("search_path=north, pg_temp",)]
    assert schema.rows("SELECT number, digest FROM migration ORDER BY number") == [
        (one.number, one.digest) for one in migrate.shipped()
    ]


def test_one_in_public_is_brought_up_and_has_a_schema_beside_it(
    schema: Database,
    empty_database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    every = migrate.shipped()
    monkeypatch.setattr(migrate, "shipped", lambda: every[:-1])
    assert run(empty_database) == tools.OK
    filled(empty_database, "plant-a", [1.0, 2.0]).close()
    before = [empty_database.one(query) for query in IN_PUBLIC[:2]]
    assert run(schema) == tools.OK
    filled(schema, "plant-b", [3.0]).close()
    assert [empty_database.one(query) for query in IN_PUBLIC[:2]] == before
    monkeypatch.setattr(migrate, "shipped", lambda: every)
    capsys.readouterr()
    assert (run(schema), run(empty_database)) == (tools.OK, tools.OK)
    assert capsys.readouterr().out.splitlines() == [f"applied migration {every[-1]}"] * 2
    values = "SELECT site, value FROM measurement ORDER BY time"
    assert empty_database.rows(values) == [("plant-a", 1.0), ("plant-a", 2.0)]
    assert schema.rows(values) == [("plant-b", 3.0)]


@pytest.mark.parametrize("path", ["north,south", "North", '"nor th"'])
def test_what_is_no_schema_is_refused(empty_database: Database, path: str) -> None:
    with empty_database.connect("energy_migrate") as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", (path,))
        with pytest.raises(
            migrate.MigrationError, match="expected one schema, of small letters, digits and _"
        ):
            list(migrate.apply(connection))


def test_settings_come_beside_those_of_the_connection_string() -> None:
    own = "dbname=energy options=-csearch_path=north"
    assert with_settings(own, "") == own
    assert with_settings(own, "-c timezone=UTC") == (
        "dbname=energy options='-csearch_path=north -c timezone=UTC'"
    )
    assert with_settings("dbname=energy", "-c timezone=UTC") == "dbname=energy options='-c timezone=UTC'"


@pytest.fixture
def stores(shards: Shards) -> Iterator[dict[str, Store]]:
    found = {
        name: filled(shards.databases[name], site, [1.0, 2.0, 3.0])
        for name, site in (("north", "plant-a"), ("south", "plant-b"))
    }
    yield found
    for one in found.values():
        one.close()


@IN_SCHEMAS
def test_roles_may_no_more_than_in_public(shards: Shards, stores: dict[str, Store]) -> None:
    north = shards.databases["north"]
    for role, statements in {
        "energy_ingest": (
            "UPDATE reading SET value = 0",
            "DELETE FROM reading",
            "TRUNCATE reading",
            "DELETE FROM batch",
            "UPDATE batch SET digest = previous",
            "DELETE FROM evidence",
            "UPDATE site_key SET public = public",
            "UPDATE site SET name = 'x'",
            "DROP TABLE conflict",
        ),
        "energy_rollup": (
            "UPDATE reading SET value = 1",
            "DELETE FROM batch",
            "INSERT INTO touched SELECT 1",
        ),
        "energy_read": ("INSERT INTO site (name) VALUES ('x')", "DELETE FROM rollup_day"),
    }.items():
        with north.connect(role) as connection:
            for statement in (*statements, "CREATE TABLE mine (x int)", "CREATE TABLE south.mine (x int)"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
    with north.connect("energy_read") as connection:
        assert connection.execute("SELECT site, value FROM measurement ORDER BY time LIMIT 1").fetchone() == (
            "plant-a",
            1.0,
        )


@IN_SCHEMAS
def test_each_counts_its_own_and_waits_for_no_other(shards: Shards, stores: dict[str, Store]) -> None:
    north, south = shards.databases["north"], shards.databases["south"]
    with north.connect("energy_rollup") as one, south.connect("energy_rollup") as other:
        other.execute("SET lock_timeout = '2s'")
        with one.transaction():
            assert rollup.step(one) == 1
            assert rollup.step(other) == 1
        assert (rollup.step(one), rollup.step(other)) == (0, 0)
    hours = "SELECT p.name, r.sum, r.readings FROM rollup_hour r JOIN point p ON p.id = r.point"
    assert north.rows(hours) == south.rows(hours) == [("main/active_power", 6.0, 3)]


@IN_SCHEMAS
def test_months_of_one_are_no_months_of_the_other(shards: Shards, stores: dict[str, Store]) -> None:
    north, south = shards.databases["north"], shards.databases["south"]
    with north.connect("energy_migrate") as one, south.connect("energy_migrate") as other:
        later = partitions.months(one)[-1]
        assert len(list(partitions.make(one, later))) == MONTHS_AHEAD
        assert len(partitions.months(one)) == len(partitions.months(other)) + MONTHS_AHEAD
    with north.connect("energy_rollup") as connection:
        assert rollup.step(connection) == 1
    with north.connect("energy_ingest") as connection:
        assert step.run(connection, Ed25519PrivateKey.generate())
    january = datetime(2026, 1, 1, tzinfo=UTC)
    with north.connect("energy_migrate") as connection:
        signed = step.latest_sites(connection)
        before = datetime(2026, 2, 1, tzinfo=UTC)
        lines = list(partitions.retire(connection, signed, before, dry_run=False))
        assert lines == ["dropped 2026-01: 3 readings of 1 sites"]
        assert january not in partitions.months(connection)
    with south.connect("energy_migrate") as connection:
        assert january in partitions.months(connection)
    count = "SELECT count(*) FROM reading"
    assert (north.one(count), south.one(count)) == (0, 3)
