# SPDX-License-Identifier: Apache-2.0
"""One connection to the hub's broker: MQTT 5 over TLS 1.3 with both certificates.

A link is used once. A new one is made for every try, so that renewed certificates are taken up and nothing
is repeated but what the delivery decides to repeat. Names are looked up, and TLS is agreed on, in a thread
that ends with that; from then on the service calls `service` when the socket has something, and whenever
`deadline` says. Nothing here waits.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from energy_collector import mqtt
from energy_collector.batches.varint import FormatError
from energy_collector.config import HubConfig
from energy_collector.hosts import resolvable

TOPIC_ROOT = "energy/v1"
# How long the broker may take for the answer to a PINGREQ, in s; a satellite needs a second of it.
PING_PATIENCE = 30.0
# The kernel takes more from us only while it holds less than this that was not sent yet, so that a live batch
# does not wait behind a long queue.
UNSENT_LIMIT = 16 << 10
READ_SIZE = 64 << 10
# One TLS record (RFC 8446, section 5.1).
RECORD_SIZE = 16 << 10
# Stays free for the status among the messages that the broker takes at once.
RESERVED = 2
# Message numbers are 1 to 65535.
LAST_NUMBER = 0xFFFF
HUNG_UP = "the broker was stopped, the link has failed, or another one uses our name"


class Ready(NamedTuple):
    """TLS is agreed on: the certificates are good. `begin` is next."""


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


class Witnessed(NamedTuple):
    """The hub says what it has signed."""

    payload: bytes


Event = Ready | Up | Down | Acked | Committed | Witnessed


class UnusableFilesError(OSError):
    """Certificate, key and CA are there, and cannot be used."""


def tls_context(hub: HubConfig) -> ssl.SSLContext:
    """TLS 1.3 and nothing older; raises OSError for files that cannot be read or used."""
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(hub.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(str(hub.certificate), str(hub.key))
    except ssl.SSLError as error:
        raise UnusableFilesError(error.reason or str(error)) from error
    return context


class Link:
    """A connection. `wake` is called from another thread when there is something for `service`."""

    def __init__(self, site: str, hub: HubConfig, will: bytes, wake: Callable[[], None]) -> None:
        self._site = site
        self._root = f"{TOPIC_ROOT}/{site}"
        self._hub = hub
        self._will = will
        self._wake = wake
        self._turn = threading.Lock()
        self._opened: ssl.SSLSocket | OSError | None = None
        self._closed = False
        self._socket: ssl.SSLSocket | None = None
        self._splitter = mqtt.Splitter()
        self._out = bytearray()
        self._number = 0
        self._unacknowledged: set[int] = set()
        self._limit = 0
        self._packet_size = 0
        self._alias_maximum = 0
        self._aliases: dict[str, int] = {}
        self._keepalive = float(hub.keepalive)
        self._up = False
        self._spoke = self._heard = 0.0
        self._pinged: float | None = None

    # Opening.

    def connect(self) -> None:
        """Look the name up, connect and agree on TLS; `Ready` or `Down` follows."""
        threading.Thread(target=self._open, name="connect", daemon=True).start()

    def _open(self) -> None:
        opened: ssl.SSLSocket | OSError
        try:
            opened = self._try()
        except OSError as error:
            opened = error
        with self._turn:
            self._opened = opened
            closed = self._closed
        if closed and isinstance(opened, ssl.SSLSocket):
            opened.close()
        self._wake()

    def _try(self) -> ssl.SSLSocket:
        context = tls_context(self._hub)
        host = resolvable(self._hub.host)
        # It takes bytes as getaddrinfo does, though its stub does not say so.
        where: Any = (host, self._hub.port)
        raw = socket.create_connection(where, timeout=self._hub.connect_timeout)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, self._hub.tcp_nodelay)
            # Bytes that nobody confirms for as long as that were sent into a dead path.
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._hub.keepalive * 1000)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_LIMIT)
            return context.wrap_socket(raw, server_hostname=host)
        except BaseException:
            raw.close()
            raise

    def begin(self) -> None:
        """Ask the broker to take us in; `Up` or `Down` follows."""
        self._send(mqtt.connect(self._site, self._hub.keepalive, will=(f"{self._root}/status", self._will)))

    # Sending.

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send with QoS 1; the number comes back in `Acked`."""
        number = self._next_number()
        name = f"{self._root}/{topic}"
        alias = self._aliases.get(name, 0)
        if alias:
            name = ""
        elif len(self._aliases) < self._alias_maximum:
            alias = self._aliases[name] = len(self._aliases) + 1
        self._unacknowledged.add(number)
        self._send(mqtt.publish(number, name, payload, alias, retain=retain))
        return number

    def _next_number(self) -> int:
        while True:
            self._number = self._number % LAST_NUMBER + 1
            if self._number not in self._unacknowledged:
                return self._number

    @property
    def has_room(self) -> bool:
        """Whether the broker takes one more batch now (section 4.9 of the standard), and the socket too."""
        free = self._limit - len(self._unacknowledged)
        return self._up and free > 0 and len(self._out) < UNSENT_LIMIT

    def fits(self, payload: bytes) -> bool:
        """Whether the broker takes a message of this size at all."""
        # Topic, length and properties are far below that.
        return len(payload) + 256 <= self._packet_size

    def close(self) -> None:
        """Hang up in order: the broker does not send the last will."""
        with self._turn:
            self._closed = True
            opened, self._opened = self._opened, None
        if self._socket is None and isinstance(opened, ssl.SSLSocket):
            opened.close()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # What cannot be sent at once is not waited for.
                self._out += mqtt.disconnect()
                self._flush()
                self._socket.unwrap()
            self._socket.close()
            self._socket = None

    # The service's part.

    @property
    def interest(self) -> tuple[int, int] | None:
        """The socket and what to poll it for; None while there is none."""
        if self._socket is None:
            return None
        return self._socket.fileno(), select.POLLIN | (select.POLLOUT if self._out else 0)

    def deadline(self) -> float | None:
        """When `service` has to be called even if nothing comes, monotonic s."""
        if not self._up:
            return None
        return self._pinged + PING_PATIENCE if self._pinged else self._ping_at()

    def _ping_at(self) -> float:
        return min(self._spoke, self._heard) + self._keepalive

    def service(self) -> list[Event]:
        """Do all that can be done without waiting; what has come of it. After a `Down` there is nothing
        more."""
        events: list[Event] = []
        try:
            if self._socket is None:
                self._take_opened(events)
            else:
                self._flush()
                self._receive(events)
                self._keep_alive()
        except FormatError as error:
            events.append(
                Down(f"the broker does not speak MQTT 5: {error}", "the port is that of something else")
            )
        except OSError as error:
            events.append(explain(error))
        return events

    def _take_opened(self, events: list[Event]) -> None:
        with self._turn:
            opened, self._opened = self._opened, None
        if isinstance(opened, OSError):
            raise opened
        if opened is not None:
            opened.setblocking(False)
            self._socket = opened
            self._spoke = self._heard = time.monotonic()
            events.append(Ready())

    def _send(self, data: bytes) -> None:
        self._out += data
        # A failure shows again when the socket is served, and is told there.
        with contextlib.suppress(OSError):
            self._flush()

    def _flush(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError):
            while self._out:
                sent = self._socket.send(bytes(self._out[:RECORD_SIZE]))
                del self._out[:sent]
                self._spoke = time.monotonic()

    def _receive(self, events: list[Event]) -> None:
        if self._socket is None:
            return
        while True:
            try:
                data = self._socket.recv(READ_SIZE)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                events.append(Down("the broker has hung up", HUNG_UP))
                return
            self._heard = time.monotonic()
            for packet in self._splitter.feed(data):
                if self._take(packet, events):
                    return

    def _take(self, packet: mqtt.Packet, events: list[Event]) -> bool:
        """Whether the connection is over."""
        if not self._limit and packet.kind != mqtt.CONNACK:
            raise FormatError(f"packet type {packet.kind} in place of CONNACK")
        if packet.kind == mqtt.PUBACK:
            number, code = mqtt.read_puback(packet.body)
            self._unacknowledged.discard(number)
            events.append(Acked(number, mqtt.reason(code) if code >= mqtt.FAILURE else ""))
        elif packet.kind == mqtt.PUBLISH:
            message = mqtt.read_publish(packet.flags, packet.body)
            if message.number is not None:
                self._send(mqtt.puback(message.number))
            kind = Witnessed if message.topic == f"{self._root}/witness" else Committed
            events.append(kind(message.payload))
        elif packet.kind == mqtt.PINGRESP:
            self._pinged = None
        elif packet.kind == mqtt.CONNACK:
            return self._on_connack(mqtt.read_connack(packet.body), events)
        elif packet.kind == mqtt.SUBACK:
            return self._on_suback(mqtt.read_suback(packet.body, 2), events)
        elif packet.kind == mqtt.DISCONNECT:
            code = mqtt.read_disconnect(packet.body)
            events.append(Down(f"the broker ends the connection: {mqtt.reason(code)}", HUNG_UP))
            return True
        else:
            raise FormatError(f"packet type {packet.kind}")
        return False

    def _on_connack(self, accepted: mqtt.Accepted, events: list[Event]) -> bool:
        if accepted.reason >= mqtt.FAILURE:
            cause = "the broker does not know this site, or another one uses its name"
            events.append(Down(f"the broker refuses: {mqtt.reason(accepted.reason)}", cause))
            return True
        self._limit = max(accepted.receive_maximum - RESERVED, 1)
        self._packet_size = accepted.packet_size
        self._alias_maximum = accepted.alias_maximum
        if accepted.keepalive is not None:
            self._keepalive = float(accepted.keepalive)
        # Acknowledgements come with QoS 0: each says all that is committed, so that the next one makes up for
        # one that the broker drops, and no packet is needed to confirm them. A witness is retained, and the next one
        # says more.
        topics = f"{self._root}/ack", f"{self._root}/witness"
        self._send(mqtt.subscribe(self._next_number(), *topics))
        return False

    def _on_suback(self, codes: bytes, events: list[Event]) -> bool:
        # Only from here on no acknowledgement can be missed. Without witnesses the delivery goes on.
        code = codes[0]
        if code >= mqtt.FAILURE:
            cause = "the broker's access list does not fit the common name of our certificate"
            events.append(Down(f"the broker refuses the topic ack: {mqtt.reason(code)}", cause))
            return True
        self._up = True
        events.append(Up())
        return False

    def _keep_alive(self) -> None:
        if not self._up:
            return
        now = time.monotonic()
        if self._pinged is not None:
            if now >= self._pinged + PING_PATIENCE:
                raise TimeoutError("no answer to a ping")
        elif now >= self._ping_at():
            self._pinged = now
            self._send(mqtt.ping())


