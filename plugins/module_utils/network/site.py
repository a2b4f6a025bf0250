# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""From the networks of a site file to connections."""

from __future__ import annotations

import typing as t

from .connection import Connection

AUTO = "auto"  # an address that DHCP or the mobile network gives
ENERGY = "EnergyInternal"  # what the connection of the meters' network is called on the gateway
LAN = "lan"
# Seconds in which a controller comes back by a link; the keys are LINKS of the site file's schema.
WAITS = {LAN: 60, "cellular": 120, "satellite": 300}
_SAME = ("interface", "gateway", "gateway6", "metric", "vlan", "modem", "ipv6")

Network = t.Mapping[str, t.Any]


def networks_of(network: Network) -> list[tuple[tuple[str, ...], str, Network]]:
    """Place in the site file, name of the connection, and keys of each of a site's networks."""
    found: list[tuple[tuple[str, ...], str, Network]] = []
    for part, name in (("wan", "wan"), ("energy", ENERGY)):
        if isinstance(network.get(part), dict):
            found.append(((part,), name, network[part]))
    others = network.get("others")
    for name, keys in others.items() if isinstance(others, dict) else ():
        if isinstance(keys, dict):
            found.append((("others", name), name, keys))
    return found


def connection_of(name: str, keys: Network) -> Connection:
    """One network as network_connections takes it. What was refused by the schema counts as left out."""
    connection: Connection = {key: _given(keys.get(key)) for key in _SAME}
    bond = _given(keys.get("bond"))
    connection["bond"] = {"mode": "active-backup", **bond} if isinstance(bond, dict) else None
    address = _given(keys.get("address"))
    written = [address] if address and address != AUTO else []
    connection.update(
        name=name,
        addresses=written + _list(keys, "addresses"),
        ipv4=AUTO if address == AUTO else None,
        dns=_list(keys, "dns"),
        routes=_list(keys, "routes"),
        mtu=_given(keys.get("mtu")) or 0,
    )
    return connection


def connections_of(site: Network) -> list[Connection]:
    """The connections of a site, `energy_site` of the inventory, without what is left out."""
    return [
        {key: value for key, value in connection_of(name, keys).items() if value not in (None, [], 0)}
        for _place, name, keys in networks_of(site["network"])
    ]


def links_of(site: Network) -> list[str]:
    """The interfaces whose links tell of a site's health: those of its networks, and the ports of its bonds."""
    names: dict[str, None] = {}
    for _place, _name, keys in networks_of(site["network"]):
        names[keys["interface"]] = None
        names.update(dict.fromkeys((keys.get("bond") or {}).get("interfaces", ())))
    return list(names)


def wait_of(site: Network) -> int:
    """Seconds that a change of a site waits at least for its confirmation. What is no site, as the hub, is on a LAN."""
    return WAITS[site["link"]["type"] if site else LAN]


def _given(value: t.Any) -> t.Any:
    return value if isinstance(value, (str, int, dict)) else None


def _list(keys: Network, key: str) -> list[t.Any]:
    values = keys.get(key)
    return list(values) if isinstance(values, list) else []
