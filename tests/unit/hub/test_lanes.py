# SPDX-License-Identifier: Apache-2.0
"""A worker between a real broker and several databases, of which one goes away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub.evidence import step
from energy_hub.evidence.step import Shard
from energy_hub.ingest import WITNESS_EVERY

from tests.ports import free_port

from .authority import Authority
from .conftest import IN_SCHEMAS_TOO, RunningBroker, Shards, wait_until
from .test_ingest import Hub, Site, check_small_batches_with_many_readings, readings
from .test_metrics import scrape


@pytest.fixture
def hub(broker: RunningBroker, shards: Shards, tmp_path: Path) -> Iterator[Hub]:
    one = Hub(broker, shards.databases["north"], tmp_path)
    yield one
    one.stop()


@pytest.fixture
def sites(broker: RunningBroker, authority: Authority) -> Iterator[list[Site]]:
    """Two; the first to be seen goes to the first of the databases."""
    found = [Site(broker, authority, name) for name in ("plant-a", "plant-b")]
    yield found
    for one in found:
        one.close()


def start(hub: Hub, shards: Shards, sites: list[Site], **changes: object) -> None:
    hub.start(**shards.config(), **changes)
    for one in sites:
        one.online()
        assert one.acks.get(timeout=20)["watermark"] == 0


@IN_SCHEMAS_TOO
def test_sites_are_spread_and_stay(hub: Hub, shards: Shards, sites: list[Site]) -> None:
    start(hub, shards, sites)
    assert shards.homes() == {"plant-a": "north", "plant-b": "south"}
    for number in range(3):
        for one in sites:
            one.send(one.gateway.batch(readings(number)))
    for one in sites:
        wait_until(lambda one=one: one.committed == {1, 2, 3}, f"{one.name} is acknowledged")
    for name, site in (("north", "plant-a"), ("south", "plant-b")):
        database = shards.databases[name]
        assert database.rows("SELECT name, here FROM site") == [(site, True)]
        assert database.one("SELECT count(*) FROM reading") == 30


def test_small_batches_with_many_readings_wait_in_a_lane_too(
    hub: Hub, shards: Shards, sites: list[Site]
) -> None:
    quota = {"batches": 0, "bytes": 0, "readings": 1000, "burst": 1}
    start(hub, shards, sites, quota=quota, in_flight=80)
    check_small_batches_with_many_readings(*sites)
    assert "ERR quota: energy/v1/plant-a/batch" in hub.log()


def test_a_database_that_is_away_holds_up_its_own_sites_alone(
    hub: Hub, shards: Shards, sites: list[Site]
) -> None:
    """More batches of the one that is away than may be in flight: they are left to their gateway."""
    north, south = sites
    start(hub, shards, sites, in_flight=20)
    shards.clusters["south"].stop()
    waiting = [south.gateway.batch(readings(number)) for number in range(60)]
    for payload in waiting:
        south.send(payload)
    for number in range(10):
        north.send(north.gateway.batch(readings(number)))
        wait_until(lambda number=number: number + 1 in north.committed, "the other goes on", 8)
    wait_until(lambda: "batches are left to their gateways" in hub.log(), "it is told")
    assert not south.committed
    south.acks.queue.clear()
    shards.clusters["south"].start()
    # Whatever was kept is committed, and the gateway hears of it, so that it sends the rest again.
    assert south.acks.get(timeout=60)
    for number, payload in enumerate(waiting, 1):
        if number not in south.committed:
            south.send(payload)
    wait_until(lambda: south.committed == set(range(1, 61)), "all is acknowledged", 40)
    database = shards.databases["south"]
    assert database.one("SELECT count(*) FROM reading") == 600
    assert database.rows("SELECT DISTINCT chain FROM batch") == [(1,)]


def test_a_database_that_hangs_holds_up_its_own_sites_alone(
    hub: Hub, shards: Shards, sites: list[Site]
) -> None:
    """It takes connections and answers nothing, which no error tells."""
    north, south = sites
    start(hub, shards, sites, in_flight=20)
    with shards.clusters["south"].frozen():
        for number in range(40):
            south.send(south.gateway.batch(readings(number)))
        for number in range(5):
            north.send(north.gateway.batch(readings(number)))
        wait_until(lambda: north.committed == set(range(1, 6)), "the other goes on", 20)
        assert not south.committed
    wait_until(lambda: bool(south.committed), "it goes on", 30)


def test_a_database_that_hangs_is_missed_before_a_batch_comes(
    hub: Hub, shards: Shards, sites: list[Site]
) -> None:
    """A lane that hangs in its look for the metrics must not take what comes for one that is there."""
    port = free_port()
    start(hub, shards, sites, metrics={"port": port})
    with shards.clusters["south"].frozen():
        wait_until(lambda: scrape(port)["energy_ingest_database_connected{south}"] == 0, "it is missed", 60)
        assert scrape(port)["energy_ingest_database_connected{north}"] == 1
    wait_until(lambda: scrape(port)["energy_ingest_database_connected{south}"] == 1, "it is back")


def test_a_directory_that_hangs_holds_up_no_site_of_another_database(
    hub: Hub, shards: Shards, sites: list[Site]
) -> None:
    _, south = sites
    start(hub, shards, sites)
    with shards.clusters["north"].frozen():
        for number in range(4):
            south.send(south.gateway.batch(readings(number)))
            wait_until(lambda number=number: number + 1 in south.committed, "it goes on", 10)
            # So that all that is done now and then is done.
            time.sleep(WITNESS_EVERY / 3)


def test_witnesses_of_both_databases_go_to_their_gateways(
    hub: Hub, shards: Shards, sites: list[Site]
) -> None:
    start(hub, shards, sites)
    for one in sites:
        one.send(one.gateway.batch(readings(0)))
        wait_until(lambda one=one: one.committed == {1}, "acknowledged")
    homes = shards.homes()
    with (
        shards.databases["north"].connect("energy_ingest") as north,
        shards.databases["south"].connect("energy_ingest") as south,
    ):
        parts = [
            Shard(connection, frozenset(site for site, home in homes.items() if home == name))
            for name, connection in (("north", north), ("south", south))
        ]
        assert step.run(north, Ed25519PrivateKey.generate(), shards=parts)
    for one in sites:
        found = one.witnesses.get(timeout=20)
        assert (found["site"], found["size"]) == (one.name, 1)
    assert all(one.witnesses.empty() for one in sites)


def test_a_status_outlasts_the_absence_of_its_database(hub: Hub, shards: Shards, sites: list[Site]) -> None:
    _, south = sites
    start(hub, shards, sites, in_flight=8)
    shards.clusters["south"].stop()
    for number in range(30):
        south.send(south.gateway.batch(readings(number)))
    wait_until(lambda: "batches are left to their gateways" in hub.log(), "its share is full")
    south.send(json.dumps({"state": "online", "site": "plant-b", "version": "9.9.9"}).encode(), "status")
    shards.clusters["south"].start()
    wait_until(
        lambda: shards.databases["south"].one("SELECT status->>'version' FROM site") == "9.9.9",
        "the status is noted",
        60,
    )


def test_the_directory_may_be_away_for_sites_that_are_known(
    hub: Hub, shards: Shards, sites: list[Site], broker: RunningBroker, authority: Authority
) -> None:
    _, south = sites
    start(hub, shards, sites)
    shards.clusters["north"].stop()
    south.send(south.gateway.batch(readings(0)))
    wait_until(lambda: south.committed == {1}, "it is committed", 10)
    new = Site(broker, authority, "plant-c")
    new.online()
    south.send(south.gateway.batch(readings(1)))
    wait_until(lambda: south.committed == {1, 2}, "the other goes on", 10)
    shards.clusters["north"].start()
    assert new.acks.get(timeout=60)["watermark"] == 0
    assert shards.homes()["plant-c"] == "north"
    new.close()


def test_databases_that_are_mixed_up_are_written_by_nobody(
    hub: Hub, shards: Shards, sites: list[Site]
) -> None:
    config = shards.config()
    names = dict(config["databases"])
    names["north"], names["south"] = names["south"], names["north"]
    hub.start(databases=names, directory="north", database=None)
    wait_until(lambda: "the connections in databases are mixed up" in hub.log(), "it is told")
    assert shards.homes() == {}


def test_a_fence_that_was_left_behind_is_taken_away(hub: Hub, shards: Shards, sites: list[Site]) -> None:
    """A move that was cut off behind the fence: nobody holds its lock, and the directory still says south."""
    _, south = sites
    start(hub, shards, sites)
    with shards.databases["south"].connect() as connection:
        connection.execute("UPDATE site SET here = false")
    south.send(south.gateway.batch(readings(0)))
    wait_until(lambda: south.committed == {1}, "it is committed", 10)


def test_a_site_on_its_way_waits(hub: Hub, shards: Shards, sites: list[Site]) -> None:
    north, south = sites
    start(hub, shards, sites)
    with shards.databases["north"].connect() as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('energy.move.plant-b', 0))")
        with shards.databases["south"].connect() as other:
            other.execute("UPDATE site SET here = false")
        south.send(south.gateway.batch(readings(0)))
        north.send(north.gateway.batch(readings(0)))
        wait_until(lambda: north.committed == {1}, "the other goes on", 10)
        assert not south.committed
    wait_until(lambda: south.committed == {1}, "it is committed", 10)


def test_a_worker_with_an_old_answer_asks_again(hub: Hub, shards: Shards, sites: list[Site]) -> None:
    """The site has moved, and its row has gone from where it was: `--purge`."""
    north, _ = sites
    start(hub, shards, sites)
    with shards.databases["north"].connect() as connection:
        key = connection.execute(
            "SELECT public, statement, certificate, fingerprint, not_after FROM site_key"
        )
        row = key.fetchone()
        connection.execute("DELETE FROM site_key")
        connection.execute("DELETE FROM site")
        connection.execute("UPDATE directory SET shard = 'south' WHERE site = 'plant-a'")
    with shards.databases["south"].connect() as connection:
        connection.execute("INSERT INTO site (name) VALUES ('plant-a')")
        connection.execute(
            "INSERT INTO site_key (site, public, statement, certificate, fingerprint, not_after)"
            " SELECT id, %s, %s, %s, %s, %s FROM site WHERE name = 'plant-a'",
            row,
        )
    north.send(north.gateway.batch(readings(0)))
    wait_until(lambda: north.committed == {1}, "it is committed", 10)
    assert shards.databases["south"].one("SELECT count(*) FROM reading") == 10
    assert shards.databases["north"].one("SELECT count(*) FROM batch") == 0
