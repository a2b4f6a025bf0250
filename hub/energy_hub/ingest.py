# SPDX-License-Identifier: Apache-2.0
"""The ingest worker: from the broker to the database, and the acknowledgement back.

Two threads. The MQTT client's thread puts messages into a queue; the worker's thread takes groups of them
out, commits each group, publishes what is committed, and only then lets the broker forget the messages
(PUBACK). The broker's receive maximum bounds the queue, so a database that is away stops the flow without
filling memory.
"""

from __future__ import annotations

import itertools
import json
import logging
import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import paho.mqtt.client as mqtt
import psycopg
from cryptography import x509
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from energy_hub.config import Broker, Config
from energy_hub.logs import Throttle
from energy_hub.notify import notify
from energy_hub.pipeline import (
    MAX_STATUS,
    ROOT,
    Unreadable,
    Untrusted,
    examine,
    learn_key,
    read_status,
    split_topic,
)
from energy_hub.revocation import Revocations
from energy_hub.store import Committed, Ranges, Signed, Store, StreamKey
from energy_hub.trust import TrustError

log = logging.getLogger(__name__)

RETRY_FIRST, RETRY_MOST = 0.5, 30.0
KEEPALIVE = 30
# Beyond the largest batch that is read, so that what is a little too large is kept as evidence; what is
# larger still is dropped by the broker and never gets here.
PACKET_ALLOWANCE = 4
SUMMARY_EVERY = 60.0
# Faults of what is being stored, not of the database: classes 22 and 23 of the SQLSTATE table.
FAULTS_OF_THE_DATA = (psycopg.DataError, psycopg.IntegrityError)

Action = Callable[[Store], object]


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came; `connection` counts the connections to the broker, because a message may only be
    acknowledged on the connection it came by."""

    topic: str
    payload: bytes
    retain: bool
    mid: int
    qos: int
    connection: int


def acknowledgement(stream: bytes, ranges: Ranges) -> bytes:
    """The JSON of an `ack` from all committed sequences of a stream."""
    watermark = 0
    above = list(ranges)
    if above and above[0][0] == 1:
        watermark = above.pop(0)[1]
    return json.dumps(
        {"stream": stream.hex(), "watermark": watermark, "ranges": [list(one) for one in above]}
    ).encode()


class BrokerLink:
    """The MQTT side: a connection that comes back by itself, and a bounded queue of what it brought."""

    def __init__(self, broker: Broker, in_flight: int, batch_bytes: int) -> None:
        self._broker = broker
        self._in_flight = in_flight
        self._batch_bytes = batch_bytes
        self._connection = 0
        self._refused = Throttle(60.0)
        self.messages: queue.Queue[Message] = queue.Queue()
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

    def stop(self) -> None:
        """Leaves the session at the broker, which keeps what comes for us until it expires."""
        # paho-mqtt leaves this constructor untyped.
        properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]  # paho has no types here
        properties.SessionExpiryInterval = self._broker.session_expiry
        self._client.disconnect(properties=properties)
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes) -> None:
        """Nothing is queued for a broker that is away: a gateway that misses an acknowledgement sends
        again."""
        if self._client.is_connected():
            self._client.publish(topic, payload, qos=1)

    def done(self, message: Message) -> None:
        """PUBACK. On another connection than its own the broker has forgotten the message or sends it
        again."""
        if message.qos == 1 and message.connection == self._connection:
            self._client.ack(message.mid, 1)

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
        self._connection += 1
        # What the old connection brought comes again, from the broker or from the gateways.
        while True:
            try:
                self.messages.get_nowait()
            except queue.Empty:
                break
        # Status first: keys should be known before the batches they signed.
        client.subscribe(
            [
                (f"{ROOT}/+/status", SubscribeOptions(qos=1)),
                (f"$share/ingest/{ROOT}/+/batch", SubscribeOptions(qos=1)),
            ]
        )
        log.info("connected to broker %s:%d as %s", *self._where, self._broker.client_id)

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
                "ERR CONNECTION_REFUSED broker %s:%d refuses the subscriptions (%s);"
                " probable cause: its access list does not let this certificate read %s",
                *self._where,
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
        log.warning("disconnected from broker %s:%d: %s", *self._where, reason)

    def _say_refused(self, why: str) -> None:
        if self._refused(why) is not None:
            log.error("ERR CONNECTION_REFUSED broker %s:%d: %s; retrying", *self._where, why)

    def _on_message(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self.messages.put(
            Message(topic, bytes(message.payload), message.retain, message.mid, message.qos, self._connection)
        )

    @property
    def _where(self) -> tuple[str, int]:
        return self._broker.host, self._broker.port


def tls_context(broker: Broker) -> ssl.SSLContext:
    """TLS 1.3 only, both sides with certificates. Raises OSError (ssl.SSLError is one)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(broker.ca)
    context.load_cert_chain(broker.certificate, broker.key)
    return context


