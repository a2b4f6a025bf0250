# SPDX-License-Identifier: Apache-2.0
"""What the broker accepts and refuses, tried by real clients over the network.

BROKER_ADDRESS is the broker's address; BROKER_FILES a folder with `ca/ca.crt` and, in `clients/`,
a key and a chain for plant-a, plant-b, ingest, a server, and a plant-a by another authority.
"""

from __future__ import annotations

import os
import queue
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

ADDRESS = os.environ["BROKER_ADDRESS"]
FILES = Path(os.environ["BROKER_FILES"])
NAME = "hub.energy.internal"
WAIT = 10.0
NOT_AUTHORIZED = 0x87
# An MQTT 5 CONNECT with a clean start, no properties and the client id "x".
CONNECT = bytes.fromhex("100e 0004 4d515454 05 02 003c 00 0001 78".replace(" ", ""))


def context(client: str | None) -> ssl.SSLContext:
    """TLS for a client of that name, or for one without a certificate."""
    made = ssl.create_default_context(cafile=str(FILES / "ca/ca.crt"))
    if client:
        made.load_cert_chain(FILES / f"clients/{client}.crt", FILES / f"clients/{client}.key")
    return made


def first_answer(tls: ssl.SSLContext) -> bytes:
    """Say hello, and return what comes back: with TLS 1.3 a client learns only then that it was refused."""
    plain = socket.create_connection((ADDRESS, 8883), WAIT)
    with plain, tls.wrap_socket(plain, server_hostname=NAME) as secure:
        secure.sendall(CONNECT)
        return secure.recv(16)


class NamedTls(ssl.SSLContext):
    """Checks the broker by its name although it is reached by its address."""

    def wrap_socket(self, *args: object, **options: object) -> ssl.SSLSocket:  # type: ignore[override]  # paho calls it so
        options["server_hostname"] = NAME
        return super().wrap_socket(*args, **options)  # type: ignore[arg-type]  # arguments of several types


class Client:
    """A connected client with its received messages and its disconnections in queues."""

    def __init__(self, certificate: str, client_id: str = "") -> None:
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.published: queue.Queue[int] = queue.Queue()
        self.subscribed: queue.Queue[int] = queue.Queue()
        self.connected: queue.Queue[int] = queue.Queue()
        self.lost: queue.Queue[int] = queue.Queue()
        tls = NamedTls(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_verify_locations(FILES / "ca/ca.crt")
        tls.load_cert_chain(FILES / f"clients/{certificate}.crt", FILES / f"clients/{certificate}.key")
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=mqtt.MQTTv5, reconnect_on_failure=False
        )
        self.mqtt.tls_set_context(tls)
        self.mqtt.on_message = lambda _c, _u, message: self.messages.put((message.topic, message.payload))
        self.mqtt.on_publish = lambda _c, _u, _mid, reason, _p: self.published.put(reason.value)
        self.mqtt.on_subscribe = lambda _c, _u, _mid, reasons, _p: self.subscribed.put(reasons[0].value)
        self.mqtt.on_connect = lambda _c, _u, _f, reason, _p: self.connected.put(reason.value)
        self.mqtt.on_disconnect = lambda _c, _u, _f, reason, _p: self.lost.put(reason.value)

    def publish(self, topic: str, payload: bytes = b"x") -> int:
        """Publish with QoS 1 and return the broker's reason code."""
        self.mqtt.publish(topic, payload, qos=1)
        return self.published.get(timeout=WAIT)

    def subscribe(self, topic: str) -> None:
        self.mqtt.subscribe(topic, qos=1)
        self.subscribed.get(timeout=WAIT)


@contextmanager
def client(certificate: str, client_id: str = "") -> Iterator[Client]:
    made = Client(certificate, client_id)
    made.mqtt.connect(ADDRESS, 8883, keepalive=30)
    made.mqtt.loop_start()
    try:
        assert made.connected.get(timeout=WAIT) == 0
        yield made
    finally:
        made.mqtt.disconnect()
        made.mqtt.loop_stop()


def test_a_site_is_accepted_with_tls_1_3() -> None:
    assert first_answer(context("plant-a"))[0] >> 4 == 2  # CONNACK
    plain = socket.create_connection((ADDRESS, 8883), WAIT)
    with plain, context("plant-a").wrap_socket(plain, server_hostname=NAME) as secure:
        assert secure.version() == "TLSv1.3"