def explain(error: OSError) -> Down:
    """What a fault of the socket, of TLS or of the files means."""
    if isinstance(error, UnusableFilesError):
        cause = "the certificate belongs to another key, or a file is damaged; run the identity role again"
        return Down(f"certificate, key and CA cannot be used: {error}", cause)
    if isinstance(error, ssl.SSLCertVerificationError):
        cause = "the hub's certificate is not from our CA or not for this name, or the clock is wrong"
        return Down(f"TLS: {error.verify_message}", cause)
    if isinstance(error, ssl.SSLError):
        cause = "our certificate is missing, expired or revoked, or the hub does not speak TLS 1.3"
        return Down(f"TLS: {error.reason or error}", cause)
    if isinstance(error, FileNotFoundError):
        cause = "the identity role has not run on this gateway yet"
        return Down(f"certificate or key is missing: {error.strerror}", cause)
    if isinstance(error, PermissionError):
        cause = "the private key does not belong to the user that the service runs as"
        return Down(f"certificate or key cannot be read: {error.strerror}", cause)
    if isinstance(error, socket.gaierror):
        return Down(
            f"the hub's name is not known: {error.strerror}", "DNS does not answer, or hub.host is wrong"
        )
    return Down(f"no connection: {error.strerror or error}", "the hub is down or cannot be reached")
