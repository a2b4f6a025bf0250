# SPDX-License-Identifier: Apache-2.0
"""The links to the brokers, of which each has a thread of its own: one that is away holds up no other."""

from __future__ import annotations

import itertools
import logging
import socket
import ssl
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from energy_hub.config import Broker
from energy_hub.logs import Throttle
from energy_hub.pipeline import MAX_STATUS, ROOT

log = logging.getLogger(__name__)

KEEPALIVE = 30
# Beyond the largest batch that is read, so that what is a little too large is kept as evidence; what is
# larger still is dropped by the broker and never gets here.
PACKET_ALLOWANCE = 4


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came. It is answered on the link that it came by, and may only be acknowledged on the same
    connection of it; `connection` counts those."""

    topic: str
    payload: bytes
    retain: bool
    mid: int
    qos: int
    link: BrokerLink
    connection: int

    @property
    def is_batch(self) -> bool:
        return self.topic.endswith("/batch")

    @property
    def is_current(self) -> bool:
        """Whether it is still the broker's to be acknowledged. What an old connection has brought comes again, from
        the broker or from the gateways."""
        return self.connection == self.link.connection


class Inbox:
    """What all links have brought, in the order in which it came. Batches are bounded by the brokers, each of which
    hands over so many messages before the first of them is receipted; they come with QoS 1 only. Statuses may come with
    QoS 0, of which a broker hands over any number: one of each site and link is here, the newest, in the place of the
    first, so that a key is known before the batches that it has signed."""

    def __init__(self) -> None:
        self._places: OrderedDict[object, Message] = OrderedDict()
        self._count = itertools.count()
        self._changed = threading.Condition()

    def put(self, message: Message) -> None:
        place = next(self._count) if message.is_batch else (message.topic, message.link)
        with self._changed:
            overtaken = self._places.get(place)
            self._places[place] = message
            self._changed.notify()
        if overtaken is not None:
            message.link.done(overtaken)

    def __len__(self) -> int:
        return len(self._places)

    def take(self, timeout: float) -> Message | None:
        """The next one; None when there is none in so many s."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._places, timeout):
                return None
            return self._places.popitem(last=False)[1]

    def forget(self, link: BrokerLink) -> None:
        """What came by a connection that is no more."""
        with self._changed:
            self._places = OrderedDict(
                (place, one) for place, one in self._places.items() if one.link is not link
            )


class _Client(mqtt.Client):
    """The library ends its thread at a message that it takes for malformed and that the broker has let through, for
    instance with U+FEFF in a property. Such a message would come again with every connection, and end each."""

    on_malformed: Callable[[str, str], None]

    def _handle_publish(self) -> MQTTErrorCode:
        try:
            return super()._handle_publish()
        except MalformedPacket as error:
            packet = bytes(self._in_packet["packet"])
            end = 2 + int.from_bytes(packet[:2], "big")
            self.on_malformed(packet[2:end].decode("utf-8", "replace"), str(error))
            # Behind the topic, and with QoS 1 only.
            mid = int.from_bytes(packet[end : end + 2], "big")
            is_receipted = self._in_packet["command"] & 6 == 2
            return self.ack(mid, 1) if is_receipted else MQTTErrorCode.MQTT_ERR_SUCCESS


