# SPDX-License-Identifier: Apache-2.0
"""Trees and checkpoints on a real database: how they grow, who may grow them, what a cut leaves."""

from __future__ import annotations

import base64
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import cli, migrate
from energy_hub.commands import tools
from energy_hub.evidence import keys, leaves, merkle, step, witness
from energy_hub.evidence.checkpoint import Checkpoint, CheckpointError, SiteTree, fleet_root, site_leaf
from energy_hub.evidence.step import Done, StepError
from energy_hub.store import Store

from . import checkpoint_vectors
from .conftest import Database
from .test_store import START, commit, known, readings

KEY = Ed25519PrivateKey.generate()


def take(database: Database, now: datetime | None = None) -> Done:
    with database.connect("energy_ingest") as connection:
        done = step.run(connection, KEY, now)
    assert done is not None
    return done


def fill(store: Store, site: str, count: int) -> None:
    gateway = known(store, site)
    for number in range(count):
        commit(store, site, gateway.batch(readings(start=START + 60_000 * number)))


def recomputed(database: Database, site: str) -> list[bytes]:
    """Hashes of a site's leaves, from table batch alone."""
    return [
        leaves.Leaf(site, stream, sequence, digest, key, received, count, quarantined).hash()  # type: ignore[arg-type]  # rows are object
        for stream, sequence, digest, key, received, count, quarantined in database.rows(
            "SELECT b.stream, b.sequence, b.digest, k.public, b.received, b.readings, b.quarantined FROM batch b"
            " JOIN site s ON s.id = b.site JOIN site_key k ON k.id = b.key WHERE s.name = %s ORDER BY b.id",
            site,
        )
    ]


def test_trees_grow_with_what_is_committed(database: Database, store: Store) -> None:
    fill(store, "plant-a", 5)
    first = take(database)
    assert (first.number, first.leaves, first.sites) == (1, 5, 1)
    fill(store, "plant-b", 3)
    second = take(database)
    assert (second.number, second.leaves, second.sites) == (2, 3, 2)
    third = take(database)
    assert (third.number, third.leaves, third.sites) == (3, 0, 2)
    trees = {
        site: SiteTree(len(recomputed(database, site)), merkle.root(recomputed(database, site)))
        for site in ("plant-a", "plant-b")
    }
    assert second.checkpoint.body().root == third.checkpoint.body().root == fleet_root(trees)
    assert third.checkpoint.body().previous == second.checkpoint.digest
    assert third.checkpoint.is_signed()
    assert database.rows("SELECT checkpoint, size FROM checkpoint_site ORDER BY 1, site") == [(1, 5), (2, 3)]
    assert database.one("SELECT count(*) FROM leaf_due") == 0


