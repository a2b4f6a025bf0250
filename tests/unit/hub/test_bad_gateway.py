# SPDX-License-Identifier: Apache-2.0
"""A gateway whose certificate and key are valid, and that has turned bad: what it can cost the others is bounded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from energy_hub import gaps, pipeline
from energy_hub import store as store_module
from energy_hub.evidence import merkle, step, witness
from energy_hub.pipeline import Untrusted, examine, learn_key, read_status
from energy_hub.revocation import Revocations
from energy_hub.sequences import MOST_TOLD
from energy_hub.store import Committed, Signed, Store, StreamKey
from energy_hub.trust import TrustError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.ports import free_port

from .authority import Authority, Identity
from .conftest import Cluster, Database, RunningBroker, wait_until
from .test_ingest import Hub, Site
from .test_ingest import readings as minute
from .test_metrics import scrape
from .test_store import LIMIT, commit, known, readings, signed
from .writer import Gateway, body, seal

START = 1_767_225_600_000


@pytest.fixture
def hub(broker: RunningBroker, database: Database, tmp_path: Path) -> Iterator[Hub]:
    one = Hub(broker, database, tmp_path)
    yield one
    one.stop()


@pytest.fixture
def site(broker: RunningBroker, authority: Authority) -> Iterator[Site]:
    one = Site(broker, authority, "plant-a")
    yield one
    one.close()


class Clock:
    """That of the store, which a test may put forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    for module in (store_module, gaps):
        monkeypatch.setattr(module, "monotonic", one)
    return one


def numbered(gateway: Gateway, sequence: int) -> bytes:
    """A batch of any number: its chain is pending until the one before it comes."""
    content = body(gateway.site, {"main/active_power": [(START + 1000 * sequence, 1.0, 0)]})
    return seal(gateway.key, content, gateway.stream, sequence)


# --- sequences with gaps


