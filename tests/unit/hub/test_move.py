# SPDX-License-Identifier: Apache-2.0
"""A site is moved from one real database to another, and nothing of it is lost, doubled or without proof."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import description, move, rollup
from energy_hub.audit.context import Scope
from energy_hub.audit.verify import verify
from energy_hub.config import Databases
from energy_hub.description import DescriptionError
from energy_hub.evidence import step, witness
from energy_hub.evidence.step import Shard
from energy_hub.move import MoveError, move_site, purge_site
from energy_hub.pipeline import examine
from energy_hub.shards import Directory, ShardStore
from energy_hub.store import ElsewhereError, Signed
from energy_hub.trust import TrustedKey

from .authority import Authority
from .conftest import IN_SCHEMAS_TOO, Shards
from .writer import Gateway, Reading

START = 1_767_225_600_000
HOUR = 3_600_000
KEY = Ed25519PrivateKey.generate()
SITE = "plant-a"
# What is the same wherever a site lives, by names in place of numbers.
OF_A_SITE = {
    "reading": "SELECT p.name, r.time, r.value, r.quality, b.stream, b.sequence FROM reading r"
    " JOIN point p ON p.id = r.point JOIN batch b ON b.id = r.batch JOIN site s ON s.id = p.site",
    "batch": "SELECT b.stream, b.sequence, b.digest, b.previous, b.signature, k.public, b.size, b.readings, b.received,"
    " b.chain, b.quarantined, b.content FROM batch b JOIN site_key k ON k.id = b.key JOIN site s ON s.id = b.site",
    "leaf": "SELECT l.number, l.stream, l.sequence, l.received, l.hashes, b.digest FROM leaf l"
    " JOIN batch b ON b.id = l.batch JOIN site s ON s.id = l.site",
    "stream": "SELECT t.stream, t.committed FROM stream t JOIN site s ON s.id = t.site",
    "conflict": "SELECT p.name, c.time, c.first_value, c.second_value, f.sequence, b.sequence FROM conflict c"
    " JOIN point p ON p.id = c.point JOIN site s ON s.id = p.site JOIN batch f ON f.id = c.first_batch"
    " JOIN batch b ON b.id = c.second_batch",
    "evidence": "SELECT e.kind, e.stream, e.sequence, e.detail FROM evidence e JOIN site s ON s.id = e.site",
    "unit": "SELECT p.name, u.since, u.unit FROM point_unit u JOIN point p ON p.id = u.point"
    " JOIN site s ON s.id = p.site",
    "quarantine": "SELECT q.digest, q.reason, q.signed, q.content FROM quarantine q"
    " JOIN site s ON s.name = q.topic_site",
    "description": "SELECT d.since, d.digest FROM site_description d JOIN site s ON s.name = d.site",
} | {
    f"rollup_{level}": f"SELECT p.name, {move._FIGURES} FROM rollup_{level} r JOIN point p ON p.id = r.point"
    " JOIN site s ON s.id = p.site"
    for level in move.LEVELS
}


class Cut(BaseException):
    """The process is killed here."""


class Plant:
    """A site, and what it delivers to wherever it lives."""

    def __init__(self, shards: Shards, site: str = SITE) -> None:
        self.site = site
        self.shards = shards
        self.databases = Databases(shards.config()["databases"], "north")
        self.gateway = Gateway(site, Ed25519PrivateKey.generate())
        self.certificate = Authority().client(site).pem()
        self.hour = 0
        self.noise = random.Random(7)
        self.sent = 0

    def store(self, name: str) -> ShardStore:
        directory = Directory(self.databases.conninfo("north", "energy_ingest"), ["north", "south"])
        return ShardStore(name, self.databases.conninfo(name, "energy_ingest"), directory)

    def trust(self, store: ShardStore) -> None:
        key = TrustedKey(self.gateway.public, b"s", self.certificate, b"f", datetime(2030, 1, 1, tzinfo=UTC))
        store.trust(self.site, key)

    def next(self) -> bytes:
        """An hour by the minute."""
        self.hour += 1
        start = START + self.hour * HOUR
        points: dict[str, list[Reading]] = {
            point: [(start + 60_000 * n, round(self.noise.uniform(0, 1e4), 2), 0) for n in range(60)]
            for point in ("main/active_power", "main/voltage_l1")
        }
        return self.gateway.batch(points)

    def deliver(self, count: int, name: str | None = None) -> None:
        name = name or str(self.shards.homes()[self.site])
        store = self.store(name)
        for _ in range(count):
            self.commit(store, self.next())
        store.close()

    def commit(self, store: ShardStore, payload: bytes) -> None:
        signed = examine(store, self.site, payload, 1_000_000)
        assert isinstance(signed, Signed), signed
        store.commit([signed])
        self.sent += signed.body.readings if signed.body else 0

    def checkpoint(self) -> None:
        homes = self.shards.homes()
        with (
            self.shards.databases["north"].connect("energy_ingest") as north,
            self.shards.databases["south"].connect("energy_ingest") as south,
        ):
            parts = [
                Shard(one, frozenset(str(site) for site, home in homes.items() if home == name))
                for name, one in (("north", north), ("south", south))
            ]
            assert step.run(north, KEY, shards=parts)

    def roll_up(self, name: str) -> None:
        with self.shards.databases[name].connect("energy_rollup") as connection:
            connection.execute("SET timezone = 'UTC'")
            while rollup.step(connection):
                pass

    def verify(self) -> list[str]:
        homes = self.shards.homes()
        public = KEY.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        with (
            self.shards.databases["north"].connect("energy_read") as north,
            self.shards.databases["south"].connect("energy_read") as south,
        ):
            parts = [
                Shard(one, frozenset(str(site) for site, home in homes.items() if home == name))
                for name, one in (("north", north), ("south", south))
            ]
            report = verify(north, Scope(keys=frozenset([public])), shards=parts)
        assert report.checked["readings"] == self.sent
        return [f"{one.kind}: {one.detail}" for one in report.findings.values()]

    def contents(self, name: str) -> dict[str, list[tuple[object, ...]]]:
        database = self.shards.databases[name]
        return {
            what: sorted(database.rows(f"{query} WHERE s.name = '{self.site}'"), key=repr)
            for what, query in OF_A_SITE.items()
        }

    def move(self, to: str) -> list[str]:
        lines: list[str] = []
        move_site(self.databases, self.site, to, lines.append)
        return lines

    def recounted(self, name: str) -> dict[str, list[tuple[object, ...]]]:
        """The rollups, counted anew from all readings."""
        with self.shards.databases[name].connect() as connection:
            for level in move.LEVELS:
                connection.execute(f"DELETE FROM rollup_{level}")
            connection.execute(
                "INSERT INTO touched SELECT batch, min(time), max(time) FROM reading GROUP BY batch"
            )
        self.roll_up(name)
        return {what: rows for what, rows in self.contents(name).items() if what.startswith("rollup")}


@pytest.fixture
def plant(shards: Shards) -> Iterator[Plant]:
    """With all that a site can have: a conflict, a fork, a gap, what cannot be read, rollups that are behind."""
    one = Plant(shards)
    store = one.store("north")
    one.trust(store)
    for _ in range(6):
        one.commit(store, one.next())
    one.checkpoint()
    one.roll_up("north")
    missing = one.next()
    one.commit(store, one.next())
    one.commit(store, one.gateway.seal(b"\x07nonsense"))
    again: dict[str, list[Reading]] = {"main/active_power": [(START + 1, 2.0, 0), (START + HOUR, 1.5, 0)]}
    one.commit(store, one.gateway.batch(again, unit="kW"))
    store.quarantine(SITE, b"WFB1", "is no batch")
    one.checkpoint()
    one.commit(store, one.next())
    one.commit(store, missing)
    with shards.databases["north"].connect("energy_ingest") as connection:
        connection.execute(
            "INSERT INTO site_description (site, since, digest, content) VALUES"
            " ('plant-a', '2026-01-01Z', sha256('x'), '{\"timezone\": \"Europe/Berlin\"}')"
        )
    store.close()
    assert one.shards.homes() == {SITE: "north"}
    return one


@IN_SCHEMAS_TOO
def test_everything_is_the_same_in_the_new_database(plant: Plant) -> None:
    before = plant.contents("north")
    assert not [what for what in before if not before[what]]
    findings = plant.verify()
    assert plant.move("south")[-1] == "plant-a lives in south"
    assert plant.shards.homes() == {SITE: "south"}
    after = plant.contents("south")
    assert {what: len(rows) for what, rows in after.items()} == {
        what: len(rows) for what, rows in before.items()
    }
    assert after == before
    assert plant.verify() == findings == []


@IN_SCHEMAS_TOO
def test_what_was_not_counted_is_counted_in_the_new_database(plant: Plant) -> None:
    plant.move("south")
    plant.deliver(2)
    plant.roll_up("south")
    found = {what: rows for what, rows in plant.contents("south").items() if what.startswith("rollup")}
    # A day's zone is that of the description, which came after the first count in the old one.
    with plant.shards.databases["south"].connect("energy_rollup") as connection:
        connection.execute("SET timezone = 'UTC'")
        rollup.moved_zones(connection)
    found["rollup_day"] = plant.contents("south")["rollup_day"]
    assert found == plant.recounted("south")


@IN_SCHEMAS_TOO
def test_its_tree_and_the_fleets_checkpoints_go_on(plant: Plant) -> None:
    plant.move("south")
    plant.deliver(3)
    plant.checkpoint()
    assert plant.verify() == []
    assert plant.shards.databases["south"].one("SELECT count(*) FROM leaf_due") == 0
    # Those that were due when it left are leaves of the new database alone.
    assert plant.shards.databases["north"].one("SELECT count(*) FROM leaf_due") == 2
    with (
        plant.shards.databases["north"].connect() as north,
        plant.shards.databases["south"].connect() as south,
    ):
        assert not list(witness.messages(north, north))
        assert [site for site, _ in witness.messages(north, south)] == [SITE]


def test_what_was_removed_before_it_came_into_a_tree_comes_along_as_evidence(plant: Plant) -> None:
    north, south = plant.shards.databases["north"], plant.shards.databases["south"]
    removal = (
        "DELETE FROM batch WHERE id = (SELECT max(d.batch) FROM leaf_due d JOIN batch b ON b.id = d.batch)"
        " RETURNING stream, sequence"
    )
    with north.connect() as owner:
        owner.execute("SET session_replication_role = replica")
        removed = owner.execute(removal).fetchone()
    plant.move("south")
    kept = "SELECT stream, sequence FROM evidence WHERE kind = 'batch-removed'"
    assert north.rows(kept) == south.rows(kept) == [removed]
    # What is due in the new database says there, too, whose it is.
    with south.connect() as owner:
        owner.execute("SET session_replication_role = replica")
        gone = owner.execute(removal).fetchone()
    plant.checkpoint()
    assert south.rows(f"{kept} ORDER BY id") == [removed, gone]
    # A copy that somebody has taken a batch from is purged as a whole.
    with north.connect() as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(removal)
    purge_site(plant.databases, SITE, print)
    assert north.one("SELECT count(*) FROM leaf_due") == 0


@IN_SCHEMAS_TOO
def test_a_worker_that_comes_too_late_is_refused(plant: Plant) -> None:
    store = plant.store("north")
    signed = examine(store, SITE, plant.next(), 1_000_000)
    assert isinstance(signed, Signed)
    plant.move("south")
    with pytest.raises(ElsewhereError):
        store.commit([signed])
    with pytest.raises(ElsewhereError):
        store.set_status(SITE, "online", {}, seen=True)
    with pytest.raises(ElsewhereError):
        store.quarantine(SITE, b"x", "is no batch")
    store.close()


@IN_SCHEMAS_TOO
def test_a_description_does_not_come_to_what_a_site_has_left(plant: Plant) -> None:
    plant.move("south")
    content = {SITE: {"timezone": "UTC"}}
    with (
        plant.shards.databases["north"].connect("energy_ingest") as connection,
        pytest.raises(DescriptionError, match="plant-a is on its way to another database"),
    ):
        description.keep(connection, content, datetime.now(UTC))
    with plant.shards.databases["south"].connect("energy_ingest") as connection:
        assert description.keep(connection, content, datetime.now(UTC)) == [SITE]


@IN_SCHEMAS_TOO
def test_it_may_come_back_to_a_copy_that_was_kept(plant: Plant) -> None:
    plant.move("south")
    plant.deliver(3)
    plant.checkpoint()
    plant.deliver(1)
    before = plant.contents("south")
    plant.move("north")
    assert plant.contents("north") == before
    plant.deliver(1)
    plant.checkpoint()
    assert plant.verify() == []


@IN_SCHEMAS_TOO
def test_purge_deletes_what_is_elsewhere_and_nothing_else(plant: Plant) -> None:
    with pytest.raises(MoveError, match="the directory knows no site plant-x"):
        purge_site(plant.databases, "plant-x", print)
    plant.move("south")
    lines: list[str] = []
    before = plant.contents("south")
    purge_site(plant.databases, SITE, lines.append)
    assert lines == ["the copy of plant-a in north is deleted"]
    north = plant.shards.databases["north"]
    for table in (
        "site",
        "batch",
        "reading",
        "leaf",
        "leaf_due",
        "touched",
        "rollup_minute",
        "quarantine",
        "conflict",
    ):
        assert north.one(f"SELECT count(*) FROM {table}") == 0, table
    assert north.one("SELECT count(*) FROM checkpoint") == 2
    assert plant.contents("south") == before
    plant.checkpoint()
    assert plant.verify() == []
    # And back to where nothing is left of it.
    plant.move("north")
    assert plant.contents("north") == before | {"leaf": plant.contents("north")["leaf"]}
    assert plant.verify() == []


@IN_SCHEMAS_TOO
def test_data_flows_while_it_is_copied(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two passes, and during one."""
    copy = move._Move._copy_leaves
    passes = 0

    def copy_and_more(self: move._Move) -> None:
        nonlocal passes
        passes += 1
        copy(self)
        if passes < 4:
            plant.deliver(25 if passes == 1 else 1)
        if passes == 2:
            plant.roll_up("north")
            plant.checkpoint()

    monkeypatch.setattr(move._Move, "_copy_leaves", copy_and_more)
    plant.move("south")
    assert passes == 4
    assert plant.contents("south")["batch"] == plant.contents("north")["batch"]
    plant.roll_up("south")
    found = {what: rows for what, rows in plant.contents("south").items() if what.startswith("rollup")}
    found["rollup_day"] = plant.recounted("south")["rollup_day"]
    assert found == plant.recounted("south")
    plant.checkpoint()
    assert plant.verify() == []


