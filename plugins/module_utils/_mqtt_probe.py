# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""One short MQTT 5 session over a connection that stands: is the client let in, and what may it write and read?

Source: OASIS, MQTT Version 5.0.
"""

from __future__ import annotations

import socket
import struct
import time
import typing as t

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK, _DISCONNECT = 1, 2, 3, 4, 8, 9, 14
_ASSIGNED_CLIENT_ID, _USER_PROPERTY = 0x12, 0x26
# Bytes of the properties of a CONNACK that are numbers; the others are texts, section 2.2.2.2.
_PROPERTY_SIZES = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}
_FAILURE = 0x80
_LARGEST = 1 << 20
# Section 2.4: those that a broker says. The collector has them as well, and the two are released apart;
# tests/unit/modules/test_mqtt_tables.py holds both against paho's.
REASONS = {
    0x00: "success",
    0x10: "no matching subscribers",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "unsupported protocol version",
    0x85: "client identifier not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep alive timeout",
    0x8E: "session taken over",
    0x8F: "topic filter invalid",
    0x90: "topic name invalid",
    0x91: "packet identifier in use",
    0x93: "receive maximum exceeded",
    0x94: "topic alias invalid",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format invalid",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9E: "shared subscription not supported",
    0x9F: "connection rate exceeded",
    0xA0: "maximum connect time",
    0xA1: "subscription identifiers not supported",
    0xA2: "wildcard subscription not supported",
}


class RefusedError(Exception):
    """The broker said no, or something that is not MQTT; the message says what."""


def talk(
    connection: socket.socket, client_id: str, publish: list[str], subscribe: list[str], timeout: float
) -> dict[str, t.Any]:
    """What the broker answers: `reason_code`, `reason`, `client_id` (the one that counts), `latency`, and for each
    topic what came of it. The session ends with the connection, and leaves nothing behind."""
    connection.settimeout(timeout)
    started = time.monotonic()
    # Clean start; without a session expiry interval the session ends with the connection.
    variable = _text("MQTT") + struct.pack(">BBHB", 5, 0x02, 60, 0)
    connection.sendall(_packet(_CONNECT << 4, variable + _text(client_id)))
    kind, body = _receive(connection)
    if kind >> 4 != _CONNACK or len(body) < 3:
        raise RefusedError(
            f"the first answer is packet type {kind >> 4} in place of CONNACK: is this a broker?"
        )
    told: dict[str, t.Any] = {
        "reason_code": body[1],
        "reason": reason(body[1]),
        "client_id": client_id,
        "latency": round(time.monotonic() - started, 4),
        "publish": [],
        "subscribe": [],
    }
    if body[1] >= _FAILURE:
        return told
    told["client_id"] = _assigned(body) or client_id
    delivered: set[str] = set()
    told["subscribe"] = [
        _subscribe(connection, number, topic, delivered) for number, topic in enumerate(subscribe, 1)
    ]
    told["publish"] = [
        _publish(connection, number, topic, delivered) for number, topic in enumerate(publish, 1)
    ]
    _await_deliveries(
        connection, {one["topic"] for one in told["publish"] if one["allowed"]} & set(subscribe), delivered
    )
    for one in told["subscribe"]:
        one["delivered"] = one["topic"] in delivered if one["topic"] in publish else None
    connection.sendall(_packet(_DISCONNECT << 4, b""))
    return told


def reason(code: int) -> str:
    """A reason code in words."""
    return REASONS.get(code, f"reason code 0x{code:02X}")


def _subscribe(connection: socket.socket, number: int, topic: str, delivered: set[str]) -> dict[str, t.Any]:
    connection.sendall(_packet(_SUBSCRIBE << 4 | 2, struct.pack(">HB", number, 0) + _text(topic) + b"\x01"))
    body = _answer(connection, _SUBACK, number, delivered)
    code = body[-1]
    words = f"granted, QoS {code}" if code < _FAILURE else reason(code)
    return {"topic": topic, "allowed": code < _FAILURE, "reason_code": code, "reason": words}


def _publish(connection: socket.socket, number: int, topic: str, delivered: set[str]) -> dict[str, t.Any]:
    connection.sendall(_packet(_PUBLISH << 4 | 1 << 1, _text(topic) + struct.pack(">HB", number, 0)))
    body = _answer(connection, _PUBACK, number, delivered)
    code = body[2] if len(body) > 2 else 0
    return {"topic": topic, "allowed": code < _FAILURE, "reason_code": code, "reason": reason(code)}


def _answer(connection: socket.socket, kind: int, number: int, delivered: set[str]) -> bytes:
    while True:
        found, body = _receive(connection)
        if found >> 4 == kind and struct.unpack_from(">H", body)[0] == number:
            return body
        _other(found, body, connection, delivered)


def _await_deliveries(connection: socket.socket, expected: set[str], delivered: set[str]) -> None:
    """Wait until what was published to a subscribed topic has come back, or has not for as long as the time-out."""
    while not expected <= delivered:
        try:
            found, body = _receive(connection)
        except TimeoutError:
            return
        _other(found, body, connection, delivered)


def _other(kind: int, body: bytes, connection: socket.socket, delivered: set[str]) -> None:
    if kind >> 4 == _DISCONNECT:
        raise RefusedError(f"the broker ended the session: {reason(body[0] if body else 0)}")
    if kind >> 4 != _PUBLISH:
        raise RefusedError(f"packet type {kind >> 4} was not asked for")
    (length,) = struct.unpack_from(">H", body)
    delivered.add(body[2 : 2 + length].decode("utf-8", "replace"))
    if kind >> 1 & 3:
        connection.sendall(_packet(_PUBACK << 4, body[2 + length : 4 + length]))


def _assigned(connack: bytes) -> str | None:
    """The client id that the broker gave in place of the client's, section 3.2.2.3.7."""
    # Flags and reason code come first, then the length of the properties; what is longer than 127 bytes is not ours.
    position, end = 3, 3 + connack[2] if connack[2] < 0x80 else 0
    while position < end:
        kind = connack[position]
        size = _PROPERTY_SIZES.get(kind)
        if size is None:
            (size,) = struct.unpack_from(">H", connack, position + 1)
            if kind == _ASSIGNED_CLIENT_ID:
                return connack[position + 3 : position + 3 + size].decode("utf-8", "replace")
            size += 2
            if kind == _USER_PROPERTY:
                size += 2 + struct.unpack_from(">H", connack, position + 1 + size)[0]
        position += 1 + size
    return None


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _packet(first: int, body: bytes) -> bytes:
    length = len(body)
    encoded = bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([first]) + bytes(encoded) + body


def _receive(connection: socket.socket) -> tuple[int, bytes]:
    (first,) = _exactly(connection, 1)
    length = 0
    for shift in range(0, 28, 7):
        (digit,) = _exactly(connection, 1)
        length |= (digit & 0x7F) << shift
        if not digit & 0x80:
            break
    if length > _LARGEST:
        raise RefusedError(f"a packet of {length} bytes was announced: is this a broker?")
    return first, _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise ConnectionResetError("the broker closed the connection")
        data += chunk
    return data
