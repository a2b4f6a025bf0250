# SPDX-License-Identifier: Apache-2.0
"""One connection to the hub's broker: MQTT 5 over TLS 1.3 with both certificates.

A link is used once. A new one is made for every try, so that renewed certificates are taken up and paho's
own queue never repeats
what the delivery decides to repeat. All that happens is put on `events`, since paho calls from a thread of
its own.
"""

from __future__ import annotations

import queue
import ssl
import threading
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from energy_collector.config import HubConfig

KEEPALIVE = 60
CONNECT_TIMEOUT = 10.0
TOPIC_ROOT = "energy/v1"


class Up(NamedTuple):
    """The broker has taken us in."""


class Down(NamedTuple):
    """The connection is gone, or never came."""

    reason: str
    cause: str


class Acked(NamedTuple):
    """The broker has received a message (PUBACK)."""

    message: int
    reason: str


class Committed(NamedTuple):
    """The hub says what it has committed."""

    payload: bytes


Event = Up | Down | Acked | Committed


def tls_context(hub: HubConfig) -> ssl.SSLContext:
    """TLS 1.3 and nothing older; raises OSError (ssl.SSLError too) for unusable files."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(hub.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(str(hub.certificate), str(hub.key))
    return context


class Link:
    """A connection. All that happens to it comes as events."""

    def __init__(self, site: str, hub: HubConfig, will: bytes, events: queue.SimpleQueue[Event]) -> None:
        self._root = f"{TOPIC_ROOT}/{site}"
        self._hub = hub
        self._events = events
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=site,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        self._client.will_set(f"{self._root}/status", will, qos=1, retain=True)
        self._client.connect_timeout = CONNECT_TIMEOUT
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message
        self._turn = threading.Lock()
        self._started = False
        self._closed = False

    def connect(self) -> None:
        """Connect in a thread of its own, since a peer that stalls would hold the service; `Up` or `Down` follows."""
        threading.Thread(target=self._connect, name="connect", daemon=True).start()

    def _connect(self) -> None:
        down = self._try()
        if down is not None:
            self._events.put(down)
            return
        with self._turn:
            if self._closed:
                self._client.disconnect()
                return
            self._client.loop_start()
            self._started = True

    def _try(self) -> Down | None:
        try:
            self._client.tls_set_context(tls_context(self._hub))
            self._client.connect(self._hub.host, self._hub.port, KEEPALIVE, clean_start=True)
        except ssl.SSLCertVerificationError as error:
            cause = "the hub's certificate is not from our CA, or the clock is wrong"
            return Down(f"TLS: {error.verify_message}", cause)
        except ssl.SSLError as error:
            cause = "our certificate is missing, expired or revoked, or the hub does not speak TLS 1.3"
            return Down(f"TLS: {error.reason or error}", cause)
        except FileNotFoundError as error:
            cause = "the identity role has not run on this gateway yet"
            return Down(f"certificate or key is missing: {error.strerror}", cause)
        except PermissionError as error:
            cause = "the private key does not belong to the user that the service runs as"
            return Down(f"certificate or key cannot be read: {error.strerror}", cause)
        except OSError as error:
            return Down(f"no connection: {error.strerror or error}", "the hub is down or cannot be reached")
        return None

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send with QoS 1; the number comes back in `Acked`."""
        return self._client.publish(f"{self._root}/{topic}", payload, qos=1, retain=retain).mid

    def close(self) -> None:
        """Hang up in order: the broker does not send the last will."""
        with self._turn:
            self._closed = True
            self._client.disconnect()
            started = self._started
        if started:
            self._client.loop_stop()

    # paho passes each callback its own list of arguments; those that nobody needs are taken as `_`.

    def _on_connect(
        self, client: mqtt.Client, _data: Any, _flags: Any, reason: ReasonCode, _more: Any
    ) -> None:
        if reason.is_failure:
            cause = "the broker does not know this site, or another one uses its name"
            self._events.put(Down(f"the broker refuses: {reason}", cause))
            return
        client.subscribe(f"{self._root}/ack", qos=1)

    def _on_connect_fail(self, *_: Any) -> None:
        self._events.put(Down("no connection", "the hub is down or cannot be reached"))

    def _on_subscribe(
        self, _client: Any, _data: Any, _mid: int, reasons: list[ReasonCode], _more: Any
    ) -> None:
        # Only from here on no acknowledgement can be missed.
        if any(reason.is_failure for reason in reasons):
            cause = "the broker's access list does not fit the common name of our certificate"
            self._events.put(Down(f"the broker refuses the topic ack: {reasons[0]}", cause))
        else:
            self._events.put(Up())

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _more: Any) -> None:
        cause = "the link or the broker has failed, or another one took our session over"
        self._events.put(Down(f"disconnected: {reason}", cause))

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: ReasonCode, _more: Any) -> None:
        self._events.put(Acked(mid, str(reason) if reason.is_failure else ""))

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        self._events.put(Committed(bytes(message.payload)))