STEPS = [
    ("_prepare", 0, "north"), ("_copy_rollups", 0, "north"), ("_copy_batches", 0, "north"),
    ("_copy_batches", 1, "north"), ("_copy_leaves", 0, "north"), ("_copy_leaves", 1, "north"),
    ("_copy_rest", 0, "north"), ("_check", 0, "north"), ("_switch", 0, "south"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("step_", "calls", "home"), STEPS, ids=[f"{name}-{calls}" for name, calls, _ in STEPS]
)
def test_cut_off_at_any_step_one_of_the_two_is_right(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, step_: str, calls: int, home: str
) -> None:
    """Nothing of the mover runs after the cut, as after kill -9: its connections end, and that is all."""
    done = getattr(move._Move, step_)
    left = calls

    def cut(self: move._Move, *args: object, **more: object) -> object:
        nonlocal left
        found = done(self, *args, **more)
        left -= 1
        if left < 0:
            raise Cut
        return found

    monkeypatch.setattr(move, "BATCHES", 4)
    with monkeypatch.context() as broken:
        broken.setattr(move._Move, step_, cut)
        broken.setattr(move._Move, "_undo", lambda _: None)
        with pytest.raises(Cut):
            plant.move("south")
    assert plant.shards.homes() == {SITE: home}
    # The next worker that has something of the site finds it open, or opens it.
    plant.deliver(2)
    plant.checkpoint()
    before = plant.contents(home)
    plant.move("south")
    assert {what: rows for what, rows in plant.contents("south").items() if "rollup" not in what} == {
        what: rows for what, rows in before.items() if "rollup" not in what
    }
    plant.roll_up("south")
    found = {what: rows for what, rows in plant.contents("south").items() if what.startswith("rollup")}
    found["rollup_day"] = plant.recounted("south")["rollup_day"]
    assert found == plant.recounted("south")
    assert plant.verify() == []


def test_two_do_not_move_one_site(plant: Plant) -> None:
    with plant.shards.databases["north"].connect() as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('energy.move.plant-a', 0))")
        with pytest.raises(MoveError, match="plant-a is being moved by another process"):
            plant.move("south")
    with pytest.raises(MoveError, match="no database east: expected one of north, south"):
        plant.move("east")


