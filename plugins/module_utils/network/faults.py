# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What is wrong with connections as they were asked for. The module asks before it looks at the host, and the
inventory before it looks for one: the same faults, by their place, in the same words.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

from .connection import GSM, Connection, gateway_of, kind_of, method_of, of_version, ports_of, version_of

_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
# A line end would let a value write further settings, and a `;` or `\` means something to a keyfile.
_WORD = re.compile(r"[!-:<-\[\]-~]+")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
IPV6_MTU = 1280  # RFC 8200, section 5: what every link that carries IPv6 must take
_KINDS = ("bond", "vlan", "modem")


class Fault(t.NamedTuple):
    """A fault: the steps to its place within the connection, and what was found and what was expected there."""

    steps: tuple[t.Union[str, int], ...]
    message: str


def lines(
    connections: list[Connection], secrets: t.Mapping[str, str | None], present: t.Collection[str]
) -> list[str]:
    """The faults of the connections, a line each. `present`: the interfaces that the host has now."""
    found = [(item, fault) for item in connections for fault in own(item)]
    found += [(connections[index], fault) for index, fault in between(connections)]
    found += [(item, fault) for item in connections for fault in _missing(item, connections, present)]
    return [f"connection {item['name']}: {_shown(fault)}" for item, fault in found] + list(
        _secrets(connections, secrets)
    )


def _shown(fault: Fault) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in fault.steps)
    return f"{path.lstrip('.')}: {fault.message}"


def own(connection: Connection) -> t.Iterator[Fault]:
    """The faults that a connection has by itself."""
    if not _FILE.fullmatch(connection["name"]):
        yield Fault(
            ("name",),
            f'found "{connection["name"]}", expected letters, digits, ".", "_" and "-": it names a file',
        )
    yield from _interface_names(connection)
    bad = list(_unreadable(connection))
    yield from bad
    if not bad:
        yield from _families(connection)
        yield from _routes(connection)
    yield from _numbers(connection)
    yield from _kind(connection)


def _interface_names(connection: Connection) -> t.Iterator[Fault]:
    places: list[tuple[tuple[t.Union[str, int], ...], str]] = [(("interface",), connection["interface"])]
    places += [(("bond", "interfaces", number), port) for number, port in enumerate(ports_of(connection))]
    if connection.get("vlan"):
        places.append((("vlan", "parent"), connection["vlan"]["parent"]))
    for steps, interface in places:
        if not _INTERFACE.fullmatch(interface):
            yield Fault(
                steps,
                f'found "{interface}", expected a network interface such as "eth0", of up to 15 characters',
            )


def _unreadable(connection: Connection) -> t.Iterator[Fault]:
    """Addresses and networks that are none."""
    for number, text in enumerate(connection["addresses"]):
        expected = 'expected an address with its prefix length such as "10.0.0.2/24" or "fd00::2/64"'
        try:
            interface = ipaddress.ip_interface(text)
        except ValueError:
            yield Fault(("addresses", number), f'found "{text}", {expected}')
            continue
        if "/" not in text:
            yield Fault(("addresses", number), f'found "{text}", {expected}')
            continue
        network = interface.network
        if network.version == 4 and network.prefixlen < 31:
            where = {
                str(network.network_address): "the network itself",
                str(network.broadcast_address): "the broadcast address",
            }
            if what := where.get(str(interface.ip)):
                message = f'found "{text}", {what}, expected an address of a host in {network}'
                yield Fault(("addresses", number), message)
    for key, version, example in (("gateway", 4, "10.0.0.1"), ("gateway6", 6, "fd00::1")):
        if connection.get(key) and not _is_address(connection[key], version):
            yield Fault(
                (key,), f'found "{connection[key]}", expected an IPv{version} address such as "{example}"'
            )
    for number, server in enumerate(connection["dns"]):
        if not _is_address(server):
            yield Fault(("dns", number), f'found "{server}", expected an address such as "10.0.0.53"')
    for number, route in enumerate(connection["routes"]):
        try:
            network = ipaddress.ip_network(route["to"])
        except ValueError:
            yield Fault(
                ("routes", number, "to"),
                f'found "{route["to"]}", expected a network such as "10.8.0.0/16", without host bits',
            )
            continue
        if not _is_address(route["via"], network.version):
            yield Fault(
                ("routes", number, "via"), f'found "{route["via"]}", expected an IPv{network.version} address'
            )


def _is_address(text: str, version: int | None = None) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return version in (None, address.version)


