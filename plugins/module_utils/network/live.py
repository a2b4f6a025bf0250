# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The live state of the devices, from NetworkManager and the kernel, and the one that a connection asks for.

Only what a connection decides is compared: an address that came by DHCP, a metric that nobody asked for and a
route that the kernel made are left out on both sides.
"""

from __future__ import annotations

import ipaddress
import json
import pathlib
import typing as t
from dataclasses import dataclass, field

from .connection import (
    BOND,
    GSM,
    VLAN,
    Connection,
    gateway_of,
    kind_of,
    method_of,
    ports_of,
    version_of,
)

Live = t.Dict[str, t.Any]
# The output of a program, or an exception; AnsibleModule.run_command behind it.
Run = t.Callable[[t.List[str]], str]

_FIELDS = "GENERAL.DEVICE,GENERAL.TYPE,GENERAL.STATE,GENERAL.CON-UUID,IP4.DNS,IP6.DNS"
_ACTIVATED = "100 "  # NM_DEVICE_STATE_ACTIVATED
_UNMANAGED = "10 "  # NM_DEVICE_STATE_UNMANAGED
_UNAVAILABLE = "20 "  # NM_DEVICE_STATE_UNAVAILABLE: no cable, or the modem is not ready
_MODULES = {BOND: ("bonding", "/sys/class/net/bonding_masters"), VLAN: ("8021q", "/proc/net/vlan")}


@dataclass
class Snapshot:
    """Everything about the network that one look at the host tells."""

    links: dict[str, dict[str, t.Any]] = field(default_factory=dict)  # `ip address`, by interface
    routes: list[dict[str, t.Any]] = field(
        default_factory=list
    )  # `ip route` of both families, with `version`
    devices: dict[str, dict[str, t.Any]] = field(default_factory=dict)  # `nmcli device show`, by device
    files: dict[str, str] = field(
        default_factory=dict
    )  # UUID of each profile that is held: file it came from

    @classmethod
    def take(cls, ip: str, nmcli: str | None, run: Run) -> Snapshot:
        """Five programs, however many interfaces there are; without NetworkManager there is nothing live."""
        snapshot = cls(links={link["ifname"]: link for link in _json(run([ip, "-json", "address", "show"]))})
        for version in (4, 6):
            for route in _json(run([ip, "-json", f"-{version}", "route", "show", "table", "main"])):
                snapshot.routes.append({**route, "version": version})
        if nmcli is not None:
            terse = [nmcli, "--terse", "--escape", "no", "--fields"]
            snapshot.devices = devices(run([*terse, _FIELDS, "device", "show"]))
            snapshot.files = files(run([*terse, "UUID,FILENAME", "connection", "show"]))
        return snapshot


def _json(text: str) -> list[dict[str, t.Any]]:
    return [entry for entry in json.loads(text or "[]") if entry]


def devices(text: str) -> dict[str, dict[str, t.Any]]:
    """`nmcli device show` of all devices, with lists for fields that are there several times."""
    found: dict[str, dict[str, t.Any]] = {}
    device: dict[str, t.Any] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if not colon:
            continue
        if key == "GENERAL.DEVICE":
            device = found.setdefault(value, {"IP4.DNS": [], "IP6.DNS": []})
        plain = key.partition("[")[0]
        if plain in ("IP4.DNS", "IP6.DNS"):
            if value:
                device[plain].append(value)
        else:
            device[plain] = value
    return found


def files(text: str) -> dict[str, str]:
    """UUID of every profile that NetworkManager holds, with the file it is held from."""
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def unmanaged(snapshot: Snapshot, interface: str) -> bool:
    return str(snapshot.devices.get(interface, {}).get("GENERAL.STATE", "")).startswith(_UNMANAGED)


def absence(connection: Connection, snapshot: Snapshot, able: t.Callable[[str], bool]) -> str | None:
    """Why there is no device to compare with and none to be expected; None when there is, or should be, one."""
    kind = kind_of(connection)
    device = device_of(connection, snapshot)
    if device.get("GENERAL.STATE", "").startswith(_UNAVAILABLE):
        return "the modem is not ready" if kind == GSM else "its link is down: check cable and switch"
    if kind == GSM:
        return None if device else "no modem is there"
    if kind not in _MODULES or connection["interface"] in snapshot.links:
        return None
    if not able(kind):
        return f"this kernel has no module {_MODULES[kind][0]}"
    if kind == VLAN and connection["vlan"]["parent"] not in snapshot.links and not able(BOND):
        return f"its parent {connection['vlan']['parent']} is not there"
    return None


def kernel_able(kind: str, modprobe: str | None, run: t.Callable[[list[str]], int]) -> bool:
    """Whether this kernel can make a bond or a VLAN: it has it in, or a module that can be loaded."""
    module, sign = _MODULES[kind]
    if pathlib.Path(sign).exists():
        return True
    return modprobe is not None and run([modprobe, "--dry-run", "--quiet", module]) == 0


def device_of(connection: Connection, snapshot: Snapshot) -> dict[str, t.Any]:
    """NetworkManager's device of a connection; empty when there is none."""
    if kind_of(connection) != GSM:
        return snapshot.devices.get(connection["interface"], {})
    modems = [device for device in snapshot.devices.values() if device.get("GENERAL.TYPE") == "gsm"]
    return modems[0] if modems else {}


