# SPDX-License-Identifier: Apache-2.0
"""What the trial of a ruleset makes of its findings, and the role's own ruleset as text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.wattfleet.energy.plugins.module_utils._ruleset_trial import Knock
from ansible_collections.wattfleet.energy.plugins.module_utils._ruleset_verdict import refusal
from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROLE = Path(__file__).parents[3] / "roles" / "firewall"


def knock(source: str, *, expected: bool, incoming: bool = True, port: int = 22) -> Knock:
    far = "198.18.0.2"
    return Knock(source, "198.18.0.11" if incoming else far, port, incoming, expected, "eth0", "eth0")


CONTROLLER = knock("198.18.0.1", expected=True)
HUB = knock("198.18.0.11", expected=True, incoming=False, port=8883)
STRANGERS = [knock("192.0.2.254", expected=False), knock("203.0.113.254", expected=False)]


@pytest.mark.parametrize(
    ("came", "said"),
    [
        ([True, True, False, False], None),
        # A management network may hold one of the addresses that stand for everybody.
        ([True, True, True, False], None),
        ([False, True, False, False], "a new connection from 198.18.0.1 to port 22 does not come through"),
        ([True, False, False, False], "a connection to 198.18.0.2 port 8883 does not come through"),
        ([True, True, True, True], "everybody could log in"),
    ],
)
def test_what_a_trial_finds(came: list[bool], said: str | None) -> None:
    found = refusal([CONTROLLER, HUB, *STRANGERS], came)
    assert found is None if said is None else found is not None and said in found


def test_without_a_stranger_of_its_family_nothing_is_said_of_everybody() -> None:
    assert refusal([CONTROLLER], [True]) is None


def ruleset(**variables: Any) -> str:
    """The role's table for its defaults and these variables."""
    environment = Environment(
        loader=FileSystemLoader(ROLE / "templates"), trim_blocks=True, undefined=StrictUndefined
    )
    environment.tests["search"] = lambda text, pattern: re.search(pattern, text) is not None
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    given = {"firewall_management_networks": ["10.1.0.0/24"], **variables}
    return environment.get_template("wattfleet.nft.j2").render({**defaults, **given})


def test_networks_of_both_families_get_a_rule_each() -> None:
    rule = {"port": 80, "port_end": 89, "sources": ["10.0.0.0/8", "2001:db8::/64"], "comment": 'the "yard"'}
    text = ruleset(firewall_accept=[rule])
    tail = "tcp dport 80-89 counter name accept_tcp_80_89 accept comment \"the 'yard'\""
    assert f"ip saddr {{ 10.0.0.0/8 }} {tail}" in text
    assert f"ip6 saddr {{ 2001:db8::/64 }} {tail}" in text
    assert text.count("counter accept_tcp_80_89 { }") == 1


def test_every_counter_that_is_used_is_there_and_the_other_way_round() -> None:
    rule = {"port": 514, "protocol": "udp", "comment": "x"}
    for variables in (
        {},
        {"firewall_energy_interface": "eth1", "firewall_hub_address": "10.1.0.2"},
        {
            "firewall_energy_interface": "eth1",
            "firewall_hub_address": "10.1.0.2",
            "firewall_output": "restricted",
            "firewall_accept": [rule, {**rule, "sources": ["10.0.0.0/8"]}],
            "firewall_output_accept": [rule],
            "firewall_forwarding": False,
        },
    ):
        text = ruleset(**variables)
        made = re.findall(r"^\tcounter (\w+) \{ \}$", text, re.MULTILINE)
        assert sorted(made) == sorted(set(re.findall(r"counter name (\w+)", text)))


def test_only_modbus_and_ping_go_to_the_energy_network_even_when_all_else_may_go_out() -> None:
    text = ruleset(
        firewall_energy_interface="eth1", firewall_energy_ports=[502, 1502], firewall_output="open"
    )
    assert 'oifname "eth1" goto energy_output' in text
    assert "tcp dport { 502, 1502 }" in text
    assert "output_refused reject" in text


def test_a_host_without_an_energy_network_and_without_limits_filters_nothing_that_goes_out() -> None:
    assert "hook output" not in ruleset()


def test_a_ping_is_limited_before_it_counts_as_established() -> None:
    for text in (ruleset(), ruleset(firewall_energy_interface="eth1")):
        chain = text.partition("chain input {")[2].partition("}\n\n")[0]
        assert (
            -1 < chain.index("icmp type echo-request goto ping") < chain.index("ct state established accept")
        )


def test_an_answer_of_dhcpv6_comes_in_but_not_from_the_energy_network() -> None:
    rule = "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept"
    for variables in ({}, {"firewall_energy_interface": "eth1", "firewall_output": "restricted"}):
        text = ruleset(**variables)
        assert text.count(rule) == 1
        chain = text.partition("chain input {")[2].partition("}\n\n")[0]
        assert chain.find('iifname "eth1" goto energy_input') < chain.index(rule)


@pytest.mark.parametrize(
    ("comment", "kept"),
    [
        ("a" * 100, "a" * 100),
        ("é" * 100, "é" * 60),
        # Of a character that does not fit nothing is left.
        ("a" + "€" * 99, "a" + "€" * 39),
        ("😀" * 100, "😀" * 30),
    ],
    ids=["one byte each", "two bytes each", "three bytes each", "four bytes each"],
)
def test_a_comment_is_as_long_as_nft_takes_it(comment: str, kept: str) -> None:
    rule = {"port": 514, "protocol": "udp", "comment": comment}
    text = ruleset(firewall_accept=[rule], firewall_output_accept=[rule], firewall_output="restricted")
    assert text.count(f'accept comment "{kept}"') == 2
    assert all(len(one.encode()) <= 128 for one in re.findall('comment "([^"]*)"', text))
