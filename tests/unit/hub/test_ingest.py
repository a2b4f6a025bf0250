# SPDX-License-Identifier: Apache-2.0
"""Worker processes between a real broker and a real database."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from energy_hub.batch import MAX_BODY
from energy_hub.evidence import step
from paho.mqtt.enums import CallbackAPIVersion

from .authority import Authority, Identity
from .conftest import Database, RunningBroker, wait_until
from .writer import Gateway, Reading, seal

START = 1_767_225_600_000
ROOT = Path(__file__).parents[3]


def replace(path: Path, text: str) -> None:
    """As the playbooks do it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def readings(number: int, count: int = 5) -> dict[str, list[Reading]]:
    start = START + 60_000 * number
    return {
        point: [(start + 1000 * n, float(n), 0) for n in range(count)]
        for point in ("main/active_power", "main/voltage_l1")
    }


class Site:
    """A gateway as the broker sees it: publishes, and collects its acknowledgements."""

    def __init__(self, broker: RunningBroker, authority: Authority, name: str) -> None:
        self.name = name
        self.port = broker.port
        self.identity: Identity = authority.client(name)
        self.gateway = Gateway(name, Ed25519PrivateKey.generate(), stream=os.urandom(8))
        self.authority = authority
        self.committed: set[int] = set()
        self.acks: queue.Queue[dict[str, Any]] = queue.Queue()
        self.witnesses: queue.Queue[dict[str, object]] = queue.Queue()
        folder = broker.folder
        (folder / f"{name}.crt").write_text(authority.chain(self.identity))
        (folder / f"{name}.key").write_text(self.identity.key_pem())
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
        self.client.tls_set_context(context)
        self.client.on_message = self._on_message
        ready = threading.Event()
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.connect("127.0.0.1", broker.port)
        self.client.subscribe([(f"energy/v1/{name}/ack", 1), (f"energy/v1/{name}/witness", 1)])
        self.client.loop_start()
        assert ready.wait(10)

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        ack = json.loads(message.payload)
        if message.topic.endswith("/witness"):
            self.witnesses.put(ack)
            return
        assert ack["stream"] == self.gateway.stream.hex()
        ranges = [[1, ack["watermark"]], *ack["ranges"]]
        self.committed = {number for low, high in ranges for number in range(low, high + 1)}
        self.acks.put(ack)

    def send(self, payload: bytes, topic: str = "batch", *, retain: bool = False) -> None:
        self.client.publish(f"energy/v1/{self.name}/{topic}", payload, qos=1, retain=retain).wait_for_publish(
            10
        )

    def online(self) -> None:
        status = {
            "state": "online",
            "site": self.name,
            "time": "2026-01-01T00:00:00.000Z",
            "version": "0.1.0",
            "stream": self.gateway.stream.hex(),
            "sequence": self.gateway.sequence,
            "buffer": {"readings": 1, "batches": 1, "bytes": 100, "dropped": 0},
            "key": self.authority.key_statement(self.identity, self.name, self.gateway.public),
        }
        self.send(json.dumps(status).encode(), "status", retain=True)

    def close(self) -> None:
        self.send(b"", "status", retain=True)
        self.client.disconnect()
        self.client.loop_stop()


