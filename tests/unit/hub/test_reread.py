# SPDX-License-Identifier: Apache-2.0
"""Signed batches that could not be read when they came, and what a mended reader makes of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import cli, move, rollup
from energy_hub.audit.context import Scope
from energy_hub.audit.findings import Report
from energy_hub.audit.verify import verify
from energy_hub.evidence import step
from energy_hub.evidence.keys import raw
from energy_hub.store import Store
from energy_hub.trust import check_statement

from .authority import Authority
from .conftest import Database
from .test_store import signed
from .writer import Gateway, Reading

HUB = Ed25519PrivateKey.generate()
START = 1_767_225_600_000


def minute(number: int, value: float = 1.0) -> dict[str, list[Reading]]:
    return {"main/active_power": [(START + 60_000 * number + 1000 * n, value + n, 0) for n in range(5)]}


@pytest.fixture
def gateway(store: Store, authority: Authority) -> Gateway:
    one = Gateway("plant-a", Ed25519PrivateKey.generate())
    statement = authority.key_statement(authority.client("plant-a"), "plant-a", one.public)
    authorities = [authority.root.certificate, authority.intermediate.certificate]
    store.trust("plant-a", check_statement("plant-a", statement, authorities, datetime.now(UTC)))
    return one


@pytest.fixture
def quarantined(store: Store, gateway: Gateway, database: Database) -> None:
    """Two batches are stored; this hub stumbles over the third, and the fourth nobody can read. All are in the tree."""
    third = signed(store, "plant-a", gateway.batch(minute(2)))
    store.commit([replace(third, body=None, reason="cannot be stored: a fault that is mended since")])
    for number in (0, 1):
        store.commit([signed(store, "plant-a", gateway.batch(minute(number)))])
    store.commit([signed(store, "plant-a", gateway.seal(b"\x07plant"))])
    with database.connect("energy_ingest") as connection:
        assert step.run(connection, HUB)
    count(database)


def count(database: Database) -> None:
    with database.connect("energy_rollup") as connection:
        while rollup.step(connection):
            pass


def reread(database: Database, *options: str) -> int:
    return cli.main(["reread", "--database", database.conninfo("energy_ingest"), *options])


def audit(database: Database, authority: Authority) -> Report:
    scope = Scope(
        keys=frozenset([raw(HUB.public_key())]),
        authorities=[authority.root.certificate, authority.intermediate.certificate],
    )
    with database.connect("energy_read") as connection:
        return verify(connection, scope)


@pytest.mark.usefixtures("quarantined")
def test_readings_come_back_and_an_audit_agrees(
    database: Database, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    assert database.one("SELECT count(*) FROM reading") == 10
    assert reread(database) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [(line[0], line[2], line[3]) for line in lines] == [("plant-a", "1", "5"), ("plant-a", "4", "0")]
    assert " ".join(lines[1][4:]) == "body is truncated"
    assert database.one("SELECT count(*) FROM reading") == 15
    assert database.rows("SELECT kind, sequence FROM evidence") == [("read-again", 1)]
    count(database)
    rollups = "SELECT sum(readings)::int, sum(sum) FROM rollup_minute"
    assert database.rows(rollups) == [(15, 45.0)]
    report = audit(database, authority)
    assert report.findings == {}
    assert report.notes["plant-a", "quarantined"].count == 2
    # What was read once waits no more.
    assert reread(database) == 1
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()[1:]] == ["4"]
    assert database.one("SELECT count(*) FROM reading") == 15


@pytest.mark.usefixtures("quarantined")
def test_check_stores_nothing(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert reread(database, "--check") == 1
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()[1:]] == ["5", "0"]
    assert database.one("SELECT count(*) FROM reading") == 10
    assert database.one("SELECT count(*) FROM evidence") == 0
    assert reread(database, "--site", "plant-b") == 0


@pytest.mark.usefixtures("quarantined")
def test_readings_without_their_note_are_foreign(database: Database, authority: Authority) -> None:
    """An audit believes the note, and nothing without it."""
    reread(database)
    with database.connect() as connection:
        connection.execute("DELETE FROM evidence WHERE kind = 'read-again'")
    assert [one.kind for one in audit(database, authority).findings.values()] == ["reading-inserted"]


@pytest.mark.usefixtures("quarantined")
def test_what_came_first_stays_and_another_value_is_a_conflict(
    database: Database, store: Store, gateway: Gateway
) -> None:
    store.commit([signed(store, "plant-a", gateway.batch(minute(2, value=7.0)))])
    reread(database)
    assert database.one("SELECT count(*) FROM reading") == 15
    assert (
        database.one("SELECT min(value) FROM reading WHERE time >= to_timestamp(%s)", START / 1000 + 120) == 7
    )
    assert database.rows("SELECT count(*), min(second_value) FROM conflict") == [(5, 1.0)]


@pytest.mark.usefixtures("quarantined")
def test_a_site_that_is_being_moved_is_left_alone(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    with psycopg.connect(database.conninfo("energy_migrate"), autocommit=True) as mover:
        with move.alone(mover, "plant-a"):
            assert reread(database) == 1
        assert "plant-a is being moved by another process" in capsys.readouterr().err
        assert database.one("SELECT count(*) FROM reading") == 10