def _families(connection: Connection) -> t.Iterator[Fault]:
    addresses = connection["addresses"]
    for number, address in enumerate(addresses):
        if address in addresses[:number]:
            yield Fault(("addresses", number), f'found "{address}" twice, expected each once')
    networks = _networks(connection)
    for version, key in ((4, "gateway"), (6, "gateway6")):
        method = method_of(connection, version)
        given = of_version(addresses, version)
        if method == "manual" and not given:
            yield Fault((f"ipv{version}",), f"found manual, expected an IPv{version} address beside it")
        if method in ("disabled", "link-local") and given:
            yield Fault(
                (f"ipv{version}",), f"found {method} beside the address {given[0]}, expected one of the two"
            )
        gateway = gateway_of(connection, version)
        if gateway is None:
            continue
        if version == 4 and method == "auto":
            yield Fault((key,), f'found "{gateway}", expected none: the router comes by DHCP')
        elif any(gateway == address.split("/")[0] for address in given):
            yield Fault((key,), f"found \"{gateway}\", the site's own address, expected the router's")
        elif not given or not _on_link(gateway, networks):
            # NetworkManager refuses a profile with a router and no address, also where the router is link-local.
            yield Fault((key,), f'found "{gateway}", expected an address in {_listed(networks, version)}')


def _networks(connection: Connection) -> list[t.Any]:
    return [ipaddress.ip_interface(text).network for text in connection["addresses"]]


def _listed(networks: list[t.Any], version: int) -> str:
    same = [str(network) for network in networks if network.version == version]
    return " or ".join(same) or f"a network of this connection, which has no IPv{version} address"


def _on_link(gateway: str, networks: list[t.Any]) -> bool:
    """Whether the next hop is on the link: in one of its networks, link-local, or beyond a line of one address."""
    address = ipaddress.ip_address(gateway)
    if address.version == 6 and address.is_link_local:
        return True
    same = [network for network in networks if network.version == address.version]
    return any(address in network or network.prefixlen == network.max_prefixlen for network in same)


def _routes(connection: Connection) -> t.Iterator[Fault]:
    networks = _networks(connection)
    seen: dict[str, int] = {}
    for number, route in enumerate(connection["routes"]):
        version = version_of(route["to"])
        if method_of(connection, version) != "auto" and not _on_link(route["via"], networks):
            yield Fault(
                ("routes", number, "via"),
                f'found "{route["via"]}", expected an address in {_listed(networks, version)}',
            )
        first = seen.setdefault(route["to"], number)
        if first != number:
            yield Fault(
                ("routes", number, "to"), f'found "{route["to"]}", as in routes[{first}], expected each once'
            )


def _numbers(connection: Connection) -> t.Iterator[Fault]:
    mtu = connection["mtu"]
    if mtu and not 576 <= mtu <= 9216:
        yield Fault(("mtu",), f"found {mtu}, expected a whole number from 576 to 9216")
    elif mtu and mtu < IPV6_MTU and _has_ipv6(connection):
        yield Fault(("mtu",), f"found {mtu}, expected at least {IPV6_MTU}, which IPv6 needs")
    metrics: list[tuple[tuple[t.Union[str, int], ...], t.Any]] = [(("metric",), connection.get("metric"))]
    metrics += [
        (("routes", number, "metric"), route.get("metric"))
        for number, route in enumerate(connection["routes"])
    ]
    for steps, metric in metrics:
        if metric is not None and not 1 <= metric <= 4294967295:
            yield Fault(steps, f"found {metric}, expected a whole number from 1 to 4294967295")


def _has_ipv6(connection: Connection) -> bool:
    return connection.get("ipv6") not in (None, "disabled") or any(
        ":" in address for address in connection["addresses"]
    )


def _kind(connection: Connection) -> t.Iterator[Fault]:
    kinds = [key for key in _KINDS if connection.get(key)]
    if len(kinds) > 1:
        message = f"found beside {kinds[0]}, expected one of the two; a VLAN on a bond is two connections"
        yield Fault((kinds[1],), message)
    bond, vlan, modem = (connection.get(key) for key in _KINDS)
    if bond:
        ports = bond["interfaces"]
        if len(set(ports)) < 2:
            yield Fault(("bond", "interfaces"), f"found {len(set(ports))} of them, expected at least two")
        primary = bond.get("primary")
        if primary and primary not in ports:
            yield Fault(("bond", "primary"), f'found "{primary}", expected one of {", ".join(ports)}')
        elif primary and bond["mode"] != "active-backup":
            yield Fault(("bond", "primary"), f"found with mode {bond['mode']}, expected none")
    if vlan:
        if not 1 <= vlan["id"] <= 4094:
            yield Fault(("vlan", "id"), f"found {vlan['id']}, expected a whole number from 1 to 4094")
        if vlan["parent"] == connection["interface"]:
            message = f'found "{vlan["parent"]}", the interface of the VLAN itself, expected what carries it'
            yield Fault(("vlan", "parent"), message)
    if modem:
        for key in ("apn", "user"):
            if modem.get(key) and not _WORD.fullmatch(modem[key]):
                message = "found a blank, ; or \\ or a control character, expected none"
                yield Fault(("modem", key), message)
        if connection.get("ipv4") != "auto":
            yield Fault(("modem",), "found with a written address, expected auto: the network gives it")