@dataclass
class Hub:
    """Starts worker processes with a configuration of their own."""

    broker: RunningBroker
    database: Database
    folder: Path

    def __post_init__(self) -> None:
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, module: str = "energy_hub", **changes: object) -> subprocess.Popen[bytes]:
        number = len(self.workers)
        config = self.folder / f"ingest-{number}.yaml"
        keys = {
            "broker": self.at(self.broker.port),
            "database": self.database.conninfo("energy_ingest"),
            "crl": "none",
            "log": f"{self.folder}/ingest.log",
        } | changes
        if "brokers" in keys:
            del keys["broker"]
        config.write_text(json.dumps({key: value for key, value in keys.items() if value is not None}))
        address = f"{self.folder}/notify-{number}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.bind(address)
            channel.settimeout(30)
            worker = subprocess.Popen(
                [sys.executable, "-m", module, "ingest", "--config", config],
                cwd=ROOT / "hub",
                env=os.environ | {"NOTIFY_SOCKET": address, "PYTHONPATH": f"{ROOT / 'hub'}:{ROOT}"},
                stdout=subprocess.DEVNULL,
            )
            self.workers.append(worker)
            assert channel.recv(100) == b"READY=1"
        return worker

    def at(self, port: int) -> dict[str, object]:
        """What a worker is told of a broker."""
        return {
            "host": "localhost",
            "port": port,
            "ca": f"{self.broker.folder}/ca.crt",
            "certificate": f"{self.broker.folder}/ingest.crt",
            "key": f"{self.broker.folder}/ingest.key",
            "client_id": f"{self.database.name}-{len(self.workers)}",
            "session_expiry": 5,
        }

    def log(self) -> str:
        return (self.folder / "ingest.log").read_text()

    def stop(self) -> None:
        for one in self.workers:
            if one.poll() is None:
                one.terminate()
                assert one.wait(20) == 0


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


def test_from_the_first_status_to_the_acknowledgement(hub: Hub, site: Site) -> None:
    hub.start()
    site.online()
    first = site.acks.get(timeout=20)
    assert re.fullmatch(r"\d+-1", first.pop("generation")), "the cluster, and its first timeline"
    assert first == {"stream": site.gateway.stream.hex(), "watermark": 0, "ranges": []}
    batches = [site.gateway.batch(readings(number)) for number in range(4)]
    for number in (0, 1, 3):
        site.send(batches[number])
    wait_until(lambda: site.committed == {1, 2, 4}, "three batches acknowledged")
    site.send(batches[2])
    wait_until(lambda: site.committed == {1, 2, 3, 4}, "the fourth too")
    assert hub.database.one("SELECT count(*) FROM reading") == 40
    assert hub.database.rows(
        "SELECT name, state, status->>'version', status->'buffer'->>'bytes' FROM site"
    ) == [("plant-a", "online", "0.1.0", "100")]
    site.send(b'{"state": "offline", "site": "plant-a"}', "status", retain=True)
    wait_until(lambda: hub.database.one("SELECT state FROM site") == "offline", "last will is noted")
    assert hub.database.one("SELECT status->>'version' FROM site") == "0.1.0"


def test_lost_acknowledgement_comes_again_with_the_duplicate(hub: Hub, site: Site) -> None:
    hub.start()
    site.online()
    payload = site.gateway.batch(readings(0))
    site.send(payload)
    wait_until(lambda: site.committed == {1}, "acknowledged")
    site.committed = set()
    site.send(payload)
    wait_until(lambda: site.committed == {1}, "acknowledged again")
    assert hub.database.one("SELECT count(*) FROM reading") == 10


def test_checkpoints_go_to_the_gateways_and_prove_what_they_hold(hub: Hub, site: Site) -> None:
    hub.start()
    site.online()
    key = Ed25519PrivateKey.generate()

    def checkpoint() -> None:
        with hub.database.connect("energy_ingest") as connection:
            assert step.run(connection, key)

    site.send(site.gateway.batch(readings(0)))
    wait_until(lambda: site.committed == {1}, "acknowledged")
    checkpoint()
    first = site.witnesses.get(timeout=20)
    assert (first["site"], first["size"]) == ("plant-a", 1)
    assert "since" not in first
    # What a gateway says when it holds it.
    status = {"state": "online", "site": "plant-a", "witness": {"number": 1, "size": 1, "refused": 0}}
    site.send(json.dumps(status).encode(), "status")
    wait_until(lambda: hub.database.one("SELECT status->'witness'->>'size' FROM site") == "1", "it is noted")
    for number in range(1, 4):
        site.send(site.gateway.batch(readings(number)))
    wait_until(lambda: site.committed == {1, 2, 3, 4}, "acknowledged")
    checkpoint()
    second = site.witnesses.get(timeout=20)
    assert (second["size"], second["since"]["size"]) == (4, 1)  # type: ignore[index]  # of JSON as it came
    # It is retained for a gateway that was away.
    site.client.subscribe("energy/v1/plant-a/witness", qos=1)
    assert site.witnesses.get(timeout=20) == second