def test_tls_1_2_is_refused() -> None:
    old = context("plant-a")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        first_answer(old)


@pytest.mark.parametrize(
    "certificate", [None, "foreign", "hub.energy.internal"], ids=["none", "foreign", "server"]
)
def test_a_certificate_is_refused(certificate: str | None) -> None:
    """Whether the alert or the end comes first is a race; the broker's journal has the reason."""
    try:
        answer = first_answer(context(certificate))
    except OSError:
        answer = b""
    assert answer == b""


def test_plain_mqtt_is_refused() -> None:
    with pytest.raises(ConnectionRefusedError), socket.create_connection((ADDRESS, 1883), WAIT):
        pass
    with socket.create_connection((ADDRESS, 8883), WAIT) as plain:
        plain.sendall(CONNECT)
        try:
            answer = plain.recv(16)
        except ConnectionResetError:
            answer = b""
        assert answer[:1] in (b"", b"\x15")  # closed, or a TLS alert


def test_a_site_writes_its_own_topics_and_the_ingest_reads_them() -> None:
    with client("ingest") as ingest, client("plant-a") as site:
        ingest.subscribe("energy/v1/+/batch")
        assert site.publish("energy/v1/plant-a/batch", b"reading") == 0
        assert ingest.messages.get(timeout=WAIT) == ("energy/v1/plant-a/batch", b"reading")
        assert site.publish("energy/v1/plant-a/status") in (0, 0x10)  # 0x10: nobody listens
        assert site.publish("energy/v1/plant-a/result") in (0, 0x10)


@pytest.mark.parametrize(
    "topic", ["plant-b/batch", "plant-b/status", "plant-a/ack", "plant-a/command", "plant-a/other", "+"]
)
def test_a_site_writes_nothing_else(topic: str) -> None:
    if "+" in topic:
        topic = "plant-a/batch/deeper"
    with client("plant-a") as site:
        assert site.publish(f"energy/v1/{topic}") == NOT_AUTHORIZED


def test_a_site_reads_its_own_acknowledgements_only() -> None:
    with client("ingest") as ingest, client("plant-a") as a, client("plant-b") as b:
        b.subscribe("energy/v1/#")
        b.subscribe("energy/v1/plant-a/ack")
        a.subscribe("energy/v1/plant-a/ack")
        ingest.publish("energy/v1/plant-a/ack", b"for a")
        ingest.publish("energy/v1/plant-b/ack", b"for b")
        assert a.messages.get(timeout=WAIT) == ("energy/v1/plant-a/ack", b"for a")
        # Messages of one publisher arrive in order: what was for plant-a would have come first.
        assert b.messages.get(timeout=WAIT) == ("energy/v1/plant-b/ack", b"for b")


def test_a_site_cannot_take_the_session_of_another() -> None:
    with client("plant-a", "plant-a") as a, client("plant-b", "plant-a") as b:
        assert b.publish("energy/v1/plant-b/batch") in (0, 0x10)
        assert a.publish("energy/v1/plant-a/batch") in (0, 0x10)
        assert a.lost.empty()


def test_a_second_session_of_a_site_ends_the_first() -> None:
    with client("plant-a", "one") as first, client("plant-a", "two"):
        assert first.lost.get(timeout=WAIT) >= 0x80


def test_a_payload_that_is_too_large_is_refused() -> None:
    with client("plant-a") as site:
        assert site.publish("energy/v1/plant-a/batch", bytes(1048576)) in (0, 0x10)
        site.mqtt.publish("energy/v1/plant-a/batch", bytes(1048577), qos=1)
        assert site.lost.get(timeout=WAIT) >= 0x80
        assert site.published.empty()


def test_what_arrives_while_the_ingest_is_away_waits_for_it() -> None:
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3600
    away = Client("ingest")
    away.mqtt.connect(ADDRESS, 8883, clean_start=True, properties=properties)
    away.mqtt.loop_start()
    away.connected.get(timeout=WAIT)
    away.subscribe("energy/v1/+/batch")
    away.mqtt.disconnect()
    away.mqtt.loop_stop()
    with client("plant-b") as site:
        assert site.publish("energy/v1/plant-b/batch", b"kept") == 0
    away.mqtt.connect(ADDRESS, 8883, clean_start=False, properties=properties)
    away.mqtt.loop_start()
    assert away.messages.get(timeout=WAIT) == ("energy/v1/plant-b/batch", b"kept")
    away.mqtt.disconnect()
    away.mqtt.loop_stop()
