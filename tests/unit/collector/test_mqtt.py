# SPDX-License-Identifier: Apache-2.0
"""MQTT packets: against those that paho makes, and against what no broker should send."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import pytest
from energy_collector import mqtt
from energy_collector.batches.varint import FormatError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def packets(data: bytes) -> list[mqtt.Packet]:
    return list(mqtt.Splitter().feed(data))


def properties(kind: int, **values: object) -> bytes:
    """As paho packs them."""
    found = Properties(kind)  # type: ignore[no-untyped-call]  # paho has no types here
    for name, value in values.items():
        setattr(found, name, value)
    return bytes(found.pack())  # type: ignore[no-untyped-call]  # paho has no types here


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 300_000])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_packets_are_cut_at_any_place(size: int, piece: int) -> None:
    if piece < 7 and size > 20_000:
        piece = 4999
    payload = bytes(size)
    stream = mqtt.publish(7, "t", payload) + mqtt.ping() + mqtt.puback(9)
    splitter = mqtt.Splitter()
    found = [one for at in range(0, len(stream), piece) for one in splitter.feed(stream[at : at + piece])]
    assert [one.kind for one in found] == [mqtt.PUBLISH, mqtt.PINGREQ, mqtt.PUBACK]
    message = mqtt.read_publish(found[0].flags, found[0].body)
    assert message == ("t", 7, payload)
    assert mqtt.read_puback(found[2].body) == (9, 0)


def test_connack_with_all_properties() -> None:
    packed = properties(
        PacketTypes.CONNACK,
        SessionExpiryInterval=5,
        ReceiveMaximum=20,
        MaximumQoS=1,
        RetainAvailable=1,
        MaximumPacketSize=70_000,
        AssignedClientIdentifier="plant-a",
        TopicAliasMaximum=10,
        ReasonString="welcome",
        UserProperty=("a", "b"),
        WildcardSubscriptionAvailable=1,
        ServerKeepAlive=42,
        ResponseInformation="r",
        AuthenticationMethod="m",
        AuthenticationData=b"d",
    )
    assert mqtt.read_connack(b"\0\0" + packed) == (0, 20, 10, 70_000, 42)
    assert mqtt.read_connack(b"\0\0\0") == (0, 0xFFFF, 0, 0x0FFFFFFF, None)


def test_publish_with_a_property_that_is_a_variable_byte_integer() -> None:
    packed = properties(PacketTypes.PUBLISH, SubscriptionIdentifier=300, ContentType="json")
    body = struct.pack(">H", 3) + b"a/b" + packed + b"hello"
    assert mqtt.read_publish(0, body) == ("a/b", None, b"hello")


def test_the_alias_takes_the_topic_s_place() -> None:
    first, second = mqtt.publish(1, "energy/v1/plant-a/batch", b"x", 1), mqtt.publish(2, "", b"x", 1)
    assert len(first) - len(second) == len("energy/v1/plant-a/batch")
    assert packets(second)[0].body == b"\0\0" + b"\0\2" + b"\x03\x23\0\1" + b"x"


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (mqtt.read_connack, b""),
        (mqtt.read_connack, b"\0\0"),
        (mqtt.read_connack, b"\0\0\x05\x21"),
        (mqtt.read_connack, b"\0\0\x02\x21\0"),
        (mqtt.read_connack, b"\0\0\x01\x7f"),
        (mqtt.read_connack, b"\0\0\xff\xff\xff\xff\x01"),
        (mqtt.read_puback, b"\0"),
        (mqtt.read_suback, b"\0"),
        (mqtt.read_suback, b"\0\1\0"),
        (mqtt.read_suback, b"\0\1\0\0\0"),
    ],
)
def test_truncated_and_wrong_packets_are_refused(read: object, body: bytes) -> None:
    assert callable(read)
    with pytest.raises(FormatError):
        read(body)


@pytest.mark.parametrize(
    ("flags", "body"), [(0, b"\0"), (0, b"\0\5ab"), (2, b"\0\1a\0"), (0, b"\0\1\xff\0"), (4, b"\0\1a\0\0\0")]
)
def test_a_malformed_publish_is_refused(flags: int, body: bytes) -> None:
    with pytest.raises(FormatError):
        mqtt.read_publish(flags, body)


def test_a_length_that_we_did_not_ask_for_is_refused_before_it_is_gathered() -> None:
    with pytest.raises(FormatError, match="at most"):
        packets(b"\x30\xff\xff\xff\x7f")
    with pytest.raises(FormatError, match="four bytes"):
        packets(b"\x30\xff\xff\xff\xff\x01")


def test_any_bytes_are_packets_or_a_format_error() -> None:
    chance = random.Random(5)
    whole = b"".join(
        (
            b"\x20\x09\0\0\x06\x21\0\x14\x22\0\x0a",
            b"\x90\x04\0\1\0\0",
            mqtt.publish(3, "energy/v1/plant-a/ack", b"{}"),
            mqtt.puback(5),
        )
    )
    readers = {
        mqtt.CONNACK: mqtt.read_connack,
        mqtt.SUBACK: mqtt.read_suback,
        mqtt.PUBACK: mqtt.read_puback,
        mqtt.DISCONNECT: mqtt.read_disconnect,
    }
    refused = 0
    for _ in range(20_000):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        cuts = sorted({0, len(data), chance.randrange(len(data))})
        splitter = mqtt.Splitter()
        try:
            for start, end in pairwise(cuts):
                for packet in splitter.feed(bytes(data[start:end])):
                    if packet.kind == mqtt.PUBLISH:
                        mqtt.read_publish(packet.flags, packet.body)
                    elif packet.kind in readers:
                        readers[packet.kind](packet.body)
        except FormatError:
            refused += 1
    assert refused > 1000