class Worker:
    """Takes messages from the link to the store until it is stopped."""

    def __init__(
        self, config: Config, authorities: Sequence[x509.Certificate], revocations: Revocations
    ) -> None:
        self._config = config
        self._authorities = authorities
        self._revocations = revocations
        self._link = BrokerLink(config.broker, config.in_flight, config.batch_bytes)
        self._store: Store | None = None
        self._stop = threading.Event()
        self._throttle = Throttle(300.0)
        self._trouble = Throttle(30.0)
        self._done = Committed()
        self._next_summary = time.monotonic() + SUMMARY_EVERY

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Until `stop`; returns with everything that was committed also acknowledged."""
        self._connect_store()
        self._link.start()
        ready = False
        try:
            while not self._stop.is_set():
                if not ready and self._link.subscribed.is_set():
                    ready = True
                    notify("READY=1")
                    log.info("ready")
                messages = list(self._take())
                self._revocations.refresh()
                self._process(messages)
                self._summarise()
        finally:
            notify("STOPPING=1")
            self._link.stop()
            if self._store is not None:
                self._store.close()

    def _take(self) -> Iterator[Message]:
        """A group of messages: all that is there, up to the bounds; waits at most half a second for the
        first."""
        group = self._config.group
        try:
            yield self._link.messages.get(timeout=0.5)
        except queue.Empty:
            return
        deadline = time.monotonic() + group.wait
        for _ in range(group.batches - 1):
            try:
                yield self._link.messages.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return

    def _process(self, messages: list[Message]) -> None:
        """Work through the messages in their order: runs of batches in groups, each status by itself."""
        for is_batch, run in itertools.groupby(messages, key=lambda one: one.topic.endswith("/batch")):
            if is_batch:
                self._batches(list(run))
            else:
                for message in run:
                    self._persist_one(message, partial(self._status, message=message))
                    self._finish([message])

    # --- the database, which may be away

    def _persist(self, action: Action) -> None:
        """Do `action` until the database has taken it or the worker is stopped."""
        delay = RETRY_FIRST
        while not self._stop.is_set():
            if self._store is None and not self._connect_store():
                return
            assert self._store is not None
            try:
                action(self._store)
            except FAULTS_OF_THE_DATA:
                raise
            except psycopg.Error as error:
                self._say_trouble(error)
                # A new connection also forgets what was remembered of a database that may have been restored.
                self._store.close()
                self._store = None
            else:
                return
            self._stop.wait(delay)
            delay = min(2 * delay, RETRY_MOST)

    def _persist_one(self, message: Message, action: Action) -> None:
        """The same for what belongs to one message; a message that the database refuses is dropped, with a
        line."""
        try:
            self._persist(action)
        except FAULTS_OF_THE_DATA as error:
            self._say(
                (message.topic, "refused"), "ERR %s: the database refuses it: %s", message.topic, _line(error)
            )

    def _connect_store(self) -> bool:
        delay = RETRY_FIRST
        while not self._stop.is_set():
            try:
                self._store = Store(self._config.database)
            except psycopg.Error as error:
                self._say_trouble(error)
                self._stop.wait(delay)
                delay = min(2 * delay, RETRY_MOST)
            else:
                log.info("connected to database %s", self._config.database)
                return True
        return False

    def _say_trouble(self, error: psycopg.Error) -> None:
        text = _line(error)
        if self._trouble(text) is None:
            return
        lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
        log.error(
            "ERR %sdatabase: %s; retrying, nothing is lost", "CONNECTION_REFUSED " if lost else "", text
        )

    # --- batches

    def _batches(self, messages: Sequence[Message]) -> None:
        """Examine and commit; one transaction for up to the bound of readings."""
        signed: list[Signed] = []
        waiting: list[Message] = []
        readings = counted = 0
        for message in messages:
            self._persist_one(message, partial(self._sort, message=message, signed=signed))
            waiting.append(message)
            readings += sum(one.body.readings for one in signed[counted:] if one.body)
            counted = len(signed)
            if readings >= self._config.group.readings:
                self._commit(signed)
                self._finish(waiting)
                signed, waiting = [], []
                readings = counted = 0
        self._commit(signed)
        self._finish(waiting)

    def _sort(self, store: Store, message: Message, signed: list[Signed]) -> None:
        try:
            site, _ = split_topic(message.topic)
        except ValueError as error:
            self._say("topic", "ERR %s", str(error))
            return
        match examine(store, site, message.payload, self._config.batch_bytes, self._revocations):
            case Signed() as one:
                signed.append(one)
            case Unreadable(reason):
                store.quarantine(site, message.payload, reason)
                self._say((site, "unreadable"), "ERR quarantine: site %s: batch: %s", site, reason)
            case Untrusted(reason):
                self._say((site, "untrusted"), "ERR untrusted: site %s: %s; not acknowledged", site, reason)

    def _commit(self, signed: list[Signed]) -> None:
        if not signed:
            return
        try:
            self._persist(partial(self._commit_group, signed=signed))
        except FAULTS_OF_THE_DATA as error:
            if len(signed) > 1:
                # One of them is at fault; the others must not wait for it.
                for one in signed:
                    self._commit([one])
                return
            reason = f"the database refuses it: {_line(error)}"
            if signed[0].body is None:
                self._say(
                    (signed[0].site, "refused"), "ERR site %s: %s; not acknowledged", signed[0].site, reason
                )
                return
            self._commit([unreadable(signed[0], reason)])

    def _commit_group(self, store: Store, signed: Sequence[Signed]) -> None:
        result = store.commit(signed)
        for key, ranges in result.streams.items():
            self._acknowledge(key, ranges)
        for one in signed:
            if one.body is None:
                log.error(
                    "ERR quarantine: site %s sequence %d: %s", one.site, one.envelope.sequence, one.reason
                )
        self._done.batches += result.batches
        self._done.readings += result.readings
        self._done.duplicates += result.duplicates

    def _summarise(self) -> None:
        """A line a minute rather than one a commit; nothing while nothing comes."""
        if time.monotonic() < self._next_summary:
            return
        self._next_summary = time.monotonic() + SUMMARY_EVERY
        done, self._done = self._done, Committed()
        if done.batches or done.duplicates:
            log.info(
                "committed %d batches with %d readings, and met %d again, in the last %.0f s",
                done.batches,
                done.readings,
                done.duplicates,
                SUMMARY_EVERY,
            )

    def _finish(self, messages: Sequence[Message]) -> None:
        if not self._stop.is_set():
            for message in messages:
                self._link.done(message)

    def _acknowledge(self, key: StreamKey, ranges: Ranges) -> None:
        self._link.publish(f"{ROOT}/{key.site}/ack", acknowledgement(key.stream, ranges))

    # --- status

    def _status(self, store: Store, message: Message) -> None:
        try:
            site, _ = split_topic(message.topic)
            if not message.payload:
                return  # a retained status was deleted
            status = read_status(site, message.payload)
        except ValueError as error:
            self._say((message.topic, "status"), "ERR status %s: %s", message.topic, str(error))
            return
        if status.state == "online":
            try:
                new = learn_key(store, site, status, self._authorities, self._revocations)
            except TrustError as error:
                self._say((site, "key"), "ERR untrusted: site %s: key statement: %s", site, str(error))
                return
            if new is not None:
                log.info("site %s: signing key %s trusted from now on", site, new.hex())
        store.set_status(
            site, status.state, status.kept, seen=status.state == "online" and not message.retain
        )
        if status.state == "online" and status.stream is not None:
            key = StreamKey(site, status.stream)
            self._acknowledge(key, store.committed(key))

    def _say(self, key: object, text: str, *values: object) -> None:
        held = self._throttle(key)
        if held is not None:
            more = f" (and {held} more like it before)" if held else ""
            log.error(text + "%s", *values, more)


def unreadable(one: Signed, reason: str) -> Signed:
    """The same batch, to be quarantined."""
    return Signed(one.site, one.site_id, one.key_id, one.payload, one.envelope, None, reason)


def _line(error: psycopg.Error) -> str:
    return " ".join(str(error).split()) or type(error).__name__