def test_unknown_key_waits_until_the_status_has_come(hub: Hub, site: Site) -> None:
    hub.start()
    payload = site.gateway.batch(readings(0))
    for _ in range(5):
        site.send(payload)
    wait_until(lambda: "ERR untrusted: site plant-a" in hub.log(), "the refusal is logged")
    site.online()
    assert site.acks.get(timeout=20)["watermark"] == 0
    site.send(payload)
    wait_until(lambda: site.committed == {1}, "acknowledged")
    assert hub.log().count("ERR untrusted") == 1
    assert hub.database.one("SELECT count(*) FROM batch") == 1


def test_false_statement_makes_no_key(hub: Hub, site: Site) -> None:
    hub.start()
    site.identity = site.authority.client("plant-b")
    site.online()
    wait_until(lambda: "common name is plant-b, expected plant-a" in hub.log(), "the refusal is logged")
    assert hub.database.one("SELECT count(*) FROM site") == 0


def test_a_revoked_certificate_vouches_for_nothing_new(hub: Hub, site: Site) -> None:
    """What was committed before stays; a certificate that is valid vouches for the same key again."""
    crl = hub.folder / "crl.pem"
    crl.write_text(site.authority.crl([]))
    hub.start(crl=str(crl))
    site.online()
    site.send(site.gateway.batch(readings(0)))
    wait_until(lambda: site.committed == {1}, "acknowledged before the revocation")
    revoked = site.identity
    replace(crl, site.authority.crl([revoked]))
    wait_until(lambda: "revocation list read again: 1 certificates revoked" in hub.log(), "the list is read")
    second = site.gateway.batch(readings(1))
    site.send(second)
    number = f"{revoked.certificate.serial_number:x}"
    wait_until(
        lambda: f"the certificate {number} that vouches for its key was revoked on" in hub.log(), "refused"
    )
    site.online()
    wait_until(lambda: f"key statement: certificate {number} was revoked on" in hub.log(), "no new statement")
    assert site.committed == {1}
    assert hub.database.one("SELECT count(*) FROM batch") == 1
    assert hub.database.one("SELECT count(*) FROM reading") == 10
    site.identity = site.authority.client("plant-a")
    site.online()
    wait_until(lambda: hub.log().count("trusted from now on") == 2, "the new certificate vouches for it")
    site.send(second)
    wait_until(lambda: site.committed == {1, 2}, "acknowledged again")
    assert hub.database.rows(
        "SELECT b.sequence, k.fingerprint FROM batch b JOIN site_key k ON k.id = b.key ORDER BY 1"
    ) == [
        (number, one.certificate.fingerprint(SHA256())) for number, one in ((1, revoked), (2, site.identity))
    ]