@IN_SCHEMAS_TOO
def test_a_failure_behind_the_fence_opens_the_site_again(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise psycopg.OperationalError("away")

    monkeypatch.setattr(move._Move, "_copy_rest", fail)
    with pytest.raises(psycopg.OperationalError):
        plant.move("south")
    assert plant.shards.databases["north"].rows("SELECT here FROM site") == [(True,)]
    assert plant.shards.homes() == {SITE: "north"}


@IN_SCHEMAS_TOO
def test_a_copy_that_is_not_whole_is_not_switched_to(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative control of the check: a leaf is left out."""
    copy = move._Move._copy_leaves

    def forget(self: move._Move) -> None:
        copy(self)
        self.target.execute("DELETE FROM leaf WHERE number = 0")

    monkeypatch.setattr(move._Move, "_copy_leaves", forget)
    with pytest.raises(MoveError, match="is not whole: leaf: "):
        plant.move("south")
    assert plant.shards.homes() == {SITE: "north"}


def test_a_database_that_vanishes_does_not_keep_a_site_for_long(plant: Plant) -> None:
    with move.connections(plant.databases, ["north", "south"]) as found:
        for one in found.values():
            parameters = one.info.get_parameters()
            assert (parameters["tcp_user_timeout"], parameters["keepalives_idle"]) == ("30000", "10")
