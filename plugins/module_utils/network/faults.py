# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What is wrong with the connections as they were asked for, one line each."""

from __future__ import annotations

import ipaddress
import re
import typing as t

from .connection import GSM, Connection, kind_of, method_of, of_version, parents_first, ports_of

_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
# A line end would let a value write further settings, and a `;` or `\` means something to a keyfile.
_WORD = re.compile(r"[!-:<-\[\]-~]+")
IPV6_MTU = 1280  # RFC 8200, section 5: what every link that carries IPv6 must take


def find(
    connections: list[Connection], secrets: t.Mapping[str, str | None], present: t.Collection[str]
) -> list[str]:
    """The faults. `present`: the interfaces that the host has now."""
    found: list[str] = []
    for connection in connections:
        found += (f"connection {connection['name']}: {fault}" for fault in _own(connection))
    found += _secrets(connections, secrets)
    found += _between(connections)
    return found + list(_missing(connections, present))


def _own(connection: Connection) -> t.Iterator[str]:
    name = connection["name"]
    if not _WORD.fullmatch(name) or "/" in name or name.startswith("."):
        yield "a name becomes a file name, so no blank or slash in it and no dot before it"
    for interface in (connection["interface"], *ports_of(connection)):
        if not _INTERFACE.fullmatch(interface):
            yield f"{interface!r} is no interface name of up to 15 characters, such as eth0"
    kinds = [key for key in ("bond", "vlan", "modem") if connection.get(key)]
    if len(kinds) > 1:
        yield f"{' and '.join(kinds)} exclude each other; a VLAN on a bond is two connections"
    bad = list(_unreadable(connection))
    yield from bad
    if not bad:
        yield from _addressing(connection)
    yield from _numbers(connection)
    yield from _kind(connection)


def _unreadable(connection: Connection) -> t.Iterator[str]:
    """Addresses and networks that are none."""
    for text in connection["addresses"]:
        try:
            ipaddress.ip_interface(text)
        except ValueError:
            yield f"address {text!r} is no address, such as 10.0.0.2/24 or fd00::2/64"
            continue
        if "/" not in text:
            yield f"address {text} lacks its prefix length, such as /24"
    for key, version, example in (("gateway", 4, "10.0.0.1"), ("gateway6", 6, "fd00::1")):
        if connection.get(key) and not _is_address(connection[key], version):
            yield f"{key} {connection[key]!r} is not an IPv{version} address, such as {example}"
    for server in connection["dns"]:
        if not _is_address(server):
            yield f"dns {server!r} is no address, such as 10.0.0.53"
    for route in connection["routes"]:
        try:
            network = ipaddress.ip_network(route["to"])
        except ValueError as error:
            yield f"route to {route['to']!r} is no network, such as 10.8.0.0/16: {error}"
            continue
        if not _is_address(route["via"], network.version):
            yield f"route to {route['to']}: via {route['via']!r} is not an IPv{network.version} address"


def _is_address(text: str, version: int | None = None) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return version in (None, address.version)


def _addressing(connection: Connection) -> t.Iterator[str]:
    addresses = connection["addresses"]
    networks = [ipaddress.ip_interface(text).network for text in addresses]
    if len(set(addresses)) < len(addresses):
        yield "an address is there twice"
    for version, key in ((4, "gateway"), (6, "gateway6")):
        method = method_of(connection, version)
        given = of_version(addresses, version)
        if method == "manual" and not given:
            yield f"ipv{version} is manual, but there is no IPv{version} address"
        if method in ("disabled", "link-local") and given:
            yield f"ipv{version} is {method}, but there is the address {given[0]}"
        gateway = connection.get(key)
        if gateway and method == "auto" and version == 4:
            yield f"{key} {gateway} beside ipv4: auto; the router comes by DHCP"
        elif gateway and not _reachable(gateway, networks):
            yield f"{key} {gateway} is not in the network of {', '.join(given) or 'any address'}"
        if connection["mtu"] and version == 6 and method != "disabled" and connection["mtu"] < IPV6_MTU:
            yield f"mtu {connection['mtu']} is less than IPv6 needs, {IPV6_MTU}"
    seen = set()
    for route in connection["routes"]:
        automatic = method_of(connection, ipaddress.ip_network(route["to"]).version) == "auto"
        if not automatic and not _reachable(route["via"], networks):
            yield f"route to {route['to']}: via {route['via']} is not in a network of this connection"
        if route["to"] in seen:
            yield f"route to {route['to']} is there twice"
        seen.add(route["to"])