def test_every_kept_node_is_right(database: Database, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """In slices, so that the right edge is read back from the table again and again."""
    monkeypatch.setattr(leaves, "SLICE", 3)
    gateway = known(store, "plant-a")
    for number in range(37):
        commit(store, "plant-a", gateway.batch(readings(start=START + 60_000 * number)))
        if number in (3, 4, 20):
            take(database)
    take(database)
    hashes = recomputed(database, "plant-a")
    with database.connect("energy_read") as connection:
        node = leaves.Nodes(connection, 1)
        for old in range(1, 38):
            path = merkle.consistency_path(old, 37, node)
            assert merkle.is_consistent(old, merkle.root(hashes[:old]), 37, merkle.root(hashes), path)
        for number in range(37):
            found = merkle.inclusion_path(number, 37, node)
            assert merkle.root_from_inclusion(hashes[number], number, 37, found) == merkle.root(hashes)
        with pytest.raises(LookupError):
            node(0, 37)


def test_a_duplicate_is_no_second_leaf(database: Database, store: Store) -> None:
    gateway = known(store, "plant-a")
    payload = gateway.batch(readings())
    commit(store, "plant-a", payload)
    commit(store, "plant-a", payload, payload)
    assert take(database).leaves == 1


def test_a_batch_that_is_being_committed_comes_with_the_next_one(database: Database, store: Store) -> None:
    """Its number is lower than one that is committed already."""
    gateway, other = known(store, "plant-a"), known(store, "plant-b")
    with database.connect("energy_ingest") as slow, slow.transaction():
        slow.execute(
            "WITH b AS (INSERT INTO batch (site, stream, sequence, digest, previous, signature, key, size,"
            " readings, content, chain) SELECT site, '\\x0000000000000009', 1, digest('x'), digest('x'), %s, id, 1, 0,"
            " 'x', 1 FROM site_key LIMIT 1 RETURNING id) INSERT INTO leaf_due SELECT id FROM b".replace(
                "digest('x')", "decode(repeat('00', 32), 'hex')"
            ),
            (bytes(64),),
        )
        commit(store, "plant-a", gateway.batch(readings()))
        commit(store, "plant-b", other.batch(readings()))
        assert take(database).leaves == 2
    assert take(database).leaves == 1
    assert database.rows("SELECT number, batch FROM leaf WHERE site = 1 ORDER BY number") == [(0, 2), (1, 1)]


def test_two_steps_at_once_make_one(database: Database, store: Store) -> None:
    fill(store, "plant-a", 40)

    def work(_: int) -> Done | None:
        with database.connect("energy_ingest") as connection:
            return step.run(connection, KEY)

    with ThreadPoolExecutor(4) as pool:
        done = [one for one in pool.map(work, range(8)) if one is not None]
    assert sum(one.leaves for one in done) == 40
    assert database.one("SELECT count(*) FROM checkpoint") == len(done)
    assert database.rows("SELECT min(number), max(number), count(*) FROM leaf") == [(0, 39, 40)]


def test_a_step_that_is_cut_goes_on_where_it_was(
    database: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaves, "SLICE", 4)
    fill(store, "plant-a", 10)
    append, calls = leaves.append, iter(range(9))

    def cut(*arguments: object) -> None:
        append(*arguments)  # type: ignore[arg-type]  # rows are object
        if next(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(leaves, "append", cut)
    with pytest.raises(KeyboardInterrupt):
        take(database)
    assert database.one("SELECT count(*) FROM leaf") == 4
    assert database.one("SELECT count(*) FROM leaf_due") == 6
    assert take(database).leaves == 6
    assert merkle.root(recomputed(database, "plant-a")) == database.one("SELECT root FROM checkpoint_site")


def test_clock_that_was_set_back_does_not_turn_time_round(database: Database, store: Store) -> None:
    fill(store, "plant-a", 1)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    take(database, now)
    assert take(database, now - timedelta(days=1)).checkpoint.body().time == now


def test_a_batch_that_was_removed_before_it_came_into_a_tree_is_kept_as_evidence_and_told(
    database: Database, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "checkpoint.key"
    assert cli.main(["checkpoint-key", "--key", str(key)]) == tools.OK
    fill(store, "plant-a", 4)
    fill(store, "plant-b", 1)
    with database.connect() as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("DELETE FROM batch WHERE sequence IN (2, 3)")
    command = ["checkpoint", "--database", database.conninfo("energy_ingest"), "--key", str(key)]
    assert cli.main(command) == tools.FAILED
    out = capsys.readouterr().out
    assert "ERR evidence: site plant-a: 2 batches were removed before they came into a tree" in out
    assert "sequence 2, which came in at " in out
    # What is there is signed nevertheless.
    assert "checkpoint 1: 3 batches came into the trees of 2 sites" in out
    kept = database.rows(
        "SELECT s.name, e.kind, e.sequence, e.stream FROM evidence e JOIN site s ON s.id = e.site ORDER BY e.id"
    )
    stream = database.one("SELECT stream FROM batch WHERE site = 1 LIMIT 1")
    assert kept == [("plant-a", "batch-removed", number, stream) for number in (2, 3)]
    assert database.one("SELECT count(*) FROM leaf_due") == 0
    # It is told once; the evidence stays.
    assert cli.main(command) == tools.OK
    assert "ERR evidence" not in capsys.readouterr().out
    assert len(database.rows("SELECT FROM evidence")) == 2


def test_a_removed_batch_stays_due_when_it_cannot_be_kept_as_evidence(
    database: Database, store: Store
) -> None:
    fill(store, "plant-a", 2)
    with database.connect() as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("DELETE FROM batch WHERE sequence = 2")
        owner.execute("REVOKE INSERT ON evidence FROM energy_ingest")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            take(database)
        assert database.one("SELECT count(*) FROM leaf_due") == 1
        owner.execute("GRANT INSERT ON evidence TO energy_ingest")
    assert take(database).missing == 1
    assert database.one("SELECT count(*) FROM leaf_due") == 0


def test_a_batch_whose_key_is_gone_stays_due(
    database: Database, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store, "plant-a", 2)
    with database.connect() as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE batch SET key = key + 100 WHERE sequence = 2")
        done = take(database)
        assert (done.leaves, done.missing) == (1, 1)
        assert "1 batches that are due for a tree have no site or no key any more: numbers 2" in caplog.text
        owner.execute("UPDATE batch SET key = key - 100 WHERE sequence = 2")
    done = take(database)
    assert (done.leaves, done.missing) == (1, 0)


def test_what_is_due_when_the_schema_is_brought_up_says_whose_it_is(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = migrate.shipped()
    with empty_database.connect("energy_migrate") as connection:
        monkeypatch.setattr(migrate, "shipped", lambda: [one for one in every if one.number < 61])
        list(migrate.apply(connection))
        connection.execute("INSERT INTO site (name) VALUES ('plant-a')")
        connection.execute(
            "INSERT INTO site_key (site, public, statement, certificate, fingerprint, not_after)"
            " VALUES (1, decode(repeat('01', 32), 'hex'), 's', 'c', 'f', '2030-01-01Z')"
        )
        connection.execute(
            "INSERT INTO batch (site, stream, sequence, digest, previous, signature, key, size, readings, chain)"
            " VALUES (1, '\\x0102030405060708', 7, decode(repeat('01', 32), 'hex'), decode(repeat('00', 32), 'hex'),"
            " decode(repeat('01', 64), 'hex'), 1, 0, 0, 1)"
        )
        # The second one was removed before.
        connection.execute("INSERT INTO leaf_due (batch) VALUES (1), (2)")
        monkeypatch.setattr(migrate, "shipped", lambda: every)
        list(migrate.apply(connection))
        rows = connection.execute(
            "SELECT d.batch, d.site, d.stream, d.sequence, d.received = b.received FROM leaf_due d"
            " LEFT JOIN batch b ON b.id = d.batch ORDER BY d.batch"
        ).fetchall()
    assert rows == [(1, 1, b"\1\2\3\4\5\6\7\x08", 7, True), (2, None, None, None, None)]


def test_nothing_is_signed_over_a_tail_that_is_gone(database: Database, store: Store) -> None:
    fill(store, "plant-a", 6)
    take(database)
    with database.connect() as owner:
        owner.execute("DELETE FROM leaf WHERE number >= 4")
    with pytest.raises(StepError, match="plant-a: its tree has 4 leaves, checkpoints were signed for 6"):
        take(database)
    assert database.one("SELECT count(*) FROM checkpoint") == 1


def test_ingest_may_add_evidence_and_nothing_else(database: Database, store: Store) -> None:
    fill(store, "plant-a", 1)
    take(database)
    with database.connect("energy_ingest") as connection:
        for statement in (
            "DELETE FROM leaf",
            "UPDATE leaf SET hashes = hashes",
            "DELETE FROM checkpoint",
            "UPDATE checkpoint SET body = body",
            "UPDATE checkpoint_site SET root = root",
            "DELETE FROM checkpoint_stamp",
            "TRUNCATE leaf_due",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
    with database.connect("energy_read") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DELETE FROM leaf_due")


def test_witness_proves_itself_and_what_was_before(database: Database, store: Store) -> None:
    for number, site in enumerate(("plant-a", "plant-b", "plant-c")):
        fill(store, site, 3 + number)
    take(database)
    store.set_status("plant-b", "online", {"witness": {"number": 1, "size": 4}}, seen=True)
    with database.connect("energy_read") as connection:
        before = {site: json.loads(payload) for site, payload in witness.messages(connection)}
    assert "since" not in before["plant-b"]
    gateway = known(store, "plant-b")
    gateway.stream = b"\x02" * 8
    commit(store, "plant-b", *[gateway.batch(readings(start=START + 10**7 * n)) for n in range(1, 6)])
    take(database)
    with database.connect("energy_read") as connection:
        after = {site: json.loads(payload) for site, payload in witness.messages(connection)}
    assert sorted(after) == ["plant-a", "plant-b", "plant-c"]
    for site, document in after.items():
        checkpoint = Checkpoint(
            document["checkpoint"],
            base64.b64decode(document["signature"]),
            base64.b64decode(document["key"]),
        )
        assert checkpoint.is_signed()
        body = checkpoint.body()
        tree = SiteTree(document["size"], bytes.fromhex(document["root"]))
        path = [bytes.fromhex(one) for one in document["path"]]
        found = merkle.root_from_inclusion(site_leaf(site, tree), document["index"], body.sites, path)
        assert found == body.root
    one = after["plant-b"]
    assert one["since"]["size"] == 4
    assert merkle.is_consistent(
        4,
        bytes.fromhex(before["plant-b"]["root"]),
        one["size"],
        bytes.fromhex(one["root"]),
        [bytes.fromhex(hash_) for hash_ in one["since"]["path"]],
    )
    assert "since" not in after["plant-a"]


def test_command_signs_with_a_key_that_was_made_here(
    database: Database, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "checkpoint.key"
    assert cli.main(["checkpoint-key", "--key", str(key)]) == tools.OK
    identity = keys.key_id(keys.load_public(tmp_path / "checkpoint.pub"))
    assert capsys.readouterr().out == f"made {key}, key id {identity}\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    made = key.read_bytes()
    assert cli.main(["checkpoint-key", "--key", str(key)]) == tools.OK
    assert (key.read_bytes(), capsys.readouterr().out) == (made, "")
    fill(store, "plant-a", 2)
    command = ["checkpoint", "--database", database.conninfo("energy_ingest"), "--key", str(key)]
    assert cli.main(command) == tools.OK
    assert "checkpoint 1: 2 batches came into the trees of 1 sites" in capsys.readouterr().out
    assert f"key {identity}\n" in str(database.one("SELECT body FROM checkpoint"))
    key.chmod(0o640)
    assert cli.main(command) == tools.FAILED
    assert "others may read this private key" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        ("number 1", "number 01"),
        ("Z\n", "+00:00\n"),
        ("sites", "site"),
        ("v1", "v2"),
        ("key ", "key  "),
        ("01T", "32T"),
    ],
)
def test_a_text_that_is_nearly_a_checkpoint_is_none(change: tuple[str, str]) -> None:
    good = (
        "energy/v1/checkpoint\nnumber 1\ntime 2026-01-01T00:00:00.000Z\n"
        f"previous {'0' * 64}\nsites 0\nroot {'1' * 64}\nkey {'2' * 16}\n"
    )
    assert Checkpoint(good, b"", b"").body().text() == good
    with pytest.raises(CheckpointError):
        Checkpoint(good.replace(*change), b"", b"").body()
    with pytest.raises(CheckpointError):
        Checkpoint(good + "more\n", b"", b"").body()


def test_published_example_is_what_the_format_gives() -> None:
    assert checkpoint_vectors.FILE.read_text() == checkpoint_vectors.text()