class BrokerLink:
    """A connection to one broker, which comes back by itself; what it brings goes into the inbox of all."""

    def __init__(self, broker: Broker, inbox: Inbox, in_flight: int, batch_bytes: int) -> None:
        self._broker = broker
        self._inbox = inbox
        self._in_flight = in_flight
        self._batch_bytes = batch_bytes
        self._connection = 0
        self._refused = Throttle(60.0)
        self._dropped = Throttle(300.0)
        # Messages since the start, and those of them that were not even looked at; of this connection, those that were
        # not receipted yet.
        self.received = 0
        self.dropped = 0
        self.unacknowledged = 0
        self._counting = threading.Lock()
        self.subscribed = threading.Event()
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=broker.client_id,
            protocol=mqtt.MQTTv5,
            manual_ack=True,
        )
        client.tls_set_context(tls_context(broker))
        client.reconnect_delay_set(1, 30)
        # Acknowledgements on their way: below what a broker takes by default. Beyond the queue's bound they
        # are dropped, and the gateways send again.
        client.max_inflight_messages_set(20)
        client.max_queued_messages_set(10_000)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_malformed = self._on_malformed
        self._client = client

    def start(self) -> None:
        # paho-mqtt leaves this constructor untyped.
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types here
        properties.SessionExpiryInterval = self._broker.session_expiry
        properties.ReceiveMaximum = self._in_flight
        properties.MaximumPacketSize = max(PACKET_ALLOWANCE * self._batch_bytes, 2 * MAX_STATUS)
        self._client.connect_async(
            self._broker.host, self._broker.port, KEEPALIVE, clean_start=False, properties=properties
        )
        self._client.loop_start()

    @property
    def where(self) -> str:
        """Host and port, for people."""
        return self._broker.where

    def leave(self) -> None:
        """Leaves the session at the broker, which keeps what comes for us until it expires."""
        # paho-mqtt leaves this constructor untyped.
        properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]  # paho has no types here
        properties.SessionExpiryInterval = self._broker.session_expiry
        self._client.disconnect(properties=properties)

    def stop(self) -> None:
        """After `leave`: wait until the connection has ended."""
        self._client.loop_stop()

    @property
    def connection(self) -> int:
        """How often the broker has taken us in; another number is another broker's memory, perhaps."""
        return self._connection

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Nothing is queued for a broker that is away: a gateway that misses an acknowledgement sends
        again."""
        if self._client.is_connected():
            self._client.publish(topic, payload, qos=1, retain=retain)

    def done(self, message: Message) -> None:
        """PUBACK. On another connection than its own the broker has forgotten the message or sends it
        again."""
        if message.qos == 1 and message.is_current:
            self._client.ack(message.mid, 1)
            with self._counting:
                self.unacknowledged -= 1

    def _on_connect(
        self,
        client: mqtt.Client,
        _userdata: object,
        _flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._say_refused(str(reason))
            return
        with self._counting:
            self._connection += 1
            self.unacknowledged = 0
        # It comes again, and would fill the memory of a worker whose database is away.
        self._inbox.forget(self)
        # Status first: keys should be known before the batches they signed.
        client.subscribe(
            [
                (f"{ROOT}/+/status", SubscribeOptions(qos=1)),
                (f"$share/ingest/{ROOT}/+/batch", SubscribeOptions(qos=1)),
            ]
        )
        log.info("connected to broker %s as %s", self.where, self._broker.client_id)

    def _on_subscribe(
        self,
        _client: mqtt.Client,
        _userdata: object,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            log.error(
                "ERR CONNECTION_REFUSED broker %s refuses the subscriptions (%s);"
                " probable cause: its access list does not let this certificate read %s",
                self.where,
                ", ".join(map(str, reasons)),
                ROOT,
            )
            return
        self.subscribed.set()

    def _on_connect_fail(self, _client: mqtt.Client, _userdata: object) -> None:
        self._say_refused("no connection; probable cause: broker down, name or address wrong, or TLS refused")

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _userdata: object,
        _flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self.subscribed.clear()
        log.warning("disconnected from broker %s: %s", self.where, reason)

    def _say_refused(self, why: str) -> None:
        if self._refused(why) is not None:
            log.error("ERR CONNECTION_REFUSED broker %s: %s; retrying", self.where, why)

    def _on_message(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        payload = bytes(message.payload)
        found = Message(topic, payload, message.retain, message.mid, message.qos, self, self._connection)
        # The broker waits for no receipt of it, and would fill the memory of a worker whose database is away.
        is_dropped = found.is_batch and found.qos == 0
        with self._counting:
            self.received += 1
            self.dropped += is_dropped
            self.unacknowledged += found.qos == 1
        if is_dropped:
            self._say_dropped(topic, "a batch with QoS 0, and QoS 1 is asked for")
        else:
            self._inbox.put(found)

    def _on_malformed(self, topic: str, why: str) -> None:
        with self._counting:
            self.received += 1
            self.dropped += 1
        self._say_dropped(topic, f"the MQTT library cannot read it: {why}")

    def _say_dropped(self, topic: str, why: str) -> None:
        held = self._dropped((topic, why))
        if held is not None:
            more = f" (and {held} more like it before)" if held else ""
            log.error("ERR dropped: %s: %s%s", topic, why, more)


class _Context(ssl.SSLContext):
    """Asks for the name that the configuration says: the MQTT client knows only the host that it connects to."""

    server_name: str

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(sock, *args, **options | {"server_hostname": self.server_name})


def tls_context(broker: Broker) -> ssl.SSLContext:
    """TLS 1.3 only, both sides with certificates. Raises OSError (ssl.SSLError is one)."""
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = broker.server_name
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(broker.ca)
    context.load_cert_chain(broker.certificate, broker.key)
    return context