def _secrets(connections: list[Connection], secrets: t.Mapping[str, str | None]) -> t.Iterator[str]:
    for key, value in secrets.items():
        if value and not _WORD.fullmatch(value):
            yield f"modem_{key}: found a blank, ; or \\ or a control character, expected none"
        if value and not any(kind_of(connection) == GSM for connection in connections):
            yield f"modem_{key}: found, but no connection has a modem"


def between(connections: list[Connection]) -> t.Iterator[tuple[int, Fault]]:
    """What does not fit between connections, with the index of the one that is to be changed."""
    names: set[str] = set()
    owners: dict[str, str] = {}
    vlans: dict[tuple[str, int], str] = {}
    ports = {port: item["name"] for item in connections for port in ports_of(item)}
    modem = None
    for index, connection in enumerate(connections):
        name = connection["name"]
        for profile in (name, *(f"{name}-{port}" for port in ports_of(connection))):
            if profile in names:
                yield index, Fault(("name",), f'found "{profile}" twice, expected a name of its own')
            names.add(profile)
        for steps, interface in _claims(connection):
            owner = owners.setdefault(interface, name)
            if owner != name:
                yield index, Fault(steps, f'found "{interface}", as in {owner}, expected another interface')
        vlan = connection.get("vlan")
        if vlan:
            parent = vlan["parent"]
            if parent in ports:
                message = f'found "{parent}", a port of {ports[parent]}, expected the bond itself'
                yield index, Fault(("vlan", "parent"), message)
            first = vlans.setdefault((parent, vlan["id"]), name)
            if first != name:
                message = f"found {vlan['id']} on {parent}, as in {first}, expected an id of its own"
                yield index, Fault(("vlan", "id"), message)
        if connection.get("modem"):
            if modem is not None:
                message = f"found a second modem beside {modem}, expected one: which would be whose?"
                yield index, Fault(("modem",), message)
            modem = name
    yield from _default_routes(connections)


def _claims(connection: Connection) -> t.Iterator[tuple[tuple[t.Union[str, int], ...], str]]:
    yield ("interface",), connection["interface"]
    for number, port in enumerate(ports_of(connection)):
        yield ("bond", "interfaces", number), port


def _default_routes(connections: list[Connection]) -> t.Iterator[tuple[int, Fault]]:
    """Of two ways out the metric says which is used; without one NetworkManager would choose by kind of device."""
    ways: dict[t.Any, str] = {}
    leading = [
        index for index, item in enumerate(connections) if item.get("gateway") or item.get("ipv4") == "auto"
    ]
    if len(leading) < 2:
        return
    for index in leading:
        metric, name = connections[index].get("metric"), connections[index]["name"]
        others = ", ".join(connections[other]["name"] for other in leading if other != index)
        if metric is None:
            message = (
                f"missing, expected a metric: {others} is a way out as well, and the lower metric is used"
            )
            yield index, Fault(("metric",), message)
        elif ways.setdefault(metric, name) != name:
            yield index, Fault(("metric",), f"found {metric}, as in {ways[metric]}, expected another one")


def _missing(
    connection: Connection, connections: list[Connection], present: t.Collection[str]
) -> t.Iterator[Fault]:
    """Wired interfaces that the host does not have. Bonds and VLANs are made, and a modem may be plugged in later."""
    made = {item["interface"] for item in connections if item.get("bond") or item.get("vlan")}
    needed: list[tuple[tuple[t.Union[str, int], ...], str]] = []
    if connection.get("bond"):
        needed = [(steps, port) for steps, port in _claims(connection) if steps[0] == "bond"]
    elif connection.get("vlan"):
        needed = [(("vlan", "parent"), connection["vlan"]["parent"])]
    elif not connection.get("modem"):
        needed = [(("interface",), connection["interface"])]
    for steps, interface in needed:
        if _INTERFACE.fullmatch(interface) and interface not in present and interface not in made:
            yield Fault(
                steps, f'found "{interface}", expected one of the host\'s: {", ".join(sorted(present))}'
            )
