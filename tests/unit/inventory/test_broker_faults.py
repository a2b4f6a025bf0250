# SPDX-License-Identifier: Apache-2.0
"""Brokers behind a balancer: each fault is one line with file, line, key, what was found and what is right."""

from __future__ import annotations

import pytest

from .conftest import FLEET, SITE, FleetOnDisk

HUB = """\
hub:
  name: hub.energy.example
  address: 10.1.1.2
  brokers_domain: brokers.energy.example
  brokers:
    - {name: broker-1, address: 10.1.1.21}
    - {name: broker-2, address: 10.1.1.22}
"""


def with_hub(text: str) -> str:
    return FLEET.replace("hub: {name: hub.energy.example, address: 10.1.1.2}\n", text)


def test_a_sound_fleet_has_brokers(fleet: FleetOnDisk) -> None:
    fleet.file.write_text(with_hub(HUB), encoding="utf-8")
    assert fleet.faults() == []
    assert [one["name"] for one in fleet.load().facts["hub"]["brokers"]] == ["broker-1", "broker-2"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "brokers.energy.example",
            "brokers.example",
            'hub.brokers_domain: found "brokers.example", expected a domain in energy.example',
        ),
        ("  brokers_domain: brokers.energy.example\n", "", "hub.brokers: found without brokers_domain"),
        ("broker-2", "broker-1", 'hub.brokers[1].name: found "broker-1", as in brokers[0]'),
        ("10.1.1.22", "10.1.1.21", 'hub.brokers[1].address: found "10.1.1.21", as in brokers[0]'),
        ("10.1.1.22", "10.1.1.2", 'hub.brokers[1].address: found "10.1.1.2", the hub\'s address'),
        ("broker-2", "second", 'hub.brokers[1].name: found "second", expected a broker\'s name'),
    ],
)
def test_a_fault_is_one_line(fleet: FleetOnDisk, old: str, new: str, said: str) -> None:
    assert old in HUB
    fleet.file.write_text(with_hub(HUB.replace(old, new)), encoding="utf-8")
    (fault,) = fleet.faults()
    assert fault.startswith("fleet.sites.yml:")
    assert said in fault


def test_no_site_has_the_name_of_a_broker(fleet: FleetOnDisk) -> None:
    fleet.file.write_text(with_hub(HUB), encoding="utf-8")
    fleet.write("broker-1", SITE.replace("site: plant-a", "site: broker-1").replace("10.20.4.1", "10.20.4.2"))
    assert any('found "broker-1", the name of a broker' in fault for fault in fleet.faults())