def test_poison_of_every_kind_blocks_nobody(hub: Hub, site: Site) -> None:
    hub.start()
    site.online()
    # Else the next status may overtake the one with the key: of a site's statuses the newest is looked at.
    assert site.acks.get(timeout=20)
    forged = bytearray(site.gateway.batch(readings(0)))
    genuine = bytes(forged)
    forged[-1] ^= 1
    bomb = site.gateway.seal(bytes(MAX_BODY + 1))
    nonsense = site.gateway.seal(b"\x07plant")
    last_number = seal(site.gateway.key, b"", site.gateway.stream, 2**63 - 1)
    rubbish = (b"", b"WFB1", genuine[:-20], bytes(2_000_000), last_number)
    for payload in (*rubbish, bytes(forged), bomb, nonsense, genuine):
        site.send(payload)
    lone = {"public": "A" * 43 + "=", "statement": "", "certificate": "\ud800"}
    surrogate = json.dumps({"state": "online", "site": "plant-a", "key": lone}).encode()
    for payload in (
        b"",
        b"{",
        b"[" * 60_000,
        b'{"state": "up", "site": "plant-a"}',
        bytes(100_000),
        surrogate,
    ):
        site.send(payload, "status")
    last = site.gateway.batch(readings(1))
    site.send(last)
    wait_until(lambda: site.committed == {1, 2, 3, 4}, "everything that was signed is acknowledged")
    assert hub.database.one("SELECT count(*) FROM reading") == 20
    assert hub.database.rows("SELECT signed, count(*) FROM quarantine GROUP BY 1 ORDER BY 1") == [
        (False, 5),
        (True, 2),
    ]
    reasons = {row[0] for row in hub.database.rows("SELECT reason FROM quarantine WHERE signed")}
    assert reasons == {f"body inflates to more than {MAX_BODY} bytes", "body is truncated"}


def test_a_fault_of_ours_ends_no_worker(hub: Hub, site: Site) -> None:
    """Whatever one message brings out: it is told, kept, and the next one is looked at."""
    worker = hub.start("tests.unit.hub.ingest_with_faults")
    site.online()
    # Else the next status may overtake the one with the key.
    assert site.acks.get(timeout=20)
    site.send(b'{"state": "online", "site": "plant-a", "version": "fault"}', "status")
    for number, point in enumerate(("fault/examine", "fault/store", "main/active_power")):
        site.send(site.gateway.batch({point: [(START + number, 1.0, 0)]}))
    site.send(site.gateway.batch(readings(1)))
    wait_until(lambda: site.committed == {2, 3, 4}, "what was signed and read is acknowledged")
    assert worker.poll() is None
    assert hub.database.rows("SELECT signed, reason FROM quarantine ORDER BY 1") == [
        (False, "cannot be examined: ZeroDivisionError('of the test') at ingest_with_faults.py:21"),
        (True, "cannot be stored: ZeroDivisionError('of the test') at ingest_with_faults.py:28"),
    ]
    assert hub.log().count("ERR fault of ingest") == 3


def test_database_restarts_in_the_middle(hub: Hub, site: Site) -> None:
    hub.start(in_flight=5)
    site.online()
    assert site.acks.get(timeout=20)
    for number in range(10):
        site.send(site.gateway.batch(readings(number)))
    hub.database.cluster.stop()
    for number in range(10, 40):
        site.send(site.gateway.batch(readings(number)))
    wait_until(lambda: "ERR CONNECTION_REFUSED database" in hub.log(), "the refusal is logged")
    hub.database.cluster.start()
    wait_until(lambda: site.committed == set(range(1, 41)), "all acknowledged", 60)
    assert hub.database.one("SELECT count(*) FROM reading") == 400
    assert hub.database.rows("SELECT DISTINCT chain FROM batch") == [(1,)]


def test_worker_killed_between_two_loses_and_doubles_nothing(
    hub: Hub, broker: RunningBroker, authority: Authority
) -> None:
    sites = [Site(broker, authority, f"site-{number}") for number in range(3)]
    victim = hub.start()
    hub.start()
    unsent = {}
    for one in sites:
        one.online()
        assert one.acks.get(timeout=20)
        unsent[one.name] = {number: one.gateway.batch(readings(number)) for number in range(1, 61)}
    for number in range(1, 61):
        for one in sites:
            one.send(unsent[one.name][number])
        if number in (20, 40):
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            victim = hub.start()

    def all_acknowledged() -> bool:
        waiting = False
        for one in sites:
            # What a gateway does after its resend time.
            for number in unsent[one.name].keys() - one.committed:
                waiting = True
                one.send(unsent[one.name][number])
        return not waiting

    wait_until(all_acknowledged, "all acknowledged", 60)
    for one in sites:
        sent = {hashlib.sha256(payload).digest() for payload in unsent[one.name].values()}
        rows = hub.database.rows(
            "SELECT digest FROM batch JOIN site ON site.id = batch.site WHERE name = %s", one.name
        )
        assert {row[0] for row in rows} == sent
        assert len(rows) == 60
        one.close()
    assert hub.database.one("SELECT count(*) FROM reading") == 3 * 60 * 10
    assert hub.database.rows("SELECT DISTINCT chain FROM batch") == [(1,)]
    assert hub.database.one("SELECT count(*) FROM evidence") == 0


