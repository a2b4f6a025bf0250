# SPDX-License-Identifier: Apache-2.0
"""Metrics of real workers, scraped over HTTP."""

from __future__ import annotations

import re
import socket
import urllib.request
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import behind, migrate, rollup
from energy_hub.evidence import step
from energy_hub.store import Store
from prometheus_client.parser import text_string_to_metric_families

from tests.ports import free_port

from .authority import Authority
from .conftest import Cluster, Database, RunningBroker, Shards, wait_until
from .test_ingest import Hub, Site, readings
from .test_store import commit, known
from .writer import Gateway

REFERENCE = Path(__file__).parents[3] / "docs/reference/hub-metrics.md"


@pytest.fixture
def hub(broker: RunningBroker, database: Database, tmp_path: Path) -> object:
    one = Hub(broker, database, tmp_path)
    yield one
    one.stop()


@pytest.fixture
def site(broker: RunningBroker, authority: Authority) -> object:
    one = Site(broker, authority, "plant-a")
    yield one
    one.close()


def scrape(port: int) -> dict[str, float]:
    """Values by the sample's name and labels, as `name{label}`; labels in the order of their names."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        sample.name
        + "".join(
            f"{{{sample.labels[key]}}}" for key in sorted(sample.labels) if sample.labels[key]
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_each_end_of_a_batch_is_counted(hub: Hub, site: Site) -> None:
    port = free_port()
    here = f"{{localhost:{hub.broker.port}}}"
    hub.start(metrics={"port": port})
    site.online()
    first = site.gateway.batch(readings(0))
    empty = site.gateway.seal(b"\x07plant-a" + bytes(3))
    nonsense = site.gateway.seal(b"\x07plant")
    forged = bytearray(first)
    forged[-1] ^= 1
    # The same number again, with other readings, and a link to a batch that is not the one before.
    fork = Gateway(site.name, site.gateway.key, stream=site.gateway.stream).batch(readings(7))
    site.gateway.previous = bytes(32)
    broken = site.gateway.batch(readings(1))
    for payload in (first, empty, nonsense):
        site.send(payload)
    wait_until(lambda: site.committed == {1, 2, 3}, "the good ones are acknowledged")
    for payload in (first, bytes(forged), b"rubbish", fork, broken):
        site.send(payload)
    wait_until(lambda: site.committed == {1, 2, 3, 4}, "and the broken link")
    wait_until(
        lambda: scrape(port)[f"energy_ingest_broker_unacknowledged_messages{here}"] == 0,
        "all is receipted",
    )
    found = scrape(port)
    outcomes = {
        key.partition("{")[2].rstrip("}"): value
        for key, value in found.items()
        if key.startswith("energy_ingest_batches_total")
    }
    once = ("repeated", "forked", "quarantined", "unreadable", "untrusted")
    assert outcomes == {"committed": 3, "refused": 0, "left": 0, "scattered": 0} | dict.fromkeys(once, 1)
    assert found["energy_ingest_evidence_total{chain-broken}"] == 1
    assert found["energy_ingest_evidence_total{fork}"] == 1
    assert found["energy_ingest_readings_total"] == 20
    assert found["energy_ingest_commit_seconds_count"] >= 2
    assert 0 < found["energy_ingest_commit_seconds_sum"] < 60
    # Those of readings() are of January 2026. The empty one has none.
    assert found["energy_ingest_delivery_delay_seconds_count"] == 2
    assert found["energy_ingest_delivery_delay_seconds_bucket{86400.0}"] == 0
    assert found["energy_ingest_last_commit_timestamp_seconds"] > 1.7e9
    assert found["energy_ingest_database_connected"] == 1
    assert found[f"energy_ingest_broker_connected{here}"] == 1
    newest = max(one.number for one in migrate.shipped())
    assert (
        found["energy_ingest_schema_migration"] == found["energy_ingest_schema_migration_expected"] == newest
    )
    assert found["energy_ingest_certificate_expires_timestamp_seconds"] > 1.7e9
    assert found["process_resident_memory_bytes"] > 1e6
    # The page names each of them.
    described = set(re.findall(r"`(energy_ingest_\w+)", REFERENCE.read_text()))
    names = {re.sub(r"_(bucket|sum|count|created)$", "", key.partition("{")[0]) for key in found}
    assert {name for name in names if name.startswith("energy_ingest")} <= described


def test_what_is_away_is_told_while_it_is_away(hub: Hub, site: Site, cluster: Cluster) -> None:
    port = free_port()
    nobody = free_port()
    hub.start(metrics={"port": port}, brokers=[hub.at(hub.broker.port), hub.at(nobody)], in_flight=5)
    site.online()
    site.acks.get(timeout=20)
    found = scrape(port)
    # Before the first commit as well: what is missing alarms nobody.
    assert found["energy_ingest_last_commit_timestamp_seconds"] > 1.7e9
    assert found[f"energy_ingest_broker_connected{{localhost:{nobody}}}"] == 0
    cluster.stop()
    try:
        for number in range(10):
            site.send(site.gateway.batch(readings(number)))
        wait_until(lambda: scrape(port)["energy_ingest_database_connected"] == 0, "the database is missed")
        here = f"{{localhost:{hub.broker.port}}}"
        wait_until(
            lambda: scrape(port)[f"energy_ingest_broker_unacknowledged_messages{here}"] == 5,
            "no more is taken",
        )
    finally:
        cluster.start()
    wait_until(lambda: site.committed == set(range(1, 11)), "acknowledged")
    assert scrape(port)["energy_ingest_database_connected"] == 1


def test_by_database_where_there_are_several(
    broker: RunningBroker, shards: Shards, site: Site, tmp_path: Path
) -> None:
    port = free_port()
    hub = Hub(broker, shards.databases["north"], tmp_path)
    try:
        hub.start(metrics={"port": port}, **shards.config())
        site.online()
        site.send(site.gateway.batch(readings(0)))
        wait_until(lambda: site.committed == {1}, "acknowledged")
        found = scrape(port)
    finally:
        hub.stop()
    home = shards.homes()["plant-a"]
    assert found[f"energy_ingest_readings_total{{{home}}}"] == 10
    assert {found[f"energy_ingest_database_connected{{{name}}}"] for name in ("north", "south")} == {1}
    for name in ("north", "south"):
        assert found[f"energy_ingest_rollup_waiting_since_timestamp_seconds{{{name}}}"] > 1.7e9
        assert f"energy_ingest_rollup_waiting_notes{{{name}}}" in found
    # They are in the directory's.
    checkpoints = [key for key in found if key.startswith("energy_ingest_last_checkpoint")]
    assert checkpoints == ["energy_ingest_last_checkpoint_timestamp_seconds{north}"]


def test_how_far_rollups_and_checkpoints_are_behind(hub: Hub, site: Site) -> None:
    port = free_port()
    hub.start(metrics={"port": port})
    started = scrape(port)["energy_ingest_last_checkpoint_timestamp_seconds"]
    # Nobody has signed one: what is missing alarms nobody.
    assert started > 1.7e9
    site.online()
    assert site.acks.get(timeout=20)
    for number in range(3):
        site.send(site.gateway.batch(readings(number)))
    wait_until(lambda: scrape(port)["energy_ingest_rollup_waiting_notes"] == 3, "they wait to be counted")
    query = "SELECT extract(epoch FROM min(received))::float8 FROM batch"
    oldest = hub.database.one(query)
    assert isinstance(oldest, float)
    assert scrape(port)["energy_ingest_rollup_waiting_since_timestamp_seconds"] == pytest.approx(oldest)
    with hub.database.connect("energy_rollup") as connection:
        assert rollup.step(connection) == 3
    with hub.database.connect("energy_ingest") as connection:
        done = step.run(connection, Ed25519PrivateKey.generate())
    assert done is not None
    wait_until(lambda: scrape(port)["energy_ingest_rollup_waiting_notes"] == 0, "they are counted")
    found = scrape(port)
    assert found["energy_ingest_rollup_waiting_since_timestamp_seconds"] > oldest
    signed = done.checkpoint.body().time.timestamp()
    assert found["energy_ingest_last_checkpoint_timestamp_seconds"] == signed > started


def test_the_notes_that_are_counted_are_bounded(
    database: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the time of the oldest is that of all."""
    gateway = known(store, "plant-a")
    for number in range(3):
        commit(store, "plant-a", gateway.batch(readings(number)))
    monkeypatch.setattr(behind, "MOST", 2)
    found = behind.look(store.connection)
    assert (found.notes, found.checkpoint) == (2, None)
    assert found.since == pytest.approx(
        database.one("SELECT extract(epoch FROM min(received))::float8 FROM batch")
    )


def test_a_row_that_is_no_checkpoint_ends_no_worker(database: Database, store: Store) -> None:
    """Whoever verifies the evidence tells of it; here the age of the last one grows."""
    with database.connect("energy_migrate") as connection:
        connection.execute("INSERT INTO checkpoint VALUES (1, 'rubbish', %s, %s)", (bytes(64), bytes(32)))
    assert behind.look(store.connection).checkpoint is None


def test_a_port_in_use_stops_nothing(hub: Hub, site: Site) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        hub.start(metrics={"port": other.getsockname()[1]})
        assert "ERR metrics: port" in hub.log()
        site.online()
        site.send(site.gateway.batch(readings(0)))
        wait_until(lambda: site.committed == {1}, "acknowledged")
