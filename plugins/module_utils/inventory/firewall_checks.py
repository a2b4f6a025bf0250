# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Faults of a site file and of a fleet file that concern the packet filter."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from .findings import Finding, Steps, dig


def fleet_findings(fleet: Mapping[str, Any]) -> Iterator[Finding]:
    """Faults of the management networks, of the hub's open ports and of what sites take over."""
    for key in ("networks", "rescue"):
        yield from _networks(dig(fleet, "management", key), ("management", key), everybody=False)
    yield from _rules(dig(fleet, "hub", "accept"), ("hub", "accept"))
    for key in ("accept", "output_accept"):
        yield from _rules(dig(fleet, "defaults", "firewall", key), ("defaults", "firewall", key))


def site_findings(site: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[Finding]:
    """Faults of a site's own keys; those of the fleet's defaults are told there."""
    firewall = site.get("firewall")
    if not isinstance(firewall, dict):
        return
    for key in ("accept", "output_accept"):
        if firewall.get(key) != dig(defaults, "firewall", key):
            yield from _rules(firewall.get(key), ("firewall", key))
    if firewall.get("output_accept") and firewall.get("output") in (None, "open"):
        yield Finding(
            ("firewall", "output_accept"),
            'found without "output: restricted", expected both: else everything may go out',
        )


def _rules(rules: object, place: Steps) -> Iterator[Finding]:
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        if not isinstance(rule, dict):
            continue
        first, last = rule.get("port"), rule.get("port_end")
        if isinstance(first, int) and isinstance(last, int) and last <= first:
            yield Finding((*place, index, "port_end"), f"found {last}, expected a port after {first}")
        for key in ("sources", "destinations"):
            yield from _networks(rule.get(key), (*place, index, key))


def _networks(texts: object, place: Steps, *, everybody: bool = True) -> Iterator[Finding]:
    for index, text in enumerate(texts if isinstance(texts, list) else ()):
        if isinstance(text, str) and (fault := _network_fault(text, everybody)):
            yield Finding((*place, index), f'found "{text}", {fault}')


def _network_fault(text: str, everybody: bool) -> str | None:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return 'expected a network such as "192.168.10.0/24" or "2001:db8::/64"'
    address = text.partition("/")[0]
    if ipaddress.ip_address(address) != network.network_address:
        return f'an address inside a network, expected "{network}" or "{address}/{network.max_prefixlen}"'
    if network.prefixlen == 0 and not everybody:
        return "which is everybody, expected the networks of those who may log in"
    return None