def test_broker_that_is_not_there_is_one_line(hub: Hub) -> None:
    config = hub.folder / "one.yaml"
    hub.start()
    text = json.loads((hub.folder / "ingest-0.yaml").read_text())
    text["broker"]["port"] = 1
    config.write_text(json.dumps(text))
    worker = subprocess.Popen(
        [sys.executable, "-m", "energy_hub", "ingest", "--config", config],
        cwd=Path(__file__).parents[3] / "hub",
        stdout=subprocess.DEVNULL,
    )
    hub.workers.append(worker)
    wait_until(lambda: "ERR CONNECTION_REFUSED broker localhost:1" in hub.log(), "the refusal is logged")


def test_a_site_is_answered_at_the_broker_it_is_connected_to(
    hub: Hub, broker: RunningBroker, other_broker: RunningBroker, authority: Authority
) -> None:
    hub.start(brokers=[hub.at(broker.port), hub.at(other_broker.port)])
    here, there = Site(broker, authority, "plant-a"), Site(other_broker, authority, "plant-b")
    for one in (here, there):
        one.online()
        assert one.acks.get(timeout=20)["watermark"] == 0
        one.send(one.gateway.batch(readings(0)))
    wait_until(lambda: here.committed == there.committed == {1}, "both acknowledged")
    with hub.database.connect("energy_ingest") as connection:
        assert step.run(connection, Ed25519PrivateKey.generate())
    assert {one.witnesses.get(timeout=20)["site"] for one in (here, there)} == {"plant-a", "plant-b"}

    # The site goes to the other broker, and the last will that it has left behind comes afterwards.
    moved = Site(other_broker, authority, "plant-a")
    moved.gateway = here.gateway
    assert moved.witnesses.get(timeout=20)["site"] == "plant-a"
    moved.online()
    assert moved.acks.get(timeout=20)["watermark"] == 1
    here.send(b'{"state": "offline", "site": "plant-a"}', "status", retain=True)
    moved.send(moved.gateway.batch(readings(1)))
    wait_until(lambda: moved.committed == {1, 2}, "acknowledged where it is now")
    assert here.committed == {1}
    here.send(b'{"state": "online"}', "status")
    wait_until(
        lambda: "expected energy/v1" in hub.log() or "is of site None" in hub.log(), "the will has come"
    )
    assert hub.database.one("SELECT state FROM site WHERE name = 'plant-a'") == "online"
    moved.send(b'{"state": "offline", "site": "plant-a"}', "status", retain=True)
    wait_until(
        lambda: hub.database.one("SELECT state FROM site WHERE name = 'plant-a'") == "offline",
        "its own counts",
    )
    for one in (here, there, moved):
        one.close()


def test_a_broker_that_is_away_holds_up_no_other(hub: Hub, site: Site) -> None:
    hub.start(brokers=[{**hub.at(1), "host": "127.0.0.1"}, hub.at(site.port)])
    wait_until(lambda: "WRN ready, without broker 127.0.0.1:1" in hub.log(), "it says who is missing")
    site.online()
    assert site.acks.get(timeout=20)["watermark"] == 0
    for number in range(20):
        site.send(site.gateway.batch(readings(number)))
    wait_until(lambda: site.committed == set(range(1, 21)), "all acknowledged", 15)
    assert "ERR CONNECTION_REFUSED broker 127.0.0.1:1" in hub.log()


