# SPDX-License-Identifier: Apache-2.0
"""Radios and the meters that report by them: what is filled in, and one clear line for each fault."""

from __future__ import annotations

from pathlib import Path

import pytest
from energy_collector import config_file

from plugins.module_utils.inventory.profiles import Payloads

from .conftest import SITE, FleetOnDisk

RADIOS = """\
radios:
  - {name: offices, type: zigbee2mqtt, host: 192.168.10.50, user: wattfleet}
  - {name: field, type: chirpstack, host: 127.0.0.1, port: 1884, application: 17c82e96-be03-4f38-aef3-f83d48582d97}
"""
METERS = """\
  - {name: printer, radio: offices, device: second-floor/printer, profile: zigbee2mqtt-plug, interval: 600}
  - {name: gate, radio: field, device: 24E124148B000001, profile: milesight-ws523, interval: 1200, silence: 5}
"""


def site(radios: str = RADIOS, meters: str = METERS) -> str:
    return SITE.replace("meters:\n", f"{radios}meters:\n{meters}")


def test_what_is_filled_in(fleet: FleetOnDisk) -> None:
    fleet.write("plant-a", site())
    values = fleet.load().sites["plant-a"]
    assert values["radios"] == [
        {
            "name": "offices",
            "type": "zigbee2mqtt",
            "host": "192.168.10.50",
            "user": "wattfleet",
            "port": 1883,
            "topic": "zigbee2mqtt",
        },
        {
            "name": "field",
            "type": "chirpstack",
            "host": "127.0.0.1",
            "port": 1884,
            "application": "17c82e96-be03-4f38-aef3-f83d48582d97",
        },
    ]
    assert values["meters"][:2] == [
        {
            "name": "printer",
            "radio": "offices",
            "device": "second-floor/printer",
            "profile": "zigbee2mqtt-plug",
            "interval": 600,
            "role": "consumption",
            "reverse": False,
        },
        {
            "name": "gate",
            "radio": "field",
            "device": "24E124148B000001",
            "profile": "milesight-ws523",
            "interval": 1200,
            "silence": 5,
            "role": "consumption",
            "reverse": False,
        },
    ]


@pytest.mark.parametrize("eui", ["0004a30b001c0530", "1234567890123456", "24e1241400000017"])
def test_an_eui_needs_no_quotes(fleet: FleetOnDisk, eui: str) -> None:
    """YAML 1.1 takes some of them for numbers."""
    fleet.write("plant-a", site(meters=METERS.replace("24E124148B000001", eui)))
    assert fleet.load().sites["plant-a"]["meters"][1]["device"] == eui


FAULTS = [
    ("host: 192.168.10.50", "host: 10.9.9.9", 'found "10.9.9.9", expected an address in the energy network'),
    ("host: 192.168.10.50", "host: 192.168.10.10", "the gateway's own address, expected the device's"),
    (
        "type: zigbee2mqtt",
        "type: zigbee",
        'radios[0].type: found "zigbee", expected zigbee2mqtt or chirpstack',
    ),
    ("user: wattfleet", "user: wattfleet, password: x", "radios[0].password: unknown key"),
    ("user: wattfleet", 'user: "{{ secret }}"', 'radios[0].user: found "{{ secret }}", expected a user name'),
    ("user: wattfleet", "topic: z/#", 'radios[0].topic: found "z/#", expected a base topic'),
    ("name: field", "name: offices", 'radios[1].name: found "offices" twice, expected a name of its own'),
    ("name: offices", "name: hall", 'radios[0].name: found "hall", the name of a bus'),
    ("application: 17", "application: 7", "radios[1].application: found"),
    ("radio: offices", "radio: ofices", 'did you mean "offices"?'),
    ("device: second-floor/printer", "unit: 3", "meters[0].unit: unknown key"),
    ("device: second-floor/printer", "device: +", 'meters[0].device: found "+", expected a friendly name'),
    ("24E124148B000001", "24E124148B00001", "expected a DevEUI of 16 hexadecimal digits"),
    (
        "milesight-ws523",
        "zigbee2mqtt-plug",
        'found "zigbee2mqtt-plug", for messages of zigbee2mqtt, expected one for chirpstack, as the radio "field" is',
    ),
    ("milesight-ws523", "milesight-ws52", 'did you mean "milesight-ws523"?'),
    ("milesight-ws523", "eastron-sdm630", "meters[1].profile: found"),
    (
        "interval: 600",
        "points: [active_power]",
        "meters[0].interval: missing, expected a number from 1 to 604800",
    ),
    ("silence: 5", "silence: 0", "meters[1].silence: found 0, expected a number from 1 to 1000 (intervals)"),
    ("name: printer", "name: supply", 'found "supply", as in meters[0], expected a name of its own'),
]


@pytest.mark.parametrize(("old", "new", "fault"), FAULTS)
def test_a_fault_is_one_line(fleet: FleetOnDisk, old: str, new: str, fault: str) -> None:
    text = site()
    assert text.count(old) >= 1
    at = text.index("radios:")
    fleet.write("plant-a", text[:at] + text[at:].replace(old, new, 1))
    found = fleet.faults()
    assert any(fault in line for line in found), found


def test_two_meters_of_one_device(fleet: FleetOnDisk) -> None:
    again = METERS.splitlines()[1].replace("gate", "other").replace("24E124148B000001", "24e124148b000001")
    fleet.write("plant-a", site(meters=METERS + again + "\n"))
    (found,) = fleet.faults()
    assert 'meters[2].device: found "24e124148b000001" on radio "field", as in meters[1]' in found


def test_a_radio_that_nobody_reports_by(fleet: FleetOnDisk) -> None:
    fleet.write("plant-a", site(meters=METERS.splitlines()[0] + "\n"))
    (found,) = fleet.faults()
    assert 'radios[1]: found "field", which no meter reports by, expected at least one meter' in found


def test_a_meter_without_any_radio(fleet: FleetOnDisk) -> None:
    fleet.write("plant-a", site(radios=""))
    assert all("one of the site's radios: there is none" in line for line in fleet.faults())


def test_every_payload_file_says_whose_it_is() -> None:
    payloads = Payloads()
    assert {payloads.server(name) for name in payloads.names} == {"chirpstack", "zigbee2mqtt"}


def test_the_collector_takes_what_a_site_file_says(fleet: FleetOnDisk, tmp_path: Path) -> None:
    """playbooks/site.yml hands radios on as they are, and meters but for their date."""
    fleet.write("plant-a", site())
    values = fleet.load().sites["plant-a"]
    password = tmp_path / "password"
    password.write_text("x", encoding="utf-8")
    radios = [one | ({"password_file": str(password)} if "user" in one else {}) for one in values["radios"]]
    meters = [{key: one[key] for key in one if key != "since"} for one in values["meters"]]
    handed_on = {key: values[key] for key in ("site", "interval", "buses")} | {"meters": meters}
    config = config_file.parse(handed_on | {"radios": radios, "hub": {"host": "hub.example"}})
    assert [(one.name, one.device, one.silence) for one in config.radio_meters] == [
        ("printer", "second-floor/printer", 1800.0),
        ("gate", "24E124148B000001", 6000.0),
    ]
    assert [one.topic for one in config.radios] == ["zigbee2mqtt", "zigbee2mqtt"]
