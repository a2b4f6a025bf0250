# SPDX-License-Identifier: Apache-2.0
"""The links to the brokers, of which each has a thread of its own: one that is away holds up no other."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
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
    def is_current(self) -> bool:
        """Whether it is still the broker's to be acknowledged. What an old connection has brought comes again, from
        the broker or from the gateways."""
        return self.connection == self.link.connection


class Inbox:
    """What all links have brought, in the order in which it came. The brokers bound it: each hands over so many
    messages before the first of them is acknowledged."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._changed = threading.Condition()

    def put(self, message: Message) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify()

    def __len__(self) -> int:
        return len(self._messages)

    def take(self, timeout: float) -> Message | None:
        """The next one; None when there is none in so many s."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._messages, timeout):
                return None
            return self._messages.popleft()

    def forget(self, link: BrokerLink) -> None:
        """What came by a connection that is no more."""
        with self._changed:
            self._messages = deque(one for one in self._messages if one.link is not link)


class BrokerLink:
    """A connection to one broker, which comes back by itself; what it brings goes into the inbox of all."""

    def __init__(self, broker: Broker, inbox: Inbox, in_flight: int, batch_bytes: int) -> None:
        self._broker = broker
        self._inbox = inbox
        self._in_flight = in_flight
        self._batch_bytes = batch_bytes
        self._connection = 0
        self._refused = Throttle(60.0)
        # Messages since the start; of this connection, those that were not receipted yet.
        self.received = 0
        self.unacknowledged = 0
        self._counting = threading.Lock()
        self.subscribed = threading.Event()
        client = mqtt.Client(
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
        with self._counting:
            self.received += 1
            self.unacknowledged += message.qos == 1
        self._inbox.put(
            Message(topic, payload, message.retain, message.mid, message.qos, self, self._connection)
        )


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