def test_the_name_that_is_told_is_the_one_that_is_verified(hub: Hub) -> None:
    port = hub.broker.port
    hub.start(
        brokers=[
            {**hub.at(port), "server_name": "somebody.example"},
            {**hub.at(port), "host": "127.0.0.1", "server_name": "localhost"},
        ]
    )
    assert f"ERR CONNECTION_REFUSED broker localhost:{port}" in hub.log()
    assert f"connected to broker 127.0.0.1:{port}" in hub.log()


def nulls(count: int, number: int = 0) -> dict[str, list[Reading]]:
    """Many readings in few bytes."""
    return {"main/active_power": [(START + 1000 * (number * count + n), None, 129) for n in range(count)]}


def check_small_batches_with_many_readings(loud: Site, quiet: Site) -> None:
    """They wait for each other at a hub that takes a thousand readings of a site a second; the other site's do not."""
    sent = {number: loud.gateway.batch(nulls(10_000, number)) for number in range(1, 4)}
    for payload in sent.values():
        assert len(payload) < 400
        loud.send(payload)
    quiet.send(quiet.gateway.batch(readings(0)))
    wait_until(lambda: quiet.committed == {1}, "the other site is served", 60)
    wait_until(lambda: loud.committed == sent.keys(), "nothing is lost", 90)


def test_small_batches_with_many_readings_wait_and_the_other_sites_do_not(
    hub: Hub, broker: RunningBroker, authority: Authority
) -> None:
    hub.start(quota={"batches": 0, "bytes": 0, "readings": 1000, "burst": 1}, in_flight=80)
    loud, quiet = Site(broker, authority, "plant-a"), Site(broker, authority, "plant-b")
    for one in (loud, quiet):
        one.online()
        assert one.acks.get(timeout=20)
    check_small_batches_with_many_readings(loud, quiet)
    assert re.search("ERR quota: energy/v1/plant-a/batch: more than .* or 1000 readings a second", hub.log())
    assert hub.database.one("SELECT count(*) FROM reading") == 3 * 10_000 + 10
    # Of those that were sent before the other site's, some have come after it.
    last = "SELECT s.name FROM batch b JOIN site s ON s.id = b.site ORDER BY b.id DESC LIMIT 1"
    assert hub.database.one(last) == "plant-a"
    for one in (loud, quiet):
        one.close()


def test_a_site_over_its_quota_waits_and_the_others_do_not(
    hub: Hub, broker: RunningBroker, authority: Authority
) -> None:
    hub.start(quota={"batches": 10, "bytes": 0, "burst": 1}, in_flight=40)
    loud, quiet = Site(broker, authority, "plant-a"), Site(broker, authority, "plant-b")
    for one in (loud, quiet):
        one.online()
        assert one.acks.get(timeout=20)
    unsent = {number: loud.gateway.batch(readings(number)) for number in range(1, 61)}
    for payload in unsent.values():
        loud.send(payload)
    quiet.send(quiet.gateway.batch(readings(0)))
    wait_until(lambda: quiet.committed == {1}, "the other site is served at once", 5)
    assert len(loud.committed) < 30
    assert "ERR quota: energy/v1/plant-a/batch: more than 10 batches" in hub.log()
    assert "plant-b" not in hub.log().replace("site plant-b: signing key", "")

    def sent_again() -> bool:
        # What a gateway does after its resend time, with a window as it has.
        for number in sorted(unsent.keys() - loud.committed)[:5]:
            loud.send(unsent[number])
        time.sleep(1)
        return loud.committed == unsent.keys()

    wait_until(sent_again, "nothing is lost", 60)
    assert hub.database.one("SELECT count(*) FROM batch") == 61
    for one in (loud, quiet):
        one.close()