def test_the_ranges_of_a_stream_are_bounded(
    database: Database, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "MOST_RANGES", 50)
    monkeypatch.setattr(gaps, "CROWDED", 25)
    bad, honest = known(store, "plant-a"), known(store, "plant-b")
    key = StreamKey("plant-a", bad.stream)
    scattered: list[Signed] = []
    for first in range(1, 401, 20):
        result = store.commit(
            [
                *(signed(store, "plant-a", numbered(bad, number)) for number in range(first, first + 20, 2)),
                signed(store, "plant-b", honest.batch(readings(start=START + 60_000 * first))),
            ]
        )
        scattered += result.scattered
        assert len(result.streams.get(key, [])) <= 50
        assert result.streams[StreamKey("plant-b", honest.stream)] == [(1, first // 20 + 1)]
    assert [one.envelope.sequence for one in scattered] == list(range(101, 400, 2))
    assert len(store.committed(key)) == 50
    assert (
        database.one("SELECT count(*) FROM batch b JOIN site s ON s.id = b.site WHERE name = %s", "plant-a")
        == 50
    )

    # Nothing is told of those, so they are sent again, with what the gaps lack: all of them have room then.
    def again(*numbers: int) -> Committed:
        return commit(store, "plant-a", *(numbered(bad, number) for number in numbers))

    assert not again(2, 4, 6).scattered
    assert not again(101, 103, 105).scattered
    assert again(107, 109).batches == 0
    assert not again(*range(1, 100)).scattered
    assert store.committed(key) == [(1, 99), (101, 101), (103, 103), (105, 105)]


def test_a_gateway_whose_gaps_will_never_be_filled_goes_on(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "MOST_RANGES", 10)
    monkeypatch.setattr(gaps, "CROWDED", 5)
    gateway = known(store, "plant-a")
    for number in range(1, 20, 2):
        commit(store, "plant-a", numbered(gateway, number))

    def sent(*numbers: int) -> list[int]:
        result = commit(store, "plant-a", *(numbered(gateway, number) for number in numbers))
        return [one.envelope.sequence for one in result.scattered]

    assert sent(100, 101, 102) == [100, 101, 102]
    clock.now += gaps.FURTHER_RANGE - 1
    assert sent(100, 101) == [100, 101]
    clock.now += 2
    # One further range, however many batches are in it.
    assert sent(100, 101, 102, 200, 300) == [200, 300]
    assert sent(103, 104, 200) == [200]
    assert len(store.committed(StreamKey("plant-a", gateway.stream))) == 11


def test_odd_sequences_harm_no_other_site(hub: Hub, broker: RunningBroker, authority: Authority) -> None:
    hub.start(quota={"batches": 0, "bytes": 0})
    bad, honest = Site(broker, authority, "plant-a"), Site(broker, authority, "plant-b")
    for one in (bad, honest):
        one.online()
        assert one.acks.get(timeout=20)["watermark"] == 0
    backlog = [honest.gateway.batch(minute(number)) for number in range(30)]
    told: set[int] = set()
    most = 0
    for number in range(1, 481, 2):
        bad.send(numbered(bad.gateway, number))
        if number % 16 == 1:
            honest.send(backlog.pop(0))
    wait_until(lambda: honest.committed == set(range(1, 31)), "an honest backlog is acknowledged")

    odd = set(range(1, 481, 2))

    def all_is_told() -> bool:
        nonlocal most
        while not bad.acks.empty():
            ack = bad.acks.get()
            spans = [[1, ack["watermark"]], *ack["ranges"]]
            most = max(most, len(ack["ranges"]))
            told.update(number for low, high in spans for number in range(low, high + 1))
        # As a gateway does; so many may have been committed together that some were not named.
        for number in sorted(odd - told)[:50]:
            bad.send(numbered(bad.gateway, number))
        return told == odd

    wait_until(all_is_told, "each is told, at once or when it is sent again")
    assert MOST_TOLD // 2 < most <= MOST_TOLD
    for one in (bad, honest):
        one.close()


# --- signing keys


def learn(
    store: Store,
    by: Identity,
    authority: Authority,
    *,
    public: bytes | None = None,
    revocations: Revocations | None = None,
) -> bytes:
    public = public or Gateway("plant-a", Ed25519PrivateKey.generate()).public
    key = authority.key_statement(by, "plant-a", public)
    status = read_status("plant-a", json.dumps({"state": "online", "site": "plant-a", "key": key}).encode())
    authorities = [authority.root.certificate, authority.intermediate.certificate]
    found = learn_key(store, "plant-a", status, authorities, revocations or Revocations(None, []))
    assert found == public
    return found


def test_a_certificate_vouches_for_few_keys(database: Database, store: Store, authority: Authority) -> None:
    bad = authority.client("plant-a")
    for _ in range(pipeline.KEYS_OF_A_CERTIFICATE):
        learn(store, bad, authority)
    for _ in range(3):
        with pytest.raises(TrustError, match=r"vouches for 8 keys already"):
            learn(store, bad, authority)
    assert database.one("SELECT count(*) FROM site_key") == 8
    # The gateway that takes its place has another certificate.
    learn(store, authority.client("plant-a"), authority)


def test_a_site_has_so_many_keys_that_are_not_revoked(
    store: Store, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "KEYS_OF_A_SITE", 3)
    bad, other = authority.client("plant-a"), authority.client("plant-a")
    for _ in range(3):
        learn(store, bad, authority)
    with pytest.raises(TrustError, match="has 3 keys already"):
        learn(store, other, authority)
    crl = tmp_path / "crl.pem"
    crl.write_text(authority.crl([bad]))
    lists = Revocations(crl, [authority.root.certificate, authority.intermediate.certificate])
    learn(store, other, authority, revocations=lists)


def test_a_certificate_is_renewed_as_often_as_it_likes(
    database: Database, store: Store, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is no further key because another certificate vouches for it, every two weeks for years."""
    monkeypatch.setattr(pipeline, "KEYS_OF_A_SITE", 2)
    monkeypatch.setattr(pipeline, "KEYS_OF_A_CERTIFICATE", 2)
    public = learn(store, authority.client("plant-a"), authority)
    for _ in range(4):
        assert learn(store, authority.client("plant-a"), authority, public=public) == public
    # There is room for one more, by any of these certificates.
    newest = authority.client("plant-a")
    learn(store, newest, authority, public=public)
    learn(store, newest, authority)
    with pytest.raises(TrustError, match=r"has 2 keys already|vouches for 2 keys already"):
        learn(store, newest, authority)
    assert database.one("SELECT count(DISTINCT public) FROM site_key") == 2


class Counted:
    """Signatures that were verified, and statements of the store."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.verified = self.statements = 0
        verify, execute = pipeline.batch_is_signed_by, store.connection.execute

        def counted_verify(public: bytes, signature: bytes, data: bytes) -> bool:
            self.verified += 1
            return verify(public, signature, data)

        def counted_execute(*arguments: object, **options: object) -> object:
            self.statements += 1
            return execute(*arguments, **options)  # type: ignore[arg-type]  # passed on

        monkeypatch.setattr(pipeline, "batch_is_signed_by", counted_verify)
        monkeypatch.setattr(store.connection, "execute", counted_execute)


def forged(gateway: Gateway) -> bytes:
    return Gateway(gateway.site, Ed25519PrivateKey.generate()).batch(readings())


def test_forged_batches_cost_one_look_at_each_key_and_few_statements(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateways = [known(store, "plant-a") for _ in range(5)]
    counted = Counted(store, monkeypatch)
    for _ in range(100):
        assert isinstance(examine(store, "plant-a", forged(gateways[0]), LIMIT), Untrusted)
    assert (counted.verified, counted.statements) == (500, 2)
    clock.now += store_module.LOOK_AGAIN
    for _ in range(100):
        assert isinstance(examine(store, "plant-a", forged(gateways[0]), LIMIT), Untrusted)
    assert (counted.verified, counted.statements) == (1000, 3)


def test_batches_of_an_unknown_site_cost_few_statements(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(store, monkeypatch)
    stranger = Gateway("plant-x", Ed25519PrivateKey.generate())
    for _ in range(100):
        assert isinstance(examine(store, "plant-x", stranger.batch(readings()), LIMIT), Untrusted)
    assert (counted.verified, counted.statements) == (0, 2)


def test_a_key_that_another_worker_has_learned_is_found_soon(
    database: Database, store: Store, clock: Clock
) -> None:
    """The batch is left unacknowledged, and sent again; a status that comes by this worker is enough at once."""
    stranger = Gateway("plant-a", Ed25519PrivateKey.generate())
    assert isinstance(examine(store, "plant-a", stranger.batch(readings()), LIMIT), Untrusted)
    other = Store(database.conninfo("energy_ingest"))
    gateway = known(other, "plant-a")
    payload = gateway.batch(readings())
    assert isinstance(examine(store, "plant-a", payload, LIMIT), Untrusted)
    clock.now += store_module.LOOK_AGAIN
    assert isinstance(examine(store, "plant-a", payload, LIMIT), Signed)
    another = known(other, "plant-a")
    other.close()
    clock.now += store_module.LOOK_AGAIN
    assert isinstance(examine(store, "plant-a", another.batch(readings()), LIMIT), Signed)
    third = known(store, "plant-a")
    assert isinstance(examine(store, "plant-a", third.batch(readings()), LIMIT), Signed)


def test_forged_batches_use_up_the_quota_and_a_known_key_goes_on(hub: Hub, site: Site) -> None:
    """Sixty of them are far below the quota of batches that are worth something."""
    hub.start()
    for _ in range(60):
        site.send(forged(site.gateway))
    # What is let in is charged once it was looked at.
    wait_until(lambda: "ERR untrusted: site plant-a" in hub.log(), "they are refused")

    def is_over_quota() -> bool:
        site.send(forged(site.gateway))
        return "ERR quota: energy/v1/plant-a/batch" in hub.log()

    wait_until(is_over_quota, "they count for more")
    site.online()
    assert site.acks.get(timeout=20)["watermark"] == 0
    payload = site.gateway.batch(minute(0))

    def is_committed() -> bool:
        site.send(payload)
        return site.committed == {1}

    wait_until(is_committed, "its own batch is taken", 60)


# --- what a broker hands over without waiting


def test_nothing_gathers_while_the_database_is_away(hub: Hub, site: Site, cluster: Cluster) -> None:
    port = free_port()
    hub.start(metrics={"port": port}, in_flight=5)
    site.online()
    assert site.acks.get(timeout=20)
    here = f"{{localhost:{hub.broker.port}}}"
    received = f"energy_ingest_broker_messages_total{here}"
    batches = [site.gateway.batch(minute(number)) for number in range(8)]
    cluster.stop()
    try:
        site.send(batches[0])
        wait_until(lambda: scrape(port)["energy_ingest_database_connected"] == 0, "the database is missed")
        before = scrape(port)[received]
        for number in range(200):
            site.client.publish("energy/v1/plant-a/batch", os.urandom(1000), qos=0)
            text = json.dumps({"state": "online", "site": "plant-a", "version": str(number)})
            site.client.publish("energy/v1/plant-a/status", text, qos=0)
        wait_until(lambda: scrape(port)[received] >= before + 400, "all of it has come")
        found = scrape(port)
        assert found[f"energy_ingest_broker_dropped_messages_total{here}"] == 200
        assert found["energy_ingest_inbox_messages"] <= 3
        assert hub.log().count("ERR dropped: energy/v1/plant-a/batch: a batch with QoS 0") == 1
        for payload in batches[1:]:
            site.send(payload)
        wait_until(
            lambda: scrape(port)[f"energy_ingest_broker_unacknowledged_messages{here}"] == 5,
            "the rest waits at the broker",
        )
        assert scrape(port)["energy_ingest_inbox_messages"] <= 5 + 1
    finally:
        cluster.start()
    wait_until(lambda: site.committed == set(range(1, 9)), "what came as it should is acknowledged")
    assert hub.database.one("SELECT status->>'version' FROM site") == "199"
    assert hub.database.one("SELECT count(*) FROM quarantine") == 0


# --- what the MQTT library cannot read


def test_properties_that_the_mqtt_library_refuses_end_no_link(
    hub: Hub, site: Site, broker: RunningBroker, authority: Authority
) -> None:
    """The broker lets U+FEFF through, and paho ends its thread by it: it would come again with each connection."""
    port = free_port()
    hub.start(metrics={"port": port})
    here = f"{{localhost:{hub.broker.port}}}"
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has no types here
    properties.UserProperty = ("\ufeff", "")
    honest = Site(broker, authority, "plant-b")
    try:
        for qos in (1, 0):
            site.client.publish("energy/v1/plant-a/batch", b"x", qos=qos, properties=properties)
        site.client.publish("energy/v1/plant-a/status", b"x", qos=1, properties=properties).wait_for_publish(
            10
        )
        honest.online()
        assert honest.acks.get(timeout=20)
        honest.send(honest.gateway.batch(minute(0)))
        wait_until(lambda: honest.committed == {1}, "the others go on")
        wait_until(
            lambda: scrape(port)[f"energy_ingest_broker_dropped_messages_total{here}"] == 3,
            "they are dropped",
        )
        assert scrape(port)[f"energy_ingest_broker_unacknowledged_messages{here}"] == 0
        told = "the MQTT library cannot read it: [MQTT-1.5.4-3] U+FEFF in UTF-8 data"
        assert hub.log().count(f"ERR dropped: energy/v1/plant-a/batch: {told}") == 1
        assert hub.log().count(f"ERR dropped: energy/v1/plant-a/status: {told}") == 1
        assert hub.log().count("connected to broker") == 1
    finally:
        honest.close()


# --- witnesses


def test_witnesses_take_few_statements_and_no_long_transaction(
    database: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"plant-{number:03}" for number in range(200)]
    gateways = [known(store, name) for name in names]
    signing = Ed25519PrivateKey.generate()
    held: dict[str, bytes] = {}
    for size in (5, 6):
        store.commit(
            [
                signed(store, one.site, one.batch(readings(start=START + 10**6 * (10 * size + number))))
                for one in gateways
                for number in range(size)
            ]
        )
        with database.connect("energy_ingest") as connection:
            assert step.run(connection, signing, datetime(2026, 1, size, tzinfo=UTC))
            held = held or {name: tree.root for name, tree in step.latest_sites(connection).items()}
    with database.connect() as owner:
        owner.execute('UPDATE site SET status = \'{"witness": {"number": 1, "size": 5}}\'')
    counted = Counted(store, monkeypatch)
    found = witness.newest_round(store.connection)
    assert found is not None
    messages: list[tuple[str, bytes]] = []
    while not found.is_over:
        part = found.next_slice(store.connection)
        assert len(part) == witness.SLICE
        messages += part
        # Batches are committed between two slices.
        assert store.connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        commit(store, "plant-000", gateways[0].batch(readings(start=START + 10**8 * len(messages))))
    assert [name for name, _ in messages] == names
    for name, payload in messages:
        document = json.loads(payload)
        path = [bytes.fromhex(one) for one in document["since"]["path"]]
        assert merkle.is_consistent(5, held[name], 11, bytes.fromhex(document["root"]), path)
    before = counted.statements
    assert list(witness.messages(store.connection)) == messages
    # Of the checkpoint three, and two of each slice.
    assert counted.statements - before <= 3 + 2 * len(names) // witness.SLICE