def wanted(connection: Connection) -> Live:
    """The live state that the device of a connection should be in."""
    live: Live = {"state": "connected"}
    if kind_of(connection) != GSM:
        live["addresses"] = _in_order(connection["addresses"])
    live["routes"] = sorted(_wanted_routes(connection).values())
    if connection.get("metric") is not None and _by_dhcp(connection):
        live["metric by DHCP"] = connection["metric"]
    if connection["mtu"]:
        live["mtu"] = connection["mtu"]
    live["dns"] = [_plain(server) for server in sorted(connection["dns"], key=version_of)]
    if ports_of(connection):
        live["ports"] = sorted(ports_of(connection))
    return live


def read(connection: Connection, snapshot: Snapshot) -> Live:
    """The live state of a connection's device, with the keys of `wanted`."""
    interface = connection["interface"]
    device, link = device_of(connection, snapshot), snapshot.links.get(interface)
    if not device or (link is None and kind_of(connection) != GSM):
        return {"state": "missing"}
    link = link or {}
    state = device.get("GENERAL.STATE", "unknown")
    live: Live = {"state": "connected" if state.startswith(_ACTIVATED) else state}
    if kind_of(connection) != GSM:
        live["addresses"] = _in_order(_addresses(connection, link))
    ours = [route for route in snapshot.routes if route.get("dev") == interface]
    live["routes"] = sorted(_live_routes(connection, ours))
    if connection.get("metric") is not None and _by_dhcp(connection):
        metrics = [int(route.get("metric", 0)) for route in ours if _is_dhcp_default(route)]
        # a network whose DHCP offers no router is no fault of the metric
        live["metric by DHCP"] = metrics[0] if metrics else connection["metric"]
    if connection["mtu"]:
        live["mtu"] = link.get("mtu")
    live["dns"] = _dns(connection, device)
    if ports_of(connection):
        live["ports"] = sorted(
            name for name, other in snapshot.links.items() if other.get("master") == interface
        )
    return live


def as_text(interface: str, live: Live) -> str:
    """A live state as lines that a diff can show."""
    lines = []
    for key, value in live.items():
        shown = (", ".join(value) or "none") if isinstance(value, list) else value
        lines.append(f"{interface}: {key} {shown}\n")
    return "".join(lines)


def _by_dhcp(connection: Connection) -> bool:
    return method_of(connection, 4) == "auto"


def _is_dhcp_default(route: dict[str, t.Any]) -> bool:
    return route["version"] == 4 and route["dst"] == "default" and route.get("protocol") == "dhcp"


def _in_order(addresses: t.Iterable[str]) -> list[str]:
    # IPv4 first. Which of several addresses the kernel lists first says when they were added, not what is wanted.
    return sorted((_plain(text) for text in addresses), key=lambda text: (":" in text, text))


def _plain(text: str) -> str:
    """An address or network as the kernel writes it: FD00:0::2/64 is fd00::2/64."""
    host, slash, prefix = text.partition("/")
    try:
        return f"{ipaddress.ip_address(host)}{slash}{prefix}"
    except ValueError:
        return text


def _addresses(connection: Connection, link: dict[str, t.Any]) -> t.Iterator[str]:
    for entry in link.get("addr_info", []):
        version = {"inet": 4, "inet6": 6}.get(entry["family"])
        if version is None or entry["scope"] != "global":
            continue
        if method_of(connection, version) == "auto" and entry.get("dynamic"):
            continue
        yield f"{entry['local']}/{entry['prefixlen']}"


def _wanted_routes(connection: Connection) -> dict[tuple[int, str], str]:
    """The routes that a connection asks for, as they are shown, by family and destination."""
    routes: dict[tuple[int, str], str] = {}
    for version in (4, 6):
        gateway = gateway_of(connection, version)
        if gateway:
            routes[version, "default"] = _shown("default", gateway, connection.get("metric"))
    for route in connection["routes"]:
        version = version_of(route["to"])
        metric = route["metric"] if route.get("metric") is not None else connection.get("metric")
        routes[version, _destination(route["to"])] = _shown(_destination(route["to"]), route["via"], metric)
    return routes


def _live_routes(connection: Connection, routes: list[dict[str, t.Any]]) -> t.Iterator[str]:
    asked = _wanted_routes(connection)
    for route in routes:
        protocol = route.get("protocol")
        automatic = {4: "dhcp", 6: "ra"}[route["version"]]
        if protocol == "kernel" or (
            protocol == automatic and method_of(connection, route["version"]) == "auto"
        ):
            continue
        key = (route["version"], route["dst"])
        # A metric that nobody asked for is NetworkManager's to choose.
        compared = " metric " in asked.get(key, " metric ")
        yield _shown(route["dst"], route.get("gateway"), route.get("metric") if compared else None)


def _shown(destination: str, gateway: str | None, metric: int | None) -> str:
    way = f"via {_plain(gateway)}" if gateway else "direct"
    return f"{destination} {way}" + (f" metric {metric}" if metric is not None else "")


def _destination(network: str) -> str:
    """As `ip route` writes it: a route to one host has no prefix length, and 0.0.0.0/0 is the default."""
    plain = _plain(network)
    if plain in ("0.0.0.0/0", "::/0"):
        return "default"
    return plain.removesuffix("/128" if ":" in plain else "/32")


def _dns(connection: Connection, device: dict[str, t.Any]) -> list[str]:
    servers = []
    for version in (4, 6):
        automatic = method_of(connection, version) == "auto"
        servers += [
            server
            for server in device[f"IP{version}.DNS"]
            if not automatic or server in map(_plain, connection["dns"])
        ]
    return servers
