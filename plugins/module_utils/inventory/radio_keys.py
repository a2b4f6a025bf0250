# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What a site file says about Zigbee and LoRaWAN: the servers, and the meters that report by them."""

from __future__ import annotations

from collections.abc import Mapping

from .kinds import OPTIONAL, Choice, Key, Listing, Number, Record, Text, Variants
from .network_keys import ADDRESS, PART_NAME

# zigbee2mqtt and the topics of MQTT: no wildcards, and no slash at either end.
_TOPIC = r"(?!.*\{[{%#])(?!/)(?:[^+#\x00-\x1f\x7f]*[^+#/\x00-\x1f\x7f])"
BASE_TOPIC = Text('a base topic such as "zigbee2mqtt"', _TOPIC, limit=200)
DEVICE_NAME = Text(
    'a friendly name of zigbee2mqtt such as "hall/plug-1", or a DevEUI such as "24e124148b000001"',
    _TOPIC,
    literal=True,
    limit=200,
)
LOGIN = Text('a user name such as "wattfleet"', r"(?!.*\{[{%#])[!-~]+", limit=64)
APPLICATION = Text(
    'an application id such as "17c82e96-be03-4f38-aef3-f83d48582d97"',
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    literal=True,
)
WEEK = 604800


def radios() -> Key:
    """The key of the servers."""
    return Key(
        Listing(_radio(), "a list of at least one radio", minimum=1),
        "Radios",
        "The servers of Zigbee and LoRaWAN networks, by the MQTT broker that each publishes on. The broker is in the "
        "energy network, or on the gateway itself.",
        OPTIONAL,
        examples=([{"name": "plugs", "type": "zigbee2mqtt", "host": "192.168.10.50"}],),
    )


def _radio() -> Variants:
    def record(kind: str, meaning: str, own: dict[str, Key]) -> Record:
        keys = {
            "name": Key(
                PART_NAME, "Name", "The radio's name, unique among radios and buses.", examples=("plugs",)
            ),
            "type": Key(Choice((kind,)), "Type", meaning, examples=(kind,)),
            "host": Key(
                ADDRESS,
                "Broker",
                "The broker's address: in the energy network, or `127.0.0.1` for one on the gateway.",
                examples=("192.168.10.50",),
            ),
            "port": Key(
                Number(1, 65535, whole=True), "Port", "The broker's TCP port.", OPTIONAL, 1883, (1883,)
            ),
            "user": Key(
                LOGIN,
                "User",
                "Who we are at the broker. The password never stands here: it is `collector_radio_passwords.<radio>` "
                "in a vaulted file in `host_vars/<site>/`. Nobody, when left out.",
                OPTIONAL,
                examples=("wattfleet",),
            ),
        }
        return Record(keys | own, f"a mapping of the keys of a radio of type {kind}")

    topic = Key(
        BASE_TOPIC,
        "Base topic",
        "`mqtt.base_topic` of zigbee2mqtt.",
        OPTIONAL,
        "zigbee2mqtt",
        ("zigbee2mqtt",),
    )
    application = Key(
        APPLICATION,
        "Application",
        "ChirpStack's application id; messages of others are not heard. All applications, when left out.",
        OPTIONAL,
        examples=("17c82e96-be03-4f38-aef3-f83d48582d97",),
    )
    return Variants(
        "type",
        {
            "zigbee2mqtt": record("zigbee2mqtt", "Zigbee, by zigbee2mqtt.", {"topic": topic}),
            "chirpstack": record("chirpstack", "LoRaWAN, by ChirpStack v4.", {"application": application}),
        },
        "a mapping of the keys of a radio",
    )


def radio_meter(payloads: tuple[str, ...], shared: Mapping[str, Key]) -> Record:
    """A meter that reports by radio; `shared` are keys that it has in common with one on a bus."""
    return Record(
        {
            "name": shared["name"],
            "radio": Key(PART_NAME, "Radio", "The name of one of the site's radios.", examples=("plugs",)),
            "device": Key(
                DEVICE_NAME,
                "Device",
                "The device's friendly name in zigbee2mqtt, or its DevEUI in ChirpStack. No two meters of a radio have "
                "the same.",
                examples=("hall/plug-1",),
            ),
            "profile": Key(
                Choice(payloads, "a payload file"),
                "Profile",
                "Which fields of the model's messages are which points.",
                examples=("zigbee2mqtt-plug",),
            ),
            "role": shared["role"],
            "since": shared["since"],
            "interval": Key(
                Number(1, WEEK, "(seconds)"),
                "Reporting interval",
                "How often at least the device reports, as it is set.",
                examples=(600,),
            ),
            "silence": Key(
                Number(1, 1000, "(intervals)"),
                "Silence",
                "So many intervals without a message make a point null.",
                OPTIONAL,
                examples=(5,),
            ),
            "points": shared["points"],
            "max_power": shared["max_power"],
            "reverse": shared["reverse"],
        },
        "a mapping of the keys of a meter that reports by radio",
    )
