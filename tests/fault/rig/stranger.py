# SPDX-License-Identifier: Apache-2.0
"""A client of the brokers whose words and certificate are the test's to choose."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import struct
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import CallbackAPIVersion

from tests.unit.hub.authority import Authority, Identity
from tests.unit.hub.writer import Gateway

PATIENCE = 20.0
PIECE = 65_536
PUBLISH = 0x30
# Fixed header, then variable header and payload: docs.oasis-open.org/mqtt/mqtt/v5.0, 3.1.
_CONNECT = b"\x00\x04MQTT\x05\x02\x00\x3c\x00"


class _Context(ssl.SSLContext):
    """Asks for one name, whatever address is connected to."""

    name: str

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(sock, *args, **options | {"server_hostname": self.name})


class Stranger:
    """`name` is what it asks the balancer for; who it is says `identity`."""

    def __init__(
        self,
        name: str,
        domain: str,
        port: int,
        folder: Path,
        ca: Path,
        authority: Authority,
        identity: Identity,
    ) -> None:
        self.name = name
        self.port = port
        self.authority = authority
        self.identity = identity
        self.gateway = Gateway(name, Ed25519PrivateKey.generate(), stream=os.urandom(8))
        self.committed: set[int] = set()
        self.certificate, self.key = folder / f"{id(self)}.crt", folder / f"{id(self)}.key"
        self.certificate.write_text(authority.chain(identity))
        self.key.write_text(identity.key_pem())
        context = _Context(ssl.PROTOCOL_TLS_CLIENT)
        context.name = self.host = f"{name}.{domain}"
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(ca)
        context.load_cert_chain(self.certificate, self.key)
        self.context = context
        self._client: mqtt.Client | None = None
        self._answers: dict[int, str] = {}
        self._answered = threading.Condition()

    # --- MQTT as everybody speaks it

    def connect(self) -> None:
        """Raises AssertionError when it is not taken."""
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self.name, protocol=mqtt.MQTTv5)
        client.tls_set_context(self.context)
        client.max_inflight_messages_set(100)
        client.max_queued_messages_set(0)
        ready = threading.Event()
        client.on_subscribe = lambda *_: ready.set()
        client.on_connect = lambda one, *_: one.subscribe(f"energy/v1/{self.name}/ack", qos=1)
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        assert ready.wait(PATIENCE), f"{self.name} is not taken by the broker"
        self._client = client

    def close(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def publish(self, topic: str, payload: bytes, *, wait: bool = True) -> str:
        """What the broker says to it, empty when nobody waits."""
        assert self._client is not None
        mid = self._client.publish(topic, payload, qos=1).mid
        if not wait:
            return ""
        with self._answered:
            assert self._answered.wait_for(lambda: mid in self._answers, PATIENCE), f"no receipt for {topic}"
            return self._answers.pop(mid)

    def _on_publish(self, _client: object, _data: object, mid: int, reason: Any, _properties: object) -> None:
        with self._answered:
            self._answers[mid] = str(reason)
            self._answered.notify_all()

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        ack = json.loads(message.payload)
        if ack["stream"] == self.gateway.stream.hex():
            spans = [[1, ack["watermark"]], *ack["ranges"]]
            self.committed = {number for low, high in spans for number in range(low, high + 1)}

    def status(self, site: str | None = None, key: Ed25519PrivateKey | None = None) -> bytes:
        """An online status with the key statement of this certificate for a site and a key, its own by default."""
        public = (key or self.gateway.key).public_key().public_bytes_raw()
        statement = self.authority.key_statement(self.identity, site or self.name, public)
        status = {
            "state": "online",
            "site": self.name,
            "version": "0.1.0",
            "stream": self.gateway.stream.hex(),
            "key": statement,
        }
        return json.dumps(status).encode()

    # --- bytes

    def handshake(self) -> str:
        """Why the broker does not take it; empty when it does."""
        try:
            with self._taken():
                return ""
        except OSError as error:
            return str(error) or type(error).__name__

    def send_huge(self, size: int) -> int:
        """One PUBLISH of so many bytes; how many the broker's side took before it hung up."""
        topic = f"energy/v1/{self.name}/batch".encode()
        body = struct.pack(">H", len(topic)) + topic + b"\0"
        header = bytes((PUBLISH,)) + _length(len(body) + size) + body
        sent = 0
        with self._taken() as sock, contextlib.suppress(OSError):
            sock.sendall(header)
            while sent < size:
                sock.sendall(bytes(min(PIECE, size - sent)))
                sent += PIECE
            # All of it is in somebody's memory by now; a broker that is content says nothing.
            sock.settimeout(1.0)
            sock.recv(1)
        return min(sent, size)

    @contextlib.contextmanager
    def _taken(self) -> Any:
        with (
            socket.create_connection(("127.0.0.1", self.port), PATIENCE) as raw,
            self.context.wrap_socket(raw) as sock,
        ):
            name = self.name.encode()
            body = _CONNECT + struct.pack(">H", len(name)) + name
            sock.sendall(b"\x10" + _length(len(body)) + body)
            # With TLS 1.3 a client learns that its certificate is refused with the first bytes that it reads.
            answer = sock.recv(5)
            if len(answer) < 4 or answer[0] != 0x20 or answer[3] != 0:
                raise ConnectionError(f"not taken: {answer.hex() or 'hung up'}")
            yield sock


def _length(number: int) -> bytes:
    """Variable byte integer (1.5.5)."""
    out = bytearray()
    while True:
        number, digit = number >> 7, number & 127
        out.append(digit | (128 if number else 0))
        if not number:
            return bytes(out)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