def _reachable(gateway: str, networks: list[t.Any]) -> bool:
    """Whether the next hop is on the link: in one of its networks, link-local, or beyond a line of one address."""
    address = ipaddress.ip_address(gateway)
    if address.version == 6 and address.is_link_local:
        return True
    same = [network for network in networks if network.version == address.version]
    return any(address in network or network.prefixlen == network.max_prefixlen for network in same)


def _numbers(connection: Connection) -> t.Iterator[str]:
    if connection["mtu"] and not 576 <= connection["mtu"] <= 9216:
        yield f"mtu {connection['mtu']} is not from 576 to 9216"
    metrics = [connection.get("metric"), *(route.get("metric") for route in connection["routes"])]
    for metric in metrics:
        if metric is not None and not 1 <= metric <= 4294967295:
            yield f"metric {metric} is not from 1 to 4294967295"


def _kind(connection: Connection) -> t.Iterator[str]:
    bond, vlan, modem = (connection.get(key) for key in ("bond", "vlan", "modem"))
    if bond:
        if len(set(bond["interfaces"])) < 2:
            yield "a bond needs two interfaces"
        if bond.get("primary") and bond["primary"] not in bond["interfaces"]:
            yield f"primary {bond['primary']} is none of {', '.join(bond['interfaces'])}"
        if bond.get("primary") and bond["mode"] != "active-backup":
            yield f"primary has no meaning in mode {bond['mode']}, only in active-backup"
    if vlan:
        if not 1 <= vlan["id"] <= 4094:
            yield f"vlan id {vlan['id']} is not from 1 to 4094"
        if vlan["parent"] == connection["interface"]:
            yield f"vlan parent {vlan['parent']} is the interface of the VLAN itself"
    if modem:
        for key in ("apn", "user"):
            if modem.get(key) and not _WORD.fullmatch(modem[key]):
                yield f"{key} {modem[key]!r} has a character that no {key} has"
        if connection.get("ipv4") != "auto":
            yield "a modem gets its address from the network, so ipv4 is auto"


def _secrets(connections: list[Connection], secrets: t.Mapping[str, str | None]) -> t.Iterator[str]:
    for key, value in secrets.items():
        if not value:
            continue
        if not _WORD.fullmatch(value):
            yield f"modem_{key} has a character that no {key} of a modem has"
        if not any(kind_of(connection) == GSM for connection in connections):
            yield f"modem_{key} is given, but no connection has a modem"


def _between(connections: list[Connection]) -> t.Iterator[str]:
    """What does not fit between connections: names and interfaces that two of them claim."""
    names: set[str] = set()
    interfaces: dict[str, str] = {}
    for connection in connections:
        name = connection["name"]
        for own in (name, *(f"{name}-{port}" for port in ports_of(connection))):
            if own in names:
                yield f"connection {own} is there twice"
            names.add(own)
        for interface in (connection["interface"], *ports_of(connection)):
            if interfaces.setdefault(interface, name) != name:
                yield f"connection {name}: interface {interface} belongs to {interfaces[interface]} already"
    ports = {port: item["name"] for item in connections for port in ports_of(item)}
    for connection in connections:
        parent = (connection.get("vlan") or {}).get("parent")
        if parent in ports:
            yield (
                f"connection {connection['name']}: parent {parent} is a port of {ports[parent]}; "
                "the VLAN goes on the bond"
            )
    if sum(kind_of(connection) == GSM for connection in connections) > 1:
        yield "two connections with a modem: NetworkManager could not tell which modem is whose"


def _missing(connections: list[Connection], present: t.Collection[str]) -> t.Iterator[str]:
    """Wired interfaces that the host does not have. Bonds and VLANs are made, and a modem may be plugged in later."""
    made = {item["interface"] for item in connections if item.get("bond") or item.get("vlan")}
    for connection in parents_first(connections):
        if connection.get("bond"):
            needed = ports_of(connection)
        elif connection.get("vlan"):
            needed = [connection["vlan"]["parent"]]
        elif connection.get("modem"):
            needed = []
        else:
            needed = [connection["interface"]]
        for interface in needed:
            if interface not in present and interface not in made:
                yield (
                    f"connection {connection['name']}: no interface {interface} on the host, "
                    f"only {', '.join(sorted(present))}"
                )
