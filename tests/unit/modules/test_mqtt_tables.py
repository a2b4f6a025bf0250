# SPDX-License-Identifier: Apache-2.0
"""What MQTT says in numbers stands in the collector and in mqtt_probe: the same in both, and what paho has of the
standard's tables.
"""

from __future__ import annotations

from ansible_collections.wattfleet.energy.plugins.module_utils import _mqtt_probe
from energy_collector import mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

FROM_A_BROKER = {PacketTypes.CONNACK, PacketTypes.PUBACK, PacketTypes.SUBACK, PacketTypes.DISCONNECT}
FAILURE = 0x80


def paho_reasons() -> dict[int, str]:
    """Code -> words, of the failures in the packets that a broker sends to either of ours."""
    table = ReasonCode(PacketTypes.CONNACK).names
    return {
        code: words
        for code, names in table.items()
        for words, kinds in names.items()
        if code >= FAILURE and FROM_A_BROKER & set(kinds)
    }


def test_reason_codes() -> None:
    failures = {code: words for code, words in _mqtt_probe.REASONS.items() if code >= FAILURE}
    assert failures == mqtt.REASONS
    assert {code: words.lower() for code, words in mqtt.REASONS.items()} == {
        code: words.lower() for code, words in paho_reasons().items()
    }
    for code in (0x90, 0xFE):
        assert _mqtt_probe.reason(code) == mqtt.reason(code)


def test_sizes_of_properties() -> None:
    table = Properties(PacketTypes.CONNACK)  # type: ignore[no-untyped-call]  # paho has no types here
    # Byte, two and four bytes, variable, binary, text, pair of texts: in the order in which paho counts them.
    sizes = (1, 2, 4, -3, -1, -1, -2)
    assert {number: sizes[kind] for number, (kind, _) in table.properties.items()} == mqtt._SIZES
    numbers = {
        number: sizes[kind]
        for number, (kind, packets) in table.properties.items()
        if PacketTypes.CONNACK in packets and sizes[kind] > 0
    }
    assert numbers == _mqtt_probe._PROPERTY_SIZES
