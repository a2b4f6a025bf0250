# SPDX-License-Identifier: Apache-2.0
"""The packets of MQTT 5 (OASIS, MQTT Version 5.0) that a gateway sends and gets: bytes in, bytes out, no
socket.

It is a small part of the protocol: one packet of subscriptions, QoS 1 towards the broker, QoS 0 or 1 from it. A general
client library costs more memory than the rest of the service, keeps a thread that wakes up every second, and queues
messages where the delivery cannot see them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from energy_collector.batches.varint import FormatError

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = (
    1,
    2,
    3,
    4,
    8,
    9,
    12,
    13,
    14,
)
# What the protocol can say at most; the broker is told that we take no larger packet than this.
MAX_PACKET = 1 << 20
FAILURE = 0x80

# Section 2.4, the failures that a broker tells a client. The module mqtt_probe has them as well: it runs where no
# collector does. tests/unit/modules/test_mqtt_tables.py holds both against paho's.
REASONS = {
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

# Section 2.2.2.2: the sizes of property values by identifier; -1 a string or binary, -2 a pair of strings,
# -3 a variable byte integer.
_SIZES = {
    0x01: 1, 0x02: 4, 0x03: -1, 0x08: -1, 0x09: -1, 0x0B: -3, 0x11: 4, 0x12: -1, 0x13: 2, 0x15: -1,
    0x16: -1, 0x17: 1, 0x18: 4, 0x19: 1, 0x1A: -1, 0x1C: -1, 0x1F: -1, 0x21: 2, 0x22: 2, 0x23: 2,
    0x24: 1, 0x25: 1, 0x26: -2, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1,
}  # fmt: skip
_SESSION_EXPIRY, _SERVER_KEEP_ALIVE, _RECEIVE_MAXIMUM = 0x11, 0x13, 0x21
_ALIAS_MAXIMUM, _ALIAS, _PACKET_SIZE = 0x22, 0x23, 0x27
# Flags of PUBLISH, section 3.3.1: kept by the broker from before our subscription; sent for the second time.
RETAINED, REPEATED = 0x01, 0x08


class Packet(NamedTuple):
    """A packet: its type, the four flags of its first byte, and what follows the length."""

    kind: int
    flags: int
    body: bytes


class Accepted(NamedTuple):
    """CONNACK. A `reason` of 0x80 and above is a refusal; `keepalive` is None where ours is taken."""

    reason: int
    receive_maximum: int
    alias_maximum: int
    packet_size: int
    keepalive: int | None


class Message(NamedTuple):
    """PUBLISH from the broker. `number` is None with QoS 0."""

    topic: str
    number: int | None
    payload: bytes


def reason(code: int) -> str:
    """A reason code in words."""
    return REASONS.get(code, f"reason code 0x{code:02X}")


# What we send.


def connect(
    client: str,
    keepalive: int,
    *,
    will: tuple[str, bytes] | None = None,
    login: tuple[str, str] | None = None,
    session: int = 0,
    in_flight: int = 0,
) -> bytes:
    """`will` is topic and message: retained, QoS 1. `login` is user and password. Without a `session`, in s for which
    the broker keeps it while we are away, the start is a clean one. `in_flight` is how many messages may be under way
    to us and not confirmed; 0 leaves that to the broker."""
    properties = struct.pack(">BI", _PACKET_SIZE, MAX_PACKET)
    flags = 0 if session else 0x02
    if session:
        properties += struct.pack(">BI", _SESSION_EXPIRY, session)
    if in_flight:
        properties += struct.pack(">BH", _RECEIVE_MAXIMUM, in_flight)
    rest = _text(client)
    if will is not None:
        flags |= 0x04 | 1 << 3 | 0x20
        topic, message = will
        rest += b"\0" + _text(topic) + struct.pack(">H", len(message)) + message
    if login is not None:
        flags |= 0x80 | 0x40
        user, password = login
        rest += _text(user) + _text(password)
    body = _text("MQTT") + bytes([5, flags]) + struct.pack(">H", keepalive)
    return _packet(CONNECT << 4, body + _length(len(properties)) + properties + rest)


def subscribe(number: int, *topics: str, qos: int = 0) -> bytes:
    """With one QoS for all; the delivery takes 0, see `link`."""
    filters = b"".join(_text(topic) + bytes([qos]) for topic in topics)
    return _packet(SUBSCRIBE << 4 | 2, struct.pack(">HB", number, 0) + filters)


def publish(number: int, topic: str, payload: bytes, alias: int = 0, *, retain: bool = False) -> bytes:
    """With QoS 1. An alias is given with the topic once, and stands for it when the topic is empty."""
    properties = struct.pack(">BBH", 3, _ALIAS, alias) if alias else b"\0"
    body = _text(topic) + struct.pack(">H", number) + properties + payload
    return _packet(PUBLISH << 4 | 2 | retain, body)


def puback(number: int) -> bytes:
    """For a message that came with QoS 1."""
    return _packet(PUBACK << 4, struct.pack(">H", number))


def ping() -> bytes:
    """PINGREQ."""
    return _packet(PINGREQ << 4, b"")


def disconnect() -> bytes:
    """The normal end: the broker forgets the will."""
    return _packet(DISCONNECT << 4, b"")


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + _length(len(body)) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _length(value: int) -> bytes:
    # Section 1.5.5, at most four bytes.
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# What we get.


class Splitter:
    """Cuts the bytes of a connection into packets."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        """The packets that are complete now. Raises FormatError for a length that no broker may send."""
        self._buffer += data
        while len(self._buffer) >= 2:
            head = _read_length(self._buffer, 1)
            if head is None:
                return
            length, start = head
            if length > MAX_PACKET:
                raise FormatError(f"a packet of {length} bytes, at most {MAX_PACKET} were asked for")
            if len(self._buffer) < start + length:
                return
            first, body = self._buffer[0], bytes(self._buffer[start : start + length])
            del self._buffer[: start + length]
            yield Packet(first >> 4, first & 0xF, body)


def _read_length(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """A variable byte integer and where it ends; None while bytes are missing."""
    value = 0
    for index in range(4):
        if at + index >= len(data):
            return None
        value |= (data[at + index] & 0x7F) << 7 * index
        if data[at + index] < 0x80:
            return value, at + index + 1
    raise FormatError("a length of more than four bytes")


def read_connack(body: bytes) -> Accepted:
    """Raises FormatError."""
    if len(body) < 2:
        raise FormatError("CONNACK is truncated")
    found, _ = _properties(body, 2)
    return Accepted(
        body[1],
        found.get(_RECEIVE_MAXIMUM, 0xFFFF),
        found.get(_ALIAS_MAXIMUM, 0),
        found.get(_PACKET_SIZE, 0x0FFFFFFF),
        found.get(_SERVER_KEEP_ALIVE),
    )


def read_puback(body: bytes) -> tuple[int, int]:
    """The number of the message and the reason code. Raises FormatError."""
    if len(body) < 2:
        raise FormatError("PUBACK is truncated")
    return struct.unpack_from(">H", body)[0], body[2] if len(body) > 2 else 0


def read_suback(body: bytes, topics: int = 1) -> bytes:
    """The reason codes of our topics, in their order. Raises FormatError."""
    if len(body) < 2:
        raise FormatError("SUBACK is truncated")
    _, at = _properties(body, 2)
    if len(body) != at + topics:
        raise FormatError(f"SUBACK has {len(body) - at} reason codes, not {topics}")
    return body[at:]


def read_disconnect(body: bytes) -> int:
    """The reason code."""
    return body[0] if body else 0


def read_publish(flags: int, body: bytes) -> Message:
    """Raises FormatError. We allow no aliases, so the topic is always there."""
    quality_of_service = flags >> 1 & 3
    if quality_of_service > 1 or len(body) < 2:
        raise FormatError("PUBLISH is malformed")
    at = 2 + struct.unpack_from(">H", body)[0]
    end = at + 2 * quality_of_service
    if len(body) < end:
        raise FormatError("PUBLISH is truncated")
    try:
        topic = body[2:at].decode()
    except UnicodeDecodeError:
        raise FormatError("PUBLISH has a topic that is not UTF-8") from None
    number = struct.unpack_from(">H", body, at)[0] if quality_of_service else None
    _, start = _properties(body, end)
    return Message(topic, number, body[start:])


def _properties(body: bytes, at: int) -> tuple[dict[int, int], int]:
    """The properties that are numbers, and where the properties end."""
    head = _read_length(body, at)
    if head is None or head[0] > len(body) - head[1]:
        raise FormatError("properties are truncated")
    length, at = head
    end = at + length
    found: dict[int, int] = {}
    while at < end:
        kind = body[at]
        at += 1
        size = _SIZES.get(kind)
        if size is None:
            raise FormatError(f"property 0x{kind:02X} does not exist")
        if size > 0:
            found[kind] = int.from_bytes(body[at : at + size], "big")
            at += size
        elif size == -3:
            number = _read_length(body, at)
            at = end + 1 if number is None else number[1]
        else:
            for _ in range(-size):
                at += 2 + int.from_bytes(body[at : at + 2], "big")
    if at != end:
        raise FormatError("a property is truncated")
    return found, end
