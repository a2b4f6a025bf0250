# SPDX-License-Identifier: Apache-2.0
"""What a commit leaves in a real database, fault by fault."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from energy_hub import store as store_module
from energy_hub.pipeline import Unreadable, Untrusted, examine
from energy_hub.store import Committed, Signed, Store, StreamKey
from energy_hub.trust import TrustedKey

from .authority import Authority, Identity
from .conftest import Cluster, Database, running_cluster
from .writer import Gateway, Reading, string

START = 1_767_225_600_000
LIMIT = 1_048_576
CLIENT = Authority().client("plant-a")


@pytest.fixture
def gateway(store: Store) -> Gateway:
    return known(store, "plant-a")


def vouched(public: bytes, by: Identity) -> TrustedKey:
    return TrustedKey(
        public, b"statement", by.pem(), by.certificate.fingerprint(SHA256()), datetime(2030, 1, 1, tzinfo=UTC)
    )


def known(store: Store, site: str) -> Gateway:
    gateway = Gateway(site, Ed25519PrivateKey.generate())
    store.trust(site, vouched(gateway.public, CLIENT))
    return gateway


def readings(count: int = 3, start: int = START, value: float = 1.0) -> dict[str, list[Reading]]:
    return {"main/active_power": [(start + 1000 * n, value + n, 0) for n in range(count)]}


def signed(store: Store, site: str, payload: bytes) -> Signed:
    one = examine(store, site, payload, LIMIT)
    assert isinstance(one, Signed)
    return one


def commit(store: Store, site: str, *payloads: bytes) -> Committed:
    return store.commit([signed(store, site, payload) for payload in payloads])


def stored(database: Database) -> list[tuple[object, ...]]:
    return database.rows("SELECT point, time, value, quality FROM measurement ORDER BY point, time")


def ranges(store: Store, gateway: Gateway) -> list[tuple[int, int]]:
    return store.committed(StreamKey(gateway.site, gateway.stream))


def test_readings_arrive_as_they_were(database: Database, store: Store, gateway: Gateway) -> None:
    commit(
        store,
        "plant-a",
        gateway.batch({"m/p": [(START + 123, 1.5, 0), (START + 456, None, 129), (START + 789, -2.25, 66)]}),
    )
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert database.rows("SELECT site, point, time, value, quality, unit FROM measurement ORDER BY time") == [
        ("plant-a", "m/p", moment.replace(microsecond=123_000), 1.5, 0, "W"),
        ("plant-a", "m/p", moment.replace(microsecond=456_000), None, 129, "W"),
        ("plant-a", "m/p", moment.replace(microsecond=789_000), -2.25, 66, "W"),
    ]
    assert ranges(store, gateway) == [(1, 1)]
    assert database.rows("SELECT tableoid::regclass::text, count(*) FROM reading GROUP BY 1") == [
        ("reading_2026_01", 3)
    ]


def test_duplicate_is_acknowledged_and_changes_nothing(
    database: Database, store: Store, gateway: Gateway
) -> None:
    payload = gateway.batch(readings())
    commit(store, "plant-a", payload)
    before = stored(database)
    result = store.commit([signed(store, "plant-a", payload), signed(store, "plant-a", payload)])
    assert (result.batches, result.readings, result.duplicates) == (0, 0, 2)
    assert result.streams == {StreamKey("plant-a", gateway.stream): [(1, 1)]}
    assert stored(database) == before
    assert database.one("SELECT count(*) FROM evidence") == 0


def test_same_batch_twice_in_one_group(database: Database, store: Store, gateway: Gateway) -> None:
    payload = gateway.batch(readings())
    result = store.commit([signed(store, "plant-a", payload)] * 2)
    assert (result.batches, result.readings, result.duplicates) == (1, 3, 1)
    assert len(stored(database)) == 3


def test_conflict_keeps_the_first_and_records_the_second(
    database: Database, store: Store, gateway: Gateway
) -> None:
    first, second = (
        gateway.batch(readings(3)),
        gateway.batch(readings(4, value=1.0) | {"m/x": [(START, 1.0, 0)]}),
    )
    third = gateway.batch({"main/active_power": [(START, 99.0, 0), (START + 1000, None, 129)]})
    commit(store, "plant-a", first)
    commit(store, "plant-a", second)
    assert database.one("SELECT count(*) FROM conflict") == 0
    commit(store, "plant-a", third)
    assert len(stored(database)) == 5
    assert database.rows(
        "SELECT first_value, second_value, second_quality, f.sequence, s.sequence FROM conflict c"
        " JOIN batch f ON f.id = c.first_batch JOIN batch s ON s.id = c.second_batch ORDER BY time"
    ) == [(1.0, 99.0, 0, 1, 3), (2.0, None, 129, 1, 3)]
    old, new = (hashlib.sha256(payload).hexdigest()[:16] for payload in (first, third))
    detail = (
        "2 readings differ from those stored first, for instance main/active_power at 2026-01-01T00:00:00+00:00:"
        f" stored with batch {old}..., then came batch {new}..."
    )
    assert database.rows("SELECT kind, sequence, detail FROM evidence") == [("conflict", 3, detail)]
    assert ranges(store, gateway) == [(1, 3)]


@pytest.mark.parametrize(
    ("text", "goes_on"),
    [
        ('duplicate key value violates unique constraint "reading_2026_01_pkey_102045"', True),
        ("doppelter Schlüsselwert verletzt Unique-Constraint »reading_default_pkey_102008«", True),
        ('new row for relation "reading_2026_01_102045" violates check constraint "reading_check"', False),
        ('duplicate key value violates unique constraint "batch_pkey_102011"', False),
    ],
)
def test_a_key_that_a_node_of_citus_has_already_is_no_failure(
    database: Database, store: Store, gateway: Gateway, text: str, goes_on: bool
) -> None:
    """It tells of it as an internal error, when COPY meets it; of everything else as well."""
    commit(store, "plant-a", gateway.batch(readings(2)))
    with database.connect() as owner:
        owner.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF current_query() LIKE 'COPY%' THEN"
            f" RAISE EXCEPTION USING ERRCODE = 'internal_error', MESSAGE = '{text}'; END IF; RETURN NEW; END $$"
        )
        owner.execute("CREATE TRIGGER refuse BEFORE INSERT ON reading FOR EACH ROW EXECUTE FUNCTION refuse()")
    again = gateway.batch(readings(3, value=5.0))
    if goes_on:
        commit(store, "plant-a", again)
    else:
        with pytest.raises(psycopg.errors.InternalError_):
            commit(store, "plant-a", again)
    assert [row[2] for row in stored(database)] == ([1.0, 2.0, 7.0] if goes_on else [1.0, 2.0])
    assert database.one("SELECT count(*) FROM conflict") == (2 if goes_on else 0)


def test_conflict_with_a_batch_that_somebody_has_removed_is_told(
    database: Database, store: Store, gateway: Gateway
) -> None:
    commit(store, "plant-a", gateway.batch(readings(2)))
    with database.connect() as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute("DELETE FROM batch")
    commit(store, "plant-a", gateway.batch(readings(2, value=5.0)))
    ((detail,),) = database.rows("SELECT detail FROM evidence WHERE kind = 'conflict'")
    assert "stored with batch that is gone, then came batch" in str(detail)


def test_conflict_inside_one_group(database: Database, store: Store, gateway: Gateway) -> None:
    commit(store, "plant-a", gateway.batch(readings(2)), gateway.batch(readings(2, value=5.0)))
    assert [row[2] for row in stored(database)] == [1.0, 2.0]
    assert database.one("SELECT count(*) FROM conflict") == 2


def test_fork_is_evidence_and_its_bytes_are_kept(database: Database, store: Store, gateway: Gateway) -> None:
    fork = dataclasses.replace(gateway)
    first, forked = gateway.batch(readings(value=1.0)), fork.batch(readings(value=7.0))
    after = gateway.batch(readings(start=START + 60_000))
    commit(store, "plant-a", first)
    commit(store, "plant-a", forked, after)
    assert database.rows("SELECT sequence, chain FROM batch ORDER BY sequence") == [(1, 1), (2, 1)]
    assert database.rows("SELECT kind, sequence FROM evidence") == [("fork", 1)]
    assert database.rows("SELECT content, signed FROM quarantine") == [(forked, True)]
    assert [row[2] for row in stored(database)][:3] == [1.0, 2.0, 3.0]


def test_fork_within_one_group(database: Database, store: Store, gateway: Gateway) -> None:
    fork = dataclasses.replace(gateway)
    commit(
        store,
        "plant-a",
        gateway.batch(readings(value=1.0)),
        fork.batch(readings(value=7.0)),
        gateway.batch(readings(start=START + 60_000)),
    )
    assert database.rows("SELECT sequence, chain FROM batch ORDER BY sequence") == [(1, 1), (2, 1)]
    assert database.rows("SELECT kind FROM evidence") == [("fork",)]


def test_out_of_order_links_are_checked_when_the_missing_one_comes(
    database: Database, store: Store, gateway: Gateway
) -> None:
    batches = [gateway.batch(readings(start=START + 60_000 * n)) for n in range(5)]
    for number, committed, chain in (
        (3, [(4, 4)], [0]),
        (1, [(2, 2), (4, 4)], [0, 0]),
        (0, [(1, 2), (4, 4)], [1, 1, 0]),
        (4, [(1, 2), (4, 5)], [1, 1, 0, 1]),
        (2, [(1, 5)], [1, 1, 1, 1, 1]),
    ):
        commit(store, "plant-a", batches[number])
        assert ranges(store, gateway) == committed
        assert [row[0] for row in database.rows("SELECT chain FROM batch ORDER BY sequence")] == chain
    assert database.one("SELECT count(*) FROM evidence") == 0


def test_broken_chain_is_stored_and_is_evidence(database: Database, store: Store, gateway: Gateway) -> None:
    commit(store, "plant-a", gateway.batch(readings()))
    gateway.previous = b"\x55" * 32
    commit(store, "plant-a", gateway.batch(readings(start=START + 60_000)))
    assert len(stored(database)) == 6
    assert database.rows("SELECT sequence, chain FROM batch ORDER BY sequence") == [(1, 1), (2, 2)]
    assert database.rows("SELECT kind, stream, sequence FROM evidence") == [
        ("chain-broken", gateway.stream, 2)
    ]


def test_broken_chain_is_found_late(database: Database, store: Store, gateway: Gateway) -> None:
    first = gateway.batch(readings())
    gateway.previous = b"\x55" * 32
    commit(store, "plant-a", gateway.batch(readings(start=START + 60_000)))
    commit(store, "plant-a", first)
    commit(store, "plant-a", first)
    assert database.rows("SELECT sequence, chain FROM batch ORDER BY sequence") == [(1, 1), (2, 2)]
    assert database.one("SELECT count(*) FROM evidence") == 1


def test_first_batch_must_name_no_other(database: Database, store: Store, gateway: Gateway) -> None:
    gateway.previous = b"\x55" * 32
    commit(store, "plant-a", gateway.batch(readings()))
    assert database.rows("SELECT kind, sequence FROM evidence") == [("chain-broken", 1)]


def test_forged_signature_is_untrusted(store: Store, gateway: Gateway) -> None:
    payload = bytearray(gateway.batch(readings()))
    payload[-1] ^= 1
    assert isinstance(examine(store, "plant-a", bytes(payload), LIMIT), Untrusted)


def test_another_sites_key_does_not_count(store: Store, gateway: Gateway) -> None:
    thief = known(store, "plant-b")
    payload = Gateway("plant-a", thief.key).batch(readings())
    assert isinstance(examine(store, "plant-a", payload, LIMIT), Untrusted)


def test_key_learned_by_another_worker_is_found(database: Database, store: Store, gateway: Gateway) -> None:
    commit(store, "plant-a", gateway.batch(readings()))
    other = Store(database.conninfo("energy_ingest"))
    renewed = known(other, "plant-a")
    other.close()
    commit(store, "plant-a", renewed.batch(readings(start=START + 60_000)))
    assert database.one("SELECT count(*) FROM site_key") == 2


def test_readings_scattered_over_years_are_quarantined_and_acknowledged(
    database: Database, store: Store, gateway: Gateway
) -> None:
    """Two thousand bytes, and no tables are made for them, nor notes."""
    month = 31 * 86_400_000
    payload = gateway.batch({"main/active_power": [(START - month * n, None, 129) for n in range(20, 0, -1)]})
    tables = database.one("SELECT count(*) FROM pg_class")
    committed = commit(store, "plant-a", payload)
    assert (committed.batches, committed.quarantined, committed.readings) == (1, 1, 0)
    assert ranges(store, gateway) == [(1, 1)]
    assert database.rows("SELECT reason, signed, content FROM quarantine") == [
        ("readings in 20 months, at most 12 are allowed", True, payload)
    ]
    assert database.one("SELECT count(*) FROM touched") == 0
    assert database.one("SELECT count(*) FROM pg_class") == tables


def test_signed_but_unreadable_is_quarantined_and_acknowledged(
    database: Database, store: Store, gateway: Gateway
) -> None:
    batches = [
        gateway.batch(readings()),
        gateway.seal(b"\x07plant"),
        gateway.seal(string("plant-b") + b"\0\0\0"),
        gateway.batch(readings(start=START + 60_000)),
    ]
    commit(store, "plant-a", *batches)
    assert ranges(store, gateway) == [(1, 4)]
    assert database.rows("SELECT sequence, quarantined, chain FROM batch ORDER BY sequence") == [
        (1, False, 1),
        (2, True, 1),
        (3, True, 1),
        (4, False, 1),
    ]
    assert database.rows("SELECT reason, signed, content FROM quarantine ORDER BY id") == [
        ("body is truncated", True, batches[1]),
        ("is of site 'plant-b', came on the topic of plant-a", True, batches[2]),
    ]


def test_unsigned_rubbish_is_kept_once_and_bounded(
    database: Database, store: Store, gateway: Gateway
) -> None:
    rubbish = b"rubbish" * 100_000
    for _ in range(3):
        found = examine(store, "plant-a", rubbish, LIMIT)
        assert isinstance(found, Unreadable)
        store.quarantine("plant-a", rubbish, found.reason)
    assert database.rows("SELECT count, size, length(content), signed FROM quarantine") == [
        (3, 700_000, 65_536, False)
    ]


def test_too_large_is_refused_before_anything_else(store: Store, gateway: Gateway) -> None:
    found = examine(store, "plant-a", gateway.batch(readings()) + bytes(LIMIT), LIMIT)
    assert isinstance(found, Unreadable)
    assert "at most 1048576" in found.reason


def test_changed_unit_is_dated(database: Database, store: Store, gateway: Gateway) -> None:
    def one(minute: int, unit: str) -> bytes:
        return gateway.batch({"m/p": [(START + 60_000 * minute, float(minute), 0)]}, unit)

    for payload in (one(10, "W"), one(20, "kW"), one(5, "W"), one(30, "kW")):
        commit(store, "plant-a", payload)
    assert database.rows("SELECT value, unit FROM measurement ORDER BY time") == [
        (5.0, "W"),
        (10.0, "W"),
        (20.0, "kW"),
        (30.0, "kW"),
    ]
    assert database.rows("SELECT kind, detail FROM evidence") == [
        (
            "unit-changed",
            "m/p: from W (since 1970-01-01T00:00:00.000+00:00) to kW since 2026-01-01T00:20:00.000+00:00",
        )
    ]


def test_clock_that_was_wrong_lands_in_the_default_partition(
    database: Database, store: Store, gateway: Gateway
) -> None:
    moments = (-1000, 5_000, START, 4_000_000_000_000)
    commit(store, "plant-a", gateway.batch({"m/p": [(moment, 1.0, 65) for moment in moments]}))
    assert database.one("SELECT count(*) FROM reading_default") == 3
    assert database.one("SELECT count(*) FROM reading") == 4


def test_month_made_later_takes_its_readings_along(
    database: Database, store: Store, gateway: Gateway
) -> None:
    with database.connect("energy_migrate") as owner:
        owner.execute("DROP TABLE IF EXISTS reading_2026_01")
    commit(store, "plant-a", gateway.batch(readings(start=-5000)))
    with database.connect("owner") as superuser:
        superuser.execute("UPDATE reading_default SET time = time + interval '56 years'")
        assert superuser.execute("SELECT ensure_month('2026-01-15')").fetchone() == (True,)
        assert superuser.execute("SELECT ensure_month('2026-01-31')").fetchone() == (False,)
    assert database.one("SELECT count(*) FROM reading_default") == 3
    assert database.one("SELECT count(*) FROM reading") == 3


def test_ingest_may_add_and_nothing_else(database: Database, store: Store, gateway: Gateway) -> None:
    commit(store, "plant-a", gateway.batch(readings()))
    with database.connect("energy_ingest") as connection:
        for statement in (
            "UPDATE reading SET value = 0",
            "DELETE FROM reading",
            "TRUNCATE reading",
            "DELETE FROM batch",
            "UPDATE batch SET digest = previous",
            "DELETE FROM evidence",
            "UPDATE site_key SET public = public",
            "DROP TABLE conflict",
            "CREATE TABLE mine (x int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
    with database.connect("energy_read") as connection:
        assert connection.execute("SELECT count(*) FROM measurement").fetchone() == (3,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO site (name) VALUES ('x')")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused_by_the_table_too(database: Database, value: str) -> None:
    with database.connect() as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("INSERT INTO reading VALUES (now(), %s, 1, 1, 0)", (value,))


def test_two_workers_take_the_same_batches_in_opposite_order(database: Database, store: Store) -> None:
    gateways = [known(store, f"site-{number}") for number in range(4)]
    other = Store(database.conninfo("energy_ingest"))
    payloads = [
        (one.site, one.batch(readings(start=START + 60_000 * n))) for n in range(20) for one in gateways
    ]

    def work(where: Store, order: list[tuple[str, bytes]]) -> int:
        done = 0
        for at in range(0, len(order), 8):
            done += where.commit([signed(where, *one) for one in order[at : at + 8]]).readings
        return done

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(work, store, payloads)
        second = pool.submit(work, other, payloads[::-1])
        assert first.result() + second.result() == 80 * 3
    other.close()
    assert database.one("SELECT count(*) FROM reading") == 240
    assert database.rows("SELECT DISTINCT chain FROM batch") == [(1,)]
    assert database.rows("SELECT DISTINCT committed::text FROM stream") == [("{[1,21)}",)]


def test_a_restored_database_has_another_generation() -> None:
    """What every restore to a point in time does: the cluster goes through its log and begins a new timeline."""

    def generation() -> str:
        with psycopg.connect(cluster.conninfo("postgres", "owner")) as connection:
            return store_module.generation_of(connection)

    with running_cluster() as cluster:
        before = generation()
        cluster.stop()
        cluster.start()
        assert generation() == before
        cluster.stop()
        with (cluster.data / "postgresql.auto.conf").open("a") as settings:
            settings.write("restore_command = 'false'\n")
        (cluster.data / "recovery.signal").touch()
        cluster.start()
        end = time.monotonic() + 30
        while recovering(cluster):
            assert time.monotonic() < end, "the database does not end its recovery"
            time.sleep(0.1)
        after = generation()
    assert (before.rpartition("-")[2], after.rpartition("-")[2]) == ("1", "2")
    assert before.rpartition("-")[0] == after.rpartition("-")[0]


def recovering(cluster: Cluster) -> bool:
    with psycopg.connect(cluster.conninfo("postgres", "owner")) as connection:
        return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)


def test_what_a_crash_has_taken_of_the_ranges_and_links_is_made_good(
    database: Database, store: Store, gateway: Gateway
) -> None:
    """The gateways were told of these batches and will not send them again."""
    elsewhere = known(store, "plant-b")
    commit(store, "plant-a", *(gateway.batch(readings(start=START + 60_000 * n)) for n in range(3)))
    commit(store, "plant-b", elsewhere.batch(readings(start=START)))
    with database.connect() as connection:
        connection.execute("UPDATE stream SET committed = committed - '{[2,9)}'::int8multirange")
        connection.execute("UPDATE batch SET chain = 0 WHERE sequence = 3")
        # Of a site that was moved away the copies stay as they are.
        connection.execute(
            "UPDATE stream SET committed = '{}' WHERE site <> (SELECT id FROM site WHERE name = 'plant-a')"
        )
        connection.execute("UPDATE site SET here = false WHERE name = 'plant-b'")
    assert ranges(store, gateway) == [(1, 1)]
    another = Store(database.conninfo("energy_ingest"))
    try:
        assert ranges(another, gateway) == [(1, 3)]
        assert ranges(another, elsewhere) == []
    finally:
        another.close()
    assert database.one("SELECT count(*) FROM batch WHERE chain <> 1") == 0
    assert database.one("SELECT count(*) FROM evidence") == 0
