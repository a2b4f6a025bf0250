# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501  (the messages stand here as they are printed, one line each)
"""Faults of networks that say more than an address: one line each, at the line that is to be changed."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from plugins.module_utils.inventory.schema import LINKS
from plugins.module_utils.network import site as networks

from .conftest import SITE, FleetOnDisk

PLAIN = """\
  wan: {interface: eth0, address: 10.20.4.11/24, gateway: 10.20.4.1}
  energy: {interface: eth1, address: 192.168.10.10/24}
"""
FULL = """\
  wan: {interface: eth0, address: 10.20.4.11/24, gateway: 10.20.4.1, metric: 100, mtu: 1430, ipv6: auto}
  energy: {interface: bond0.20, vlan: {id: 20, parent: bond0}, address: 192.168.10.10/24}
  others:
    trunk: {interface: bond0, bond: {interfaces: [eth1, eth2], primary: eth1}}
    backup: {interface: wwan0, address: auto, modem: {apn: iot.example}, metric: 700}
    control:
      interface: eth3
      address: 10.60.0.2/24
      addresses: ["fd00:60::2/64"]
      routes: [{to: 10.8.0.0/16, via: 10.60.0.1}, {to: "fd00:8::/32", via: "fd00:60::1", metric: 50}]
"""
CASES = [
    pytest.param(
        "gateway: 10.20.4.1,",
        "gateway: 10.20.5.1,",
        ['8: network.wan.gateway: found "10.20.5.1", expected an address in 10.20.4.0/24'],
        id="router-elsewhere",
    ),
    pytest.param(
        "address: 10.20.4.11/24, gateway: 10.20.4.1",
        "address: auto, gateway: 10.20.4.1",
        ['8: network.wan.gateway: found "10.20.4.1", expected none: the router comes by DHCP'],
        id="router-beside-dhcp",
    ),
    pytest.param(
        "metric: 100, ",
        "",
        [
            "8: network.wan.metric: missing, expected a metric: backup is a way out as well, and the lower metric is used"
        ],
        id="two-ways-out-one-metric",
    ),
    pytest.param(
        "metric: 700",
        "metric: 100",
        ["12: network.others.backup.metric: found 100, as in wan, expected another one"],
        id="two-ways-out-same-metric",
    ),
    pytest.param(
        "mtu: 1430",
        "mtu: 1000",
        ["8: network.wan.mtu: found 1000, expected at least 1280, which IPv6 needs"],
        id="mtu-too-small-for-ipv6",
    ),
    pytest.param(
        "mtu: 1430",
        "mtu: 100",
        ["8: network.wan.mtu: found 100, expected a whole number from 576 to 9216"],
        id="mtu-too-small",
    ),
    pytest.param(
        "interfaces: [eth1, eth2]",
        "interfaces: [eth1]",
        ["11: network.others.trunk.bond.interfaces: found 1 of them, expected at least two"],
        id="bond-of-one",
    ),
    pytest.param(
        "primary: eth1",
        "primary: eth5",
        ['11: network.others.trunk.bond.primary: found "eth5", expected one of eth1, eth2'],
        id="primary-no-port",
    ),
    pytest.param(
        "primary: eth1",
        "primary: eth1, mode: 802.3ad",
        ["11: network.others.trunk.bond.primary: found with mode 802.3ad, expected none"],
        id="primary-without-meaning",
    ),
    pytest.param(
        "primary: eth1",
        "mode: round-robin",
        [
            '11: network.others.trunk.bond.mode: found "round-robin", expected active-backup, 802.3ad or balance-xor'
        ],
        id="unknown-mode",
    ),
    pytest.param(
        "interface: eth3",
        "interface: eth2",
        ['14: network.others.control.interface: found "eth2", as in trunk, expected another interface'],
        id="interface-is-a-port",
    ),
    pytest.param(
        "parent: bond0",
        "parent: eth2",
        ['9: network.energy.vlan.parent: found "eth2", a port of trunk, expected the bond itself'],
        id="vlan-on-a-port",
    ),
    pytest.param(
        "id: 20",
        "id: 4095",
        ["9: network.energy.vlan.id: found 4095, expected a whole number from 1 to 4094"],
        id="vlan-id",
    ),
    pytest.param(
        "address: auto, modem",
        "address: 10.70.0.2/24, modem",
        [
            "12: network.others.backup.modem: found with a written address, expected auto: the network gives it"
        ],
        id="modem-with-an-address",
    ),
    pytest.param(
        "apn: iot.example",
        'apn: "iot example"',
        [
            '12: network.others.backup.modem.apn: found "iot example", expected an access point name such as "iot.example"'
        ],
        id="apn-with-a-blank",
    ),
    pytest.param(
        "modem: {apn: iot.example}",
        "vlan: {id: 3, parent: eth5}, modem: {apn: iot.example}",
        [
            "12: network.others.backup.modem: found beside vlan, expected one of the two; a VLAN on a bond is two connections"
        ],
        id="two-kinds",
    ),
    pytest.param(
        "      address: 10.60.0.2/24\n",
        "",
        [
            '14: network.others.control: found no address, expected one, or "auto"; only a bond may have none',
            '16: network.others.control.routes[0].via: found "10.60.0.1", expected an address in a network of this connection, which has no IPv4 address',
        ],
        id="no-address",
    ),
    pytest.param(
        "via: 10.60.0.1",
        "via: 10.61.0.1",
        ['17: network.others.control.routes[0].via: found "10.61.0.1", expected an address in 10.60.0.0/24'],
        id="next-hop-elsewhere",
    ),
    pytest.param(
        "to: 10.8.0.0/16",
        "to: 10.8.0.1/16",
        [
            '17: network.others.control.routes[0].to: found "10.8.0.1/16", expected a network such as "10.8.0.0/16", without host bits'
        ],
        id="route-with-host-bits",
    ),
    pytest.param(
        "fd00:60::2/64",
        "fd00:::2/64",
        [
            '16: network.others.control.addresses[0]: found "fd00:::2/64", expected an address with its prefix length such as "10.0.0.2/24" or "fd00::2/64"'
        ],
        id="no-ipv6-address",
    ),
    pytest.param(
        "address: 10.60.0.2/24",
        "address: 10.60.0.0/24",
        [
            '15: network.others.control.address: found "10.60.0.0/24", the network itself, expected an address of a host in 10.60.0.0/24'
        ],
        id="network-itself",
    ),
    pytest.param(
        "address: 10.60.0.2/24",
        "address: 192.168.10.2/24",
        [
            "14: network.others.control: found 192.168.10.0/24, which overlaps 192.168.10.0/24 of energy, expected networks apart",
            '17: network.others.control.routes[0].via: found "10.60.0.1", expected an address in 192.168.10.0/24',
        ],
        id="networks-overlap",
    ),
    pytest.param(
        "    control:",
        "    wan:",
        [
            '13: network.others.wan: found "wan", which Ansible or Wattfleet already uses, expected another name'
        ],
        id="reserved-name",
    ),
    pytest.param(
        "address: 192.168.10.10/24}",
        "address: 10.20.0.10/16}",
        [
            '5: gateway.address: found "10.20.4.11", in the energy network 10.20.0.0/16, expected an address that the controller reaches',
            "9: network.energy.address: found 10.20.0.0/16, which overlaps the WAN 10.20.4.0/24, expected networks apart",
            '19: buses[0].host: found "192.168.10.20", expected an address in the energy network 10.20.0.0/16',
        ],
        id="energy-overlaps-wan",
    ),
]


@pytest.fixture
def full(fleet: FleetOnDisk) -> FleetOnDisk:
    fleet.write("plant-a", SITE.replace(PLAIN, FULL))
    return fleet


def test_a_site_with_everything_has_no_fault(full: FleetOnDisk) -> None:
    assert full.faults() == []


@pytest.mark.parametrize(("old", "new", "found"), CASES)
def test_a_fault_is_one_line(full: FleetOnDisk, old: str, new: str, found: list[str]) -> None:
    assert FULL.count(old) == 1
    full.write("plant-a", SITE.replace(PLAIN, FULL.replace(old, new)))
    assert full.faults() == [f"sites/plant-a.yml:{line}" for line in found]


def test_addresses_by_dhcp_are_nobodys(fleet: FleetOnDisk) -> None:
    auto = SITE.replace("address: 10.20.4.11/24, gateway: 10.20.4.1", "address: auto")
    fleet.write("plant-a", auto)
    fleet.write("plant-b", auto.replace("plant-a", "plant-b").replace("10.20.4.11", "10.20.4.12"))
    assert fleet.faults() == []


def values() -> dict[str, Any]:
    site: dict[str, Any] = yaml.safe_load(SITE.replace(PLAIN, FULL).replace("200:5", '"200:5"'))
    return site


def test_a_site_becomes_connections() -> None:
    wan, energy, trunk, backup, control = networks.connections_of(values())
    assert wan == {
        "name": "wan",
        "interface": "eth0",
        "addresses": ["10.20.4.11/24"],
        "gateway": "10.20.4.1",
        "metric": 100,
        "mtu": 1430,
        "ipv6": "auto",
    }
    assert (energy["name"], energy["vlan"]) == ("EnergyInternal", {"id": 20, "parent": "bond0"})
    assert trunk["bond"] == {"interfaces": ["eth1", "eth2"], "primary": "eth1", "mode": "active-backup"}
    assert (backup["ipv4"], backup["modem"]) == ("auto", {"apn": "iot.example"})
    assert control["addresses"] == ["10.60.0.2/24", "fd00:60::2/64"]
    assert len(control["routes"]) == 2


def test_the_links_of_a_site_are_its_interfaces_and_the_ports_of_its_bonds() -> None:
    assert networks.links_of(values()) == ["eth0", "bond0.20", "bond0", "eth1", "eth2", "wwan0", "eth3"]


def test_each_link_that_a_site_file_may_name_has_its_wait() -> None:
    assert networks.WAITS.keys() == LINKS.keys()
