# SPDX-License-Identifier: Apache-2.0
"""Everything a tamperer may think of, on a real database: found, and named by site, time and kind.

Each case is done as the superuser, who may do anything but sign.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import cli, migrate
from energy_hub.audit import batches, checkpoints, trees
from energy_hub.audit import readings as audit_readings
from energy_hub.audit.context import Scope
from energy_hub.audit.findings import Report
from energy_hub.audit.verify import verify
from energy_hub.evidence import leaves, step, witness
from energy_hub.evidence.checkpoint import Checkpoint
from energy_hub.evidence.keys import raw
from energy_hub.store import Store
from energy_hub.trust import check_statement

from .authority import Authority
from .conftest import Cluster, Database
from .test_store import START, commit
from .writer import Gateway, Reading, body, seal

HUB = Ed25519PrivateKey.generate()
MINUTE = 60_000
BATCHES = 12
POINTS = ("main/active_power", "main/voltage_l1")


def at(minute: int, second: int = 0) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute, seconds=second)


def content(minute: int, offset: float = 0.0) -> dict[str, list[Reading]]:
    """Six readings of each point, 10 s apart; one of them null."""
    return {
        point: [
            (START + MINUTE * minute + 10_000 * n, None, 129)
            if n == 4
            else (START + MINUTE * minute + 10_000 * n, offset + 100 * index + minute + n / 4, 0)
            for n in range(6)
        ]
        for index, point in enumerate(POINTS)
    }


@dataclass
class World:
    """A hub with two sites that has been up for a while."""

    database: Database
    authority: Authority
    gateways: dict[str, Gateway]
    folder: Path

    def audit(self, **changes: object) -> Report:
        scope = {
            "keys": frozenset([raw(HUB.public_key())]),
            "authorities": [self.authority.root.certificate, self.authority.intermediate.certificate],
        } | changes
        with self.database.connect("energy_read") as connection:
            return verify(connection, Scope(**scope))  # type: ignore[arg-type]  # of mixed types, by their names

    def witnesses(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))

    def tamper(self, *statements: str) -> None:
        """As somebody who owns the machine: no rule of the database holds."""
        with self.database.connect() as connection:
            connection.execute("SET session_replication_role = replica")
            for statement in statements:
                assert connection.execute(statement).rowcount != 0, statement


def checkpoint(database: Database, folder: Path) -> None:
    with database.connect("energy_ingest") as connection:
        assert step.run(connection, HUB)
        for site, payload in witness.messages(connection):
            with (folder / f"{site}.jsonl").open("ab") as file:
                file.write(payload + b"\n")


def trust(store: Store, authority: Authority, gateway: Gateway) -> None:
    leaf = authority.client(gateway.site)
    statement = authority.key_statement(leaf, gateway.site, gateway.public)
    authorities = [authority.root.certificate, authority.intermediate.certificate]
    store.trust(gateway.site, check_statement(gateway.site, statement, authorities, datetime.now(UTC)))


@pytest.fixture(scope="module")
def template(
    cluster: Cluster, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Made once, and copied for each case."""
    folder = tmp_path_factory.mktemp("witnesses")
    with psycopg.connect(cluster.conninfo("postgres", "owner"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE audit_template OWNER energy_migrate")
    database = Database(cluster, "audit_template")
    with database.connect("energy_migrate") as connection:
        list(migrate.apply(connection))
    store = Store(database.conninfo("energy_ingest"))
    gateways = {
        site: Gateway(site, Ed25519PrivateKey.generate(), stream=bytes([number]) * 8)
        for number, site in enumerate(("plant-a", "plant-b"), 1)
    }
    for one in gateways.values():
        trust(store, authority, one)
    for minute in range(BATCHES):
        for one in gateways.values():
            commit(store, one.site, one.batch(content(minute)))
        if minute % 4 == 3:
            checkpoint(database, folder)
    odd(store, gateways["plant-b"])
    checkpoint(database, folder)
    store.close()
    yield World(database, authority, gateways, folder)
    with psycopg.connect(cluster.conninfo("postgres", "owner"), autocommit=True) as connection:
        connection.execute("DROP DATABASE audit_template WITH (FORCE)")


def odd(store: Store, gateway: Gateway) -> None:
    """What looks like tampering and is none: all of it happens in the field."""
    second = Gateway(gateway.site, gateway.key, stream=b"\x07" * 8)
    # The same readings once more, and others for the same times.
    commit(store, gateway.site, second.batch(content(2)))
    commit(store, gateway.site, second.batch(content(3, offset=0.5)))
    # Signed, and not readable.
    commit(store, gateway.site, second.seal(b"\x07plant"))
    # Batches that were dropped, a backlog that comes late, and a chain that is broken.
    second.batch(content(40))
    commit(store, gateway.site, second.batch(content(41)))
    late = second.batch(content(30))
    commit(store, gateway.site, second.batch(content(42)))
    commit(store, gateway.site, late)
    second.previous = b"\x55" * 32
    commit(store, gateway.site, second.batch(content(43)))
    # One sequence, two contents.
    second.sequence -= 1
    commit(store, gateway.site, second.batch(content(44)))
    # Clocks that were wrong, and a unit that changed.
    commit(store, gateway.site, second.batch({"main/active_power": [(5000, -0.0, 65), (6000, 1.0, 65)]}))
    commit(store, gateway.site, second.batch({"main/frequency": [(START + MINUTE * 50, 50.0, 0)]}, "Hz"))
    commit(store, gateway.site, second.batch({"main/frequency": [(START + MINUTE * 51, 0.05, 0)]}, "kHz"))


_copies = 0


@pytest.fixture
def world(template: World) -> Iterator[World]:
    global _copies
    _copies += 1
    name = f"audit_{_copies}"
    cluster = template.database.cluster
    with psycopg.connect(cluster.conninfo("postgres", "owner"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE audit_template")
    yield World(Database(cluster, name), template.authority, template.gateways, template.folder)
    with psycopg.connect(cluster.conninfo("postgres", "owner"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


Found = set[tuple[str, str]]


def kinds(report: Report) -> Found:
    return {(one.site, one.kind) for one in report.findings.values()}


def only(report: Report, kind: str) -> tuple[str, datetime, datetime, int]:
    found = [one for one in report.findings.values() if one.kind == kind]
    assert len(found) == 1, report.findings
    return found[0].site, found[0].first, found[0].last, found[0].count


def test_nothing_was_changed_and_what_is_odd_is_explained(world: World) -> None:
    report = world.audit(witnesses=world.witnesses())
    assert report.sorted_findings() == []
    assert report.unchecked == []
    assert {(note.site, note.kind): note.count for note in report.sorted_notes()} == {
        ("plant-b", "received-twice"): 14,
        ("plant-b", "conflict"): 10,
        ("plant-b", "quarantined"): 1,
        ("plant-b", "gap"): 1,
        ("plant-b", "chain-broken"): 2,
        ("plant-b", "fork"): 1,
    }
    readings = 12 * 12 * 2 + 12 * 6 + 4
    assert report.checked == {
        "keys": 2,
        "checkpoints": 4,
        "leaves": 34,
        "witnesses": 8,
        "batches": 34,
        "readings": readings,
        "quarantined payloads": 2,
    }


def test_nothing_is_found_whatever_the_chunks_are(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 13, 100):
        monkeypatch.setattr(audit_readings, "CHUNK", size)
        assert world.audit().findings == {}


ROW = "point = (SELECT p.id FROM point p JOIN site s ON s.id = p.site WHERE s.name = '%s' AND p.name = '%s')"
A = ROW % ("plant-a", "main/active_power")
BATCH = "site = (SELECT id FROM site WHERE name = 'plant-a') AND sequence = 6"
MINUTE_5 = (at(5), at(5, 50))


def reading(minute: int, second: int) -> str:
    return f"{A} AND time = '{at(minute, second).isoformat()}'"


Moment = datetime | Callable[[World], datetime]
"""A time, or how to ask for it before anything is changed"""


def of_arrival(sequence: int) -> Callable[[World], datetime]:
    def ask(world: World) -> datetime:
        query = "SELECT received FROM batch WHERE site = 1 AND sequence = %s"
        received = world.database.one(query, sequence)
        assert isinstance(received, datetime)
        return received

    return ask


def of_checkpoint(number: int) -> Callable[[World], datetime]:
    def ask(world: World) -> datetime:
        body = world.database.one("SELECT body FROM checkpoint WHERE number = %s", number)
        return Checkpoint(str(body), b"", b"").body().time

    return ask


Case = tuple[tuple[str, ...], Found, str, tuple[Moment, Moment], int]

CASES: dict[str, Case] = {
    "a value": (
        (f"UPDATE reading SET value = value + 0.001 WHERE {reading(5, 20)}",),
        {("plant-a", "value-changed")},
        "value-changed",
        (at(5, 20), at(5, 20)),
        1,
    ),
    "a value made null": (
        (f"UPDATE reading SET value = NULL, quality = 129 WHERE {reading(5, 20)}",),
        {("plant-a", "value-changed")},
        "value-changed",
        (at(5, 20), at(5, 20)),
        1,
    ),
    "a null made zero": (
        (f"UPDATE reading SET value = 0, quality = 0 WHERE {reading(5, 40)}",),
        {("plant-a", "value-changed")},
        "value-changed",
        (at(5, 40), at(5, 40)),
        1,
    ),
    "a quality": (
        (f"UPDATE reading SET quality = 64 WHERE {reading(5, 20)}",),
        {("plant-a", "value-changed")},
        "value-changed",
        (at(5, 20), at(5, 20)),
        1,
    ),
    "a reading removed": (
        (f"DELETE FROM reading WHERE {reading(5, 20)}",),
        {("plant-a", "reading-removed")},
        "reading-removed",
        (at(5, 20), at(5, 20)),
        1,
    ),
    "readings of an hour removed": (
        (
            f"DELETE FROM reading WHERE {A} AND time >= '{at(5).isoformat()}' AND time < '{at(6).isoformat()}'",
        ),
        {("plant-a", "reading-removed")},
        "reading-removed",
        MINUTE_5,
        6,
    ),
    "a reading inserted": (
        (
            (
                f"INSERT INTO reading SELECT time + interval '5 s', 1, batch, point, 0 FROM reading"
                f" WHERE {reading(5, 20)}"
            ),
        ),
        {("plant-a", "reading-inserted")},
        "reading-inserted",
        (at(5, 25), at(5, 25)),
        1,
    ),
    "a reading inserted far away": (
        (
            (
                "INSERT INTO reading SELECT '2019-07-01T00:00:00Z', 1, batch, point, 0 FROM reading"
                f" WHERE {reading(5, 20)}"
            ),
        ),
        {("plant-a", "reading-inserted")},
        "reading-inserted",
        (datetime(2019, 7, 1, tzinfo=UTC), datetime(2019, 7, 1, tzinfo=UTC)),
        1,
    ),
    "a reading inserted under a batch that is not there": (
        (
            (
                "INSERT INTO reading SELECT time + interval '5 s', 1, 999999, point, 0 FROM reading"
                f" WHERE {reading(5, 20)}"
            ),
        ),
        {("plant-a", "reading-inserted")},
        "reading-inserted",
        (at(5, 25), at(5, 25)),
        1,
    ),
    "the times of two readings swapped": (
        (
            (
                f"UPDATE reading r SET value = o.value FROM reading o WHERE r.point = o.point AND r.{A}"
                f" AND ((r.time = '{at(5, 10).isoformat()}' AND o.time = '{at(5, 30).isoformat()}')"
                f" OR (r.time = '{at(5, 30).isoformat()}' AND o.time = '{at(5, 10).isoformat()}'))"
            ),
        ),
        {("plant-a", "readings-reordered")},
        "readings-reordered",
        (at(5, 10), at(5, 30)),
        2,
    ),
    "the time of a reading": (
        (f"UPDATE reading SET time = time + interval '3 s' WHERE {reading(5, 20)}",),
        {("plant-a", "time-changed")},
        "time-changed",
        (at(5, 20), at(5, 23)),
        1,
    ),
    "a reading given to another batch": (
        (f"UPDATE reading SET batch = batch + 2 WHERE {reading(5, 20)}",),
        {("plant-a", "reading-inserted")},
        "reading-inserted",
        (at(5, 20), at(5, 20)),
        1,
    ),
    "a batch removed with its readings": (
        (
            f"DELETE FROM reading WHERE batch = (SELECT id FROM batch WHERE {BATCH})",
            f"DELETE FROM batch WHERE {BATCH}",
        ),
        {("plant-a", "batch-removed")},
        "batch-removed",
        (at(4, 50), at(6)),
        1,
    ),
    "a batch removed, its leaf and its stream's number too": (
        (
            f"DELETE FROM reading WHERE batch = (SELECT id FROM batch WHERE {BATCH})",
            f"DELETE FROM leaf WHERE {BATCH}",
            f"DELETE FROM batch WHERE {BATCH}",
            "UPDATE stream SET committed = committed - int8multirange(int8range(6, 7)) WHERE site = 1",
        ),
        {("plant-a", "leaf-removed"), ("plant-a", "batch-removed")},
        "batch-removed",
        (at(4, 50), at(6)),
        1,
    ),
    "a batch removed, its readings left": (
        (f"DELETE FROM batch WHERE {BATCH}",),
        {("plant-a", "batch-removed"), ("plant-a", "reading-unproven")},
        "reading-unproven",
        MINUTE_5,
        6,
    ),
    "a byte of a batch": (
        (f"UPDATE batch SET content = set_byte(content, 70, get_byte(content, 70) # 1) WHERE {BATCH}",),
        {("plant-a", "batch-changed")},
        "batch-changed",
        (of_arrival(6), of_arrival(6)),
        1,
    ),
    "the number of a batch": (
        (f"UPDATE batch SET sequence = 600 WHERE {BATCH}",),
        {("plant-a", "batch-renumbered"), ("plant-a", "batch-removed")},
        "batch-renumbered",
        MINUTE_5,
        1,
    ),
    "the time of a batch's arrival": (
        (f"UPDATE batch SET received = received - interval '1 day' WHERE {BATCH}",),
        {("plant-a", "batch-changed")},
        "batch-changed",
        MINUTE_5,
        1,
    ),
    "the mark of an unreadable batch": (
        (f"UPDATE batch SET quarantined = true, readings = 0 WHERE {BATCH}",),
        {("plant-a", "batch-changed"), ("plant-a", "reading-inserted"), ("plant-a", "note-removed")},
        "batch-changed",
        MINUTE_5,
        1,
    ),
    "the unit of a point": (
        (f"UPDATE point_unit SET unit = 'kW' WHERE {A}",),
        {("plant-a", "unit-changed")},
        "unit-changed",
        (at(0), at(11)),
        6,
    ),
    "the names of two points swapped": (
        (
            "UPDATE point SET name = CASE WHEN name LIKE '%power' THEN 'x' ELSE 'main/active_power' END WHERE site = 1",
            "UPDATE point SET name = 'main/voltage_l1' WHERE name = 'x'",
        ),
        {("plant-a", "value-changed")},
        "value-changed",
        (at(0), at(11, 50)),
        5,
    ),
    "two leaves swapped": (
        (
            "UPDATE leaf SET number = number + 1000 WHERE site = 1 AND number IN (4, 5)",
            "UPDATE leaf SET number = CASE number WHEN 1004 THEN 5 ELSE 4 END WHERE site = 1 AND number > 1000",
        ),
        {("plant-a", "tree-changed"), ("plant-a", "tree-not-as-signed")},
        "tree-not-as-signed",
        (of_checkpoint(1), of_checkpoint(2)),
        4,
    ),
    "a leaf's hash": (
        (f"UPDATE leaf SET hashes = set_byte(hashes, 3, get_byte(hashes, 3) # 1) WHERE {BATCH}",),
        {("plant-a", "batch-changed"), ("plant-a", "tree-changed"), ("plant-a", "tree-not-as-signed")},
        "tree-not-as-signed",
        (of_checkpoint(1), of_checkpoint(2)),
        4,
    ),
    "the text of a checkpoint": (
        ("UPDATE checkpoint SET body = replace(body, 'time 2', 'time 3') WHERE number = 2",),
        {("-", "checkpoint-changed")},
        "checkpoint-changed",
        (of_checkpoint(1), of_checkpoint(3)),
        1,
    ),
    "a checkpoint removed": (
        ("DELETE FROM checkpoint WHERE number = 2",),
        {("-", "checkpoint-removed")},
        "checkpoint-removed",
        (of_checkpoint(1), of_checkpoint(3)),
        1,
    ),
    "a root that a checkpoint was signed over": (
        ("UPDATE checkpoint_site SET root = sha256('x') WHERE site = 'plant-a' AND checkpoint = 2",),
        {("plant-a", "tree-not-as-signed"), ("-", "tree-not-as-signed")},
        "tree-not-as-signed",
        (of_checkpoint(1), of_checkpoint(2)),
        1,
    ),
    "the whole text of a checkpoint": (
        ("UPDATE checkpoint SET body = 'x' WHERE number = 2",),
        {("-", "checkpoint-changed")},
        "checkpoint-changed",
        (of_checkpoint(1), of_checkpoint(3)),
        1,
    ),
    "the first checkpoint removed": (
        ("DELETE FROM checkpoint WHERE number = 1",),
        {("-", "checkpoint-removed")},
        "checkpoint-removed",
        (of_checkpoint(2), of_checkpoint(2)),
        1,
    ),
    "the first leaf removed": (
        ("DELETE FROM leaf WHERE site = 1 AND number = 0",),
        {("plant-a", "leaf-removed"), ("plant-a", "batch-inserted")},
        "leaf-removed",
        (of_arrival(2), of_arrival(2)),
        1,
    ),
    "a leaf's hash before the first checkpoint": (
        (
            "UPDATE leaf SET hashes = set_byte(hashes, 3, get_byte(hashes, 3) # 1) WHERE site = 1 AND number = 0",
        ),
        {("plant-a", "batch-changed"), ("plant-a", "tree-changed"), ("plant-a", "tree-not-as-signed")},
        "tree-not-as-signed",
        (of_arrival(1), of_checkpoint(1)),
        4,
    ),
    "all leaves removed": (
        ("DELETE FROM leaf WHERE site = 1",),
        {("plant-a", "tail-cut"), ("plant-a", "batch-inserted")},
        "tail-cut",
        (of_checkpoint(3), of_checkpoint(3)),
        12,
    ),
    "the end of the tree": (
        (
            "DELETE FROM leaf WHERE site = 1 AND number >= 10",
            "DELETE FROM reading WHERE batch IN (SELECT id FROM batch WHERE site = 1 AND sequence > 10)",
            "DELETE FROM batch WHERE site = 1 AND sequence > 10",
            "UPDATE stream SET committed = '{[1,11)}' WHERE site = 1",
        ),
        {("plant-a", "tail-cut")},
        "tail-cut",
        (of_arrival(10), of_checkpoint(3)),
        2,
    ),
}


# Of plant-b, where something odd has happened.
NOTES: dict[str, tuple[str, str, str]] = {
    "a fork's note": ("DELETE FROM evidence WHERE kind = 'fork'", "note-removed", "says nothing any more"),
    "what a fork's note says": (
        "UPDATE evidence SET detail = 'nothing' WHERE kind = 'fork'",
        "note-changed",
        "does not name the second batch",
    ),
    "a fork's second batch": (
        "DELETE FROM quarantine WHERE reason LIKE 'fork%'",
        "note-removed",
        "is not in quarantine any more",
    ),
    "a byte of a fork's second batch": (
        "UPDATE quarantine SET content = set_byte(content, 70, get_byte(content, 70) # 1) WHERE reason LIKE 'fork%'",
        "note-changed",
        "another digest",
    ),
    "why a batch was not readable": (
        "DELETE FROM quarantine WHERE reason NOT LIKE 'fork%'",
        "note-removed",
        "has no reason",
    ),
    "a payload that nobody has signed": (
        (
            "INSERT INTO quarantine (topic_site, digest, reason, signed, size, content) VALUES"
            " ('plant-b', sha256('x'), 'fork', true, 1, 'x')"
        ),
        "note-inserted",
        "said to be signed",
    ),
    "the note of a conflict": (
        "DELETE FROM evidence WHERE kind = 'conflict'",
        "note-removed",
        "brought other values",
    ),
    "a second value removed": (
        "DELETE FROM conflict WHERE ctid = (SELECT min(ctid) FROM conflict)",
        "reading-removed",
        "is not stored",
    ),
    "a second value": (
        "UPDATE conflict SET second_value = 1 WHERE ctid = (SELECT min(ctid) FROM conflict)",
        "note-changed",
        "the one that its batch holds",
    ),
    "a first value in table conflict": (
        "UPDATE conflict SET first_value = 1 WHERE ctid = (SELECT min(ctid) FROM conflict)",
        "note-changed",
        "the one that is stored",
    ),
    "a conflict that was none": (
        (
            "INSERT INTO conflict (point, time, first_batch, first_value, first_quality, second_batch, second_value,"
            " second_quality) SELECT point, time, batch, value, quality, 999999, 1, 0 FROM reading WHERE batch ="
            " (SELECT max(batch) FROM reading JOIN point p ON p.id = point WHERE p.site = 2) LIMIT 1"
        ),
        "note-inserted",
        "no such batch",
    ),
    "the note of a broken chain": (
        "DELETE FROM evidence WHERE kind = 'chain-broken'",
        "chain-broken",
        "does not follow",
    ),
    "the note of a unit": (
        "DELETE FROM evidence WHERE kind = 'unit-changed'",
        "note-removed",
        "its unit became",
    ),
}


@pytest.mark.parametrize("case", NOTES)
def test_notes_of_odd_things_are_not_taken_out_unseen(world: World, case: str) -> None:
    """Each row of evidence, conflict and quarantine is held against another place that has to say the same."""
    statement, kind, words = NOTES[case]
    world.tamper(statement)
    found = world.audit().findings.values()
    assert (one := next((one for one in found if one.kind == kind), None)) is not None, found
    assert one.site == "plant-b"
    assert words in one.detail


@pytest.mark.parametrize("case", CASES)
def test_tampering_is_found_and_named(world: World, case: str) -> None:
    statements, expected, kind, times, count = CASES[case]
    wanted = [one(world) if callable(one) else one for one in times]
    world.tamper(*statements)
    report = world.audit()
    assert kinds(report) == expected
    found = [one for one in report.findings.values() if one.kind == kind]
    assert [min(one.first for one in found), max(one.last for one in found)] == wanted
    assert found[0].count == count
    # With one site only in view, another site is not accused.
    other = world.audit(sites=frozenset(["plant-b"]))
    assert not [
        one for one in other.findings.values() if one.site == "plant-a" and one.kind != "tree-not-as-signed"
    ]


def forged(world: World, key: Ed25519PrivateKey) -> bytes:
    """Batch 6 of plant-a with other values, under another key."""
    previous = world.database.one(f"SELECT previous FROM batch WHERE {BATCH}")
    assert isinstance(previous, bytes)
    return seal(key, body("plant-a", content(5, offset=-50)), b"\x01" * 8, 6, previous)


def replace(world: World, payload: bytes, key: int) -> None:
    digest = hashlib.sha256(payload).digest()
    with world.database.connect() as connection:
        connection.execute(
            f"UPDATE batch SET content = %s, digest = %s, signature = %s, size = %s, key = %s WHERE {BATCH}",
            (payload, digest, payload[-64:], len(payload), key),
        )
        connection.execute(
            "UPDATE reading r SET value = value - 50 FROM batch b"
            " WHERE r.batch = b.id AND b.sequence = 6 AND b.site = 1"
        )


def insert_key(world: World, key: Ed25519PrivateKey) -> int:
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    with world.database.connect() as connection:
        row = connection.execute(
            "INSERT INTO site_key (site, public, statement, certificate, fingerprint, not_after)"
            " SELECT site, %s, statement, certificate, fingerprint, not_after FROM site_key WHERE site = 1"
            " RETURNING id",
            (public,),
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_batch_that_another_key_signed(world: World) -> None:
    thief = Ed25519PrivateKey.generate()
    replace(world, forged(world, thief), insert_key(world, thief))
    report = world.audit()
    assert kinds(report) == {
        ("plant-a", "key-not-vouched-for"),
        ("plant-a", "batch-changed"),
        ("plant-a", "chain-broken"),
    }
    # Without the CA the key passes; the tree does not.
    report = world.audit(authorities=())
    assert kinds(report) == {("plant-a", "batch-changed"), ("plant-a", "chain-broken")}
    assert "is not what leaf 5 was made of" in next(iter(report.findings.values())).detail


def test_batch_that_the_gateways_own_stolen_key_signed(world: World) -> None:
    """Nothing but the tree knows better, and the batch after it."""
    replace(world, forged(world, world.gateways["plant-a"].key), 1)
    assert kinds(world.audit()) == {("plant-a", "batch-changed"), ("plant-a", "chain-broken")}


def rebuild(world: World, key: Ed25519PrivateKey) -> None:
    """All trees and checkpoints made anew over what is in the database now."""
    world.tamper(
        "DELETE FROM checkpoint_site",
        "DELETE FROM checkpoint",
        "DELETE FROM leaf",
        "INSERT INTO leaf_due SELECT id FROM batch",
    )
    with world.database.connect() as connection:
        for _ in range(4):
            assert step.run(connection, key)


def test_tree_made_anew_without_the_hubs_key(world: World) -> None:
    replace(world, forged(world, world.gateways["plant-a"].key), 1)
    rebuild(world, Ed25519PrivateKey.generate())
    report = world.audit()
    assert ("-", "checkpoint-foreign-key") in kinds(report)


def test_tree_made_anew_with_the_hubs_key_is_known_to_witnesses(world: World) -> None:
    """The chain after the batch is mended too, which takes the gateway's key: nothing in the database is wrong."""
    gateway = world.gateways["plant-a"]
    again = Gateway("plant-a", gateway.key, stream=gateway.stream)
    with world.database.connect() as connection:
        for minute in range(BATCHES):
            offset = -50.0 if minute == 5 else 0.0
            payload = again.batch(content(minute, offset))
            connection.execute(
                "UPDATE batch SET content = %s, digest = %s, signature = %s, size = %s, previous = %s"
                " WHERE site = 1 AND sequence = %s",
                (
                    payload,
                    hashlib.sha256(payload).digest(),
                    payload[-64:],
                    len(payload),
                    payload[21:53],
                    minute + 1,
                ),
            )
        connection.execute(
            "UPDATE reading r SET value = value - 50 FROM batch b"
            " WHERE r.batch = b.id AND b.sequence = 6 AND b.site = 1"
        )
    rebuild(world, HUB)
    assert world.audit().findings == {}
    report = world.audit(witnesses=world.witnesses())
    assert {("plant-a", "tree-not-as-witnessed"), ("plant-a", "checkpoint-changed")} <= kinds(report)


def test_tail_that_is_gone_with_all_that_the_hub_signed_over_it(world: World) -> None:
    """Only the gateway's file knows that there was more."""
    world.tamper(
        "DELETE FROM checkpoint_site WHERE checkpoint > 2",
        "DELETE FROM checkpoint WHERE number > 2",
        "DELETE FROM leaf WHERE site = 1 AND number >= 8",
        "DELETE FROM leaf WHERE site = 2 AND number >= 8",
        "DELETE FROM reading WHERE batch IN (SELECT id FROM batch WHERE sequence > 8 OR get_byte(stream, 0) = 7)",
        "DELETE FROM batch WHERE sequence > 8 OR stream = '\\x0707070707070707'",
        "DELETE FROM stream WHERE stream = '\\x0707070707070707'",
        "DELETE FROM conflict",
        "DELETE FROM evidence",
        "DELETE FROM quarantine",
        "DELETE FROM point_unit WHERE since > '1970-01-01Z'",
        "UPDATE stream SET committed = '{[1,9)}'",
    )
    assert world.audit().findings == {}
    report = world.audit(witnesses=[world.folder / "plant-a.jsonl"])
    assert kinds(report) == {("plant-a", "tail-cut"), ("plant-a", "checkpoint-removed")}
    site, first, last, count = only(report, "tail-cut")
    arrived = world.database.one("SELECT max(received) FROM batch WHERE site = 1")
    assert (site, first, count) == ("plant-a", arrived, 4)
    assert last > first


@pytest.fixture
def lost(world: World, tmp_path: Path) -> tuple[list[bytes], list[Path]]:
    """The hub has gone on with four batches of plant-a and signed them; then it is set back to what `world` is."""
    gateway = copy.copy(world.gateways["plant-a"])
    payloads = [gateway.batch(content(20 + number)) for number in range(4)]
    name = f"{world.database.name}_lost"
    with psycopg.connect(world.database.cluster.conninfo("postgres", "owner"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {world.database.name}")
        before = Database(world.database.cluster, name)
        store = Store(before.conninfo("energy_ingest"))
        for payload in payloads:
            commit(store, "plant-a", payload)
        store.close()
        checkpoint(before, tmp_path)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    world.tamper(
        "INSERT INTO restored (target, checkpoint, generation)"
        " SELECT now() - interval '1 minute', max(number), '1-2' FROM checkpoint"
    )
    return payloads, [*world.witnesses(), *sorted(tmp_path.glob("plant-*.jsonl"))]


def resend(world: World, payloads: list[bytes]) -> None:
    store = Store(world.database.conninfo("energy_ingest"))
    for payload in payloads:
        commit(store, "plant-a", payload)
    store.close()


def test_nothing_is_found_after_a_restore_once_all_was_sent_again(
    world: World, lost: tuple[list[bytes], list[Path]], tmp_path: Path
) -> None:
    payloads, files = lost
    report = world.audit(witnesses=files)
    assert only(report, "not-sent-again")[::3] == ("plant-a", 4)
    assert kinds(report) == {("plant-a", "not-sent-again")}
    resend(world, payloads)
    # What the hub signs from now on has the old numbers.
    checkpoint(world.database, tmp_path)
    report = world.audit(witnesses=[*files, *sorted(tmp_path.glob("plant-*.jsonl"))])
    assert report.sorted_findings() == []
    assert report.unchecked == []
    notes = {(note.site, note.kind) for note in report.sorted_notes()}
    assert {("-", "restored"), ("plant-a", "set-back"), ("plant-b", "set-back")} <= notes


def test_what_is_missing_after_a_restore_is_found(world: World, lost: tuple[list[bytes], list[Path]]) -> None:
    payloads, files = lost
    resend(world, payloads[1:])
    # As many as there were, and one of them was measured after all that was signed.
    minutes = (datetime.now(UTC) - at(0)) // timedelta(minutes=1) + 5
    other = Gateway("plant-a", world.gateways["plant-a"].key, stream=b"\x09" * 8)
    resend(world, [other.batch(content(minutes))])
    found = {(one.kind, one.subject) for one in world.audit(witnesses=files).findings.values()}
    stream = world.gateways["plant-a"].stream.hex()
    assert found == {("not-sent-again", "tree"), ("not-sent-again", f"stream {stream} sequence 14")}
    assert world.audit(witnesses=files, since=at(0)).unchecked == []
    assert "--since" in world.audit(witnesses=files, since=datetime.now(UTC)).unchecked[0]


def test_a_restore_that_nobody_noted_is_named_as_a_likely_cause(
    world: World, lost: tuple[list[bytes], list[Path]]
) -> None:
    payloads, files = lost
    world.tamper("DELETE FROM restored")
    report = world.audit(witnesses=files)
    assert {("plant-a", "tail-cut"), ("plant-a", "checkpoint-removed")} <= kinds(report)
    assert all("after a restore from a backup" in one.detail for one in report.findings.values())
    resend(world, payloads)
    report = world.audit(witnesses=files)
    assert all("after a restore from a backup" in one.detail for one in report.findings.values())
    assert report.findings


def test_a_restore_excuses_nothing_from_before_it(world: World, lost: tuple[list[bytes], list[Path]]) -> None:
    payloads, files = lost
    resend(world, payloads)
    world.tamper(f"UPDATE reading SET value = value + 1 WHERE {reading(5, 20)}")
    assert kinds(world.audit(witnesses=files)) == {("plant-a", "value-changed")}
    world.tamper(
        "DELETE FROM checkpoint_site WHERE checkpoint > 2", "DELETE FROM checkpoint WHERE number > 2"
    )
    assert ("plant-a", "checkpoint-removed") in kinds(world.audit(witnesses=files))


def test_stream_that_was_shortened_alone(world: World) -> None:
    """The watermark that a gateway was told of says that the batch was here."""
    world.tamper(
        f"DELETE FROM reading WHERE batch = (SELECT id FROM batch WHERE {BATCH.replace('6', '12')})",
        f"DELETE FROM leaf WHERE {BATCH.replace('6', '12')}",
        f"DELETE FROM batch WHERE {BATCH.replace('6', '12')}",
    )
    report = world.audit()
    assert {("plant-a", "batch-removed"), ("plant-a", "tail-cut")} == kinds(report)
    _, first, last, _ = only(report, "batch-removed")
    # There is no batch after it: all that is known is that it was measured before now.
    assert first == at(10, 50)
    assert timedelta() <= datetime.now(UTC) - last < timedelta(hours=1)


REMOVE_13 = (
    "DELETE FROM reading WHERE batch = (SELECT id FROM batch WHERE site = 1 AND sequence = 13)",
    "DELETE FROM batch WHERE site = 1 AND sequence = 13",
    "UPDATE stream SET committed = committed - int8multirange(int8range(13, 14)) WHERE site = 1",
)


def test_batch_that_is_removed_before_it_came_into_a_tree(world: World, tmp_path: Path) -> None:
    """Its row goes, and its number in the stream too: until the checkpoint leaf_due knows of it, then evidence does."""
    gateway = copy.copy(world.gateways["plant-a"])
    payloads = [gateway.batch(content(20)), gateway.batch(content(21))]
    resend(world, payloads[:1])
    received = of_arrival(13)(world)
    world.tamper(*REMOVE_13)
    found = {}
    for step_ in ("due", "evidence"):
        report = world.audit(witnesses=world.witnesses())
        assert kinds(report) == {("plant-a", "batch-removed")}
        (one,) = report.findings.values()
        found[step_] = one.detail
        assert one.subject == "stream 0101010101010101 sequence 13"
        # None came after it, so that it is the arrival that bounds it.
        assert one.first == at(11, 50)
        assert timedelta() <= received - one.last < timedelta(milliseconds=1)
        if step_ == "due":
            checkpoint(world.database, tmp_path)
    assert "was due for its site's tree and is gone" in found["due"]
    assert "before it came into a tree, as table evidence says" in found["evidence"]
    assert world.database.one("SELECT count(*) FROM leaf_due") == 0
    resend(world, payloads[1:])
    checkpoint(world.database, tmp_path)
    report = world.audit()
    assert kinds(report) == {("plant-a", "batch-removed")}
    assert only(report, "batch-removed") == ("plant-a", at(11, 50), at(21), 1)
    assert world.audit(sites=frozenset(["plant-b"])).findings == {}


def test_note_of_a_removed_batch_that_was_made_unreadable_has_a_time(world: World, tmp_path: Path) -> None:
    gateway = copy.copy(world.gateways["plant-a"])
    resend(world, [gateway.batch(content(20))])
    world.tamper(*REMOVE_13)
    checkpoint(world.database, tmp_path)
    found = world.database.one("SELECT found FROM evidence WHERE kind = 'batch-removed'")
    for detail in ("nothing", "came in at 2026-13-01T00:00:00Z and was removed"):
        world.tamper(f"UPDATE evidence SET detail = '{detail}' WHERE kind = 'batch-removed'")
        assert only(world.audit(), "batch-removed") == ("plant-a", at(11, 50), found, 1)


def test_batch_that_is_due_and_of_which_nobody_knows_whose_it_was(world: World) -> None:
    """A worker of the release before has noted it by its number alone. It stays due, and is told of again and again."""
    world.tamper("INSERT INTO leaf_due (batch) VALUES (999999)")
    newest = world.database.one("SELECT max(received) FROM batch")
    for _ in range(2):
        site, first, last, _count = only(world.audit(), "batch-removed")
        assert (site, first) == ("-", newest)
        assert last > first
        with world.database.connect("energy_ingest") as connection:
            done = step.run(connection, HUB)
        assert done is not None
        assert (done.leaves, done.missing) == (0, 1)


def test_batch_that_was_never_received(world: World) -> None:
    """Inserted with the gateway's key, and put into no tree."""
    payload = world.gateways["plant-a"].batch(content(20))
    world.gateways["plant-a"].sequence -= 1
    store = Store(world.database.conninfo("energy_ingest"))
    commit(store, "plant-a", payload)
    store.close()
    assert world.audit().findings == {}
    world.tamper("DELETE FROM leaf_due")
    assert kinds(world.audit()) == {("plant-a", "batch-inserted")}


def test_witness_that_somebody_wrote(world: World, tmp_path: Path) -> None:
    line = json.loads((world.folder / "plant-a.jsonl").read_text().splitlines()[-1])
    false = tmp_path / "false.jsonl"
    false.write_text(json.dumps(line | {"size": 400}) + "\n" + "{}\n" + json.dumps(line) + "\n")
    report = world.audit(witnesses=[false])
    assert kinds(report) == {("plant-a", "witness-false")}
    assert report.unchecked == ["false.jsonl line 2 is no witness: 'checkpoint'"]


def test_since_leaves_out_what_came_before(world: World) -> None:
    world.tamper(f"UPDATE reading SET value = value + 1 WHERE {reading(5, 20)}")
    received = world.database.one("SELECT received FROM batch WHERE site = 1 AND sequence = 7")
    assert world.audit(since=received).findings == {}
    received = world.database.one(f"SELECT received FROM batch WHERE {BATCH}")
    assert kinds(world.audit(since=received)) == {("plant-a", "value-changed")}


@pytest.fixture
def files(world: World, tmp_path: Path) -> Path:
    (tmp_path / "ca.crt").write_text(world.authority.root.pem() + world.authority.intermediate.pem())
    public = HUB.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "checkpoint.pub").write_bytes(public)
    return tmp_path


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(world: World, files: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def work(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(
            [
                "audit",
                "verify",
                "--database",
                world.database.conninfo("energy_read"),
                "--ca",
                str(files / "ca.crt"),
                "--key",
                str(files / "checkpoint.pub"),
                *arguments,
            ]
        )
        out, err = capsys.readouterr()
        return code, out, err

    return work


def test_command_says_that_all_is_well(run: Run, world: World) -> None:
    code, out, err = run("--witness", *map(str, world.witnesses()))
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("nothing was changed; looked at 2 keys, 4 checkpoints, 34 leaves")
    assert "note: plant-b: conflict (10), from 2026-01-01T00:03:00.000Z" in out


def test_command_names_what_was_changed(run: Run, world: World) -> None:
    world.tamper(f"UPDATE reading SET value = 7 WHERE {reading(5, 20)}")
    code, out, _ = run()
    assert code == 1
    assert out.splitlines()[:3] == [
        "plant-a  value-changed  main/active_power of stream 0101010101010101 sequence 6  (1)",
        "    from 2026-01-01T00:05:20.000Z to 2026-01-01T00:05:20.000Z",
        "    main/active_power: 5.5 (quality 0) was received, 7.0 (quality 0) is stored, at 2026-01-01T00:05:20.000Z",
    ]
    code, out, _ = run("--json", "--site", "plant-a")
    document = json.loads(out)
    assert code == 1
    assert not document["clean"]
    assert document["findings"] == [
        {
            "site": "plant-a",
            "kind": "value-changed",
            "subject": "main/active_power of stream 0101010101010101 sequence 6",
            "first": "2026-01-01T00:05:20.000Z",
            "last": "2026-01-01T00:05:20.000Z",
            "count": 1,
            "detail": "main/active_power: 5.5 (quality 0) was received, 7.0 (quality 0) is stored,"
            " at 2026-01-01T00:05:20.000Z",
        }
    ]
    assert run("--site", "plant-b")[0] == 0


def test_command_says_what_it_could_not_check(run: Run, world: World, tmp_path: Path) -> None:
    code, _, err = run("--site", "plant-z")
    assert (code, err) == (2, "energy-audit: ERR cannot verify: the database knows no site plant-z\n")
    code, _, err = run("--witness", str(tmp_path / "none.jsonl"))
    assert code == 2
    assert "No such file" in err
    code, _, err = run("--database", "host=/nonexistent dbname=energy")
    assert code == 2
    assert err.count("\n") == 1
    world.tamper(f"UPDATE batch SET content = NULL WHERE {BATCH}")
    code, out, _ = run()
    assert code == 2
    assert "not checked: plant-a: stream 0101010101010101 sequence 6: its bytes are not kept" in out


def test_names_of_the_command(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/energy-audit", "verify", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "--witness" in capsys.readouterr().out


def test_leaf_is_made_of_everything_that_is_said_of_a_batch() -> None:
    one = leaves.Leaf("plant-a", bytes(8), 1, bytes(32), bytes(32), at(0), 5, False)
    others = [
        leaves.Leaf("plant-b", bytes(8), 1, bytes(32), bytes(32), at(0), 5, False),
        leaves.Leaf("plant-a", b"\1" * 8, 1, bytes(32), bytes(32), at(0), 5, False),
        leaves.Leaf("plant-a", bytes(8), 2, bytes(32), bytes(32), at(0), 5, False),
        leaves.Leaf("plant-a", bytes(8), 1, b"\1" * 32, bytes(32), at(0), 5, False),
        leaves.Leaf("plant-a", bytes(8), 1, bytes(32), b"\1" * 32, at(0), 5, False),
        leaves.Leaf("plant-a", bytes(8), 1, bytes(32), bytes(32), at(1), 5, False),
        leaves.Leaf("plant-a", bytes(8), 1, bytes(32), bytes(32), at(0), 6, False),
        leaves.Leaf("plant-a", bytes(8), 1, bytes(32), bytes(32), at(0), 5, True),
    ]
    assert len({one.hash() for one in [one, *others]}) == 9


def nothing(*_: object) -> None:
    """In place of a check."""


def grow_only(site: trees._Site, _: int, hashes: bytes) -> None:
    site.tree.append(hashes[:32])


Stub = tuple[object, str, Callable[..., object]]

TAKEN_OUT: list[tuple[str, str, list[Stub]]] = [
    ("a value", "was received, ", [(audit_readings.Readings, "_take_apart", nothing)]),
    ("a reading removed", "is not stored", [(audit_readings.Readings, "_take_apart", nothing)]),
    (
        "a reading inserted far away",
        "is not in the batch",
        [(audit_readings.Readings, "_take_apart", nothing)],
    ),
    (
        "the times of two readings swapped",
        "each other's",
        [(audit_readings.Readings, "_take_apart", nothing)],
    ),
    ("the time of a reading", "stands at", [(audit_readings.Readings, "_take_apart", nothing)]),
    (
        "a reading inserted under a batch that is not there",
        "no such batch",
        [(audit_readings.Readings, "_tell_orphans", nothing)],
    ),
    ("the unit of a point", "measured in W", [(audit_readings.Readings, "_check_unit", nothing)]),
    ("a batch removed with its readings", "came in from", [(trees._Site, "_removed", nothing)]),
    ("a batch removed with its readings", "was acknowledged", [(batches, "_check_streams", nothing)]),
    ("a batch removed with its readings", "the batch after it", [(batches._Batch, "_check_chain", nothing)]),
    ("a byte of a batch", "did not sign", [(batches._Batch, "_is_proven", lambda *_: True)]),
    ("the number of a batch", "its bytes say", [(batches._Batch, "_is_proven", lambda *_: True)]),
    ("the time of a batch's arrival", "time of arrival", [(trees._Site, "_check_batch", nothing)]),
    ("a leaf's hash", "is not what leaf", [(trees._Site, "_check_batch", nothing)]),
    ("a leaf's hash", "the nodes above it", [(trees._Site, "_grow", grow_only)]),
    ("two leaves swapped", "not those that the checkpoint", [(trees._Site, "_compare", nothing)]),
    ("the end of the tree", "the last 2 are gone", [(trees._Site, "_check_end", nothing)]),
    (
        "the mark of an unreadable batch",
        "said to be unreadable",
        [(batches._Batch, "_check_readable", nothing)],
    ),
    ("the text of a checkpoint", "does not fit its text", [(checkpoints, "_check_signature", nothing)]),
    (
        "a root that a checkpoint was signed over",
        "was signed over other trees",
        [(checkpoints, "_tell_difference", nothing)],
    ),
]


@pytest.mark.parametrize(
    ("case", "words", "stubs"), TAKEN_OUT, ids=[f"{one[0]}: {one[1]}" for one in TAKEN_OUT]
)
def test_without_its_check_a_change_goes_unseen(
    world: World, monkeypatch: pytest.MonkeyPatch, case: str, words: str, stubs: list[Stub]
) -> None:
    """So that it is this check that finds it, and the table above proves something."""

    def said() -> bool:
        return any(words in one.detail for one in world.audit().findings.values())

    world.tamper(*CASES[case][0])
    assert said()
    for owner, name, stub in stubs:
        monkeypatch.setattr(owner, name, stub)
    assert not said()


def test_every_kind_of_finding_is_tried_and_told_of() -> None:
    root = Path(__file__).resolve().parents[3]
    code = "".join(file.read_text() for file in (root / "hub/energy_hub/audit").glob("*.py"))
    kinds = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', code)) - {"energy-audit", "received-twice"}
    page = (root / "docs/how-to/verify-the-evidence.md").read_text()
    tests = "".join(
        (Path(__file__).parent / name).read_text() for name in ("test_audit.py", "test_stamps.py")
    )
    assert len(kinds) > 25
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in page] == []
    assert [kind for kind in sorted(kinds) if f'"{kind}"' not in tests] == []
