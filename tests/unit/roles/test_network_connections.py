"""Profiles as text, faults in what is asked for, and the live state as lines."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.modules import network_connections as module


def connection(**changes: Any) -> dict[str, Any]:
    base = {
        "name": "EnergyInternal",
        "interface": "eth1",
        "address": "192.168.10.10/24",
        "gateway": None,
        "dns": [],
        "mtu": 0,
        "ipv6": "disabled",
    }
    return {**base, **changes}


def parsed(**changes: Any) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read_string(module.keyfile(connection(**changes)))
    return parser


def test_a_connection_without_gateway_never_becomes_the_default_route() -> None:
    profile = parsed()
    assert profile["ipv4"]["never-default"] == "true"
    assert profile["ipv6"]["never-default"] == "true"
    assert "gateway" not in profile["ipv4"]


def test_gateway_dns_and_mtu_are_written() -> None:
    profile = parsed(gateway="192.168.10.1", dns=["192.168.10.2", "192.168.10.3"], mtu=1400, ipv6="auto")
    assert profile["ipv4"]["gateway"] == "192.168.10.1"
    assert profile["ipv4"]["dns"] == "192.168.10.2;192.168.10.3;"
    assert profile["ethernet"]["mtu"] == "1400"
    assert "never-default" not in profile["ipv4"]


def test_uuid_depends_on_the_name_alone() -> None:
    assert parsed()["connection"]["uuid"] == parsed(address="10.0.0.1/8")["connection"]["uuid"]
    assert parsed()["connection"]["uuid"] != parsed(name="EnergyWan")["connection"]["uuid"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"address": "192.168.10.10"}, "address 192.168.10.10 lacks its prefix length"),
        ({"address": "192.168.10.300/24"}, "address '192.168.10.300/24' is no IPv4 address"),
        ({"gateway": "10.0.0.1"}, "gateway 10.0.0.1 is not in the network of 192.168.10.10/24"),
        ({"gateway": "router"}, "gateway 'router' is not an IPv4 address"),
        ({"dns": ["::1"]}, "dns '::1' is not an IPv4 address"),
        ({"name": "../evil"}, "a name becomes a file name"),
    ],
)
def test_a_fault_says_where_and_what(changes: dict[str, Any], said: str) -> None:
    fault = module.fault(connection(**changes))
    assert fault is not None
    assert fault.startswith("connection ")
    assert said in fault


def test_a_good_connection_has_no_fault() -> None:
    assert module.fault(connection(gateway="192.168.10.1", dns=["192.168.10.2"])) is None


def test_live_state_holds_only_what_was_asked_for() -> None:
    assert "mtu" not in module.wanted_live(connection())
    assert module.wanted_live(connection(mtu=1400))["mtu"] == 1400


def test_live_state_reads_as_lines() -> None:
    text = module.as_text("eth1", {"state": "connected", "addresses": [], "default route": "none"})
    assert text == "eth1: state connected\neth1: addresses none\neth1: default route none\n"


def test_a_profile_that_others_can_read_is_not_accepted(tmp_path: Path) -> None:
    profile = tmp_path / "x.nmconnection"
    profile.write_text("[connection]\n")
    profile.chmod(0o644)
    assert module.read_profile(profile) == ("[connection]\n", False)
    assert module.read_profile(tmp_path / "missing") == ("", False)
