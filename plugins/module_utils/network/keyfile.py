# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Profiles as nm-settings-keyfile(5) wants them."""

from __future__ import annotations

import re
import typing as t
import uuid
from dataclasses import dataclass

from .connection import (
    BOND,
    GSM,
    VLAN,
    Connection,
    gateway_of,
    kind_of,
    method_of,
    of_version,
    ports_of,
    version_of,
)

# A fixed namespace makes the profile's UUID a function of its name, on every host and at every run.
NAMESPACE = uuid.UUID("6f1de1cc-8a53-5d0e-9d0b-b0d1b5b6f4aa")
HEADER = "# Written by Ansible. What is changed here or with nmcli is undone by the next run.\n"
# Above any profile that came with the image, and never giving up: nobody is there to type nmcli.
PRIORITY = 100
FOR_EVER = 2147483647
_SECRET = re.compile(r"^(password|pin)=.*$", re.MULTILINE)


@dataclass(frozen=True)
class Profile:
    """One keyfile."""

    name: str
    interface: str
    text: str

    @property
    def uuid(self) -> str:
        return uuid_of(self.name)

    @property
    def file(self) -> str:
        return f"{self.name}.nmconnection"


def uuid_of(name: str) -> str:
    """The UUID that the profile called `name` has on every host."""
    return str(uuid.uuid5(NAMESPACE, name))


def has_secrets(text: str) -> bool:
    return _SECRET.search(text) is not None


def without_secrets(text: str) -> str:
    """A profile as it may be shown."""
    return _SECRET.sub(r"\1=(hidden)", text)


def profiles(connection: Connection, secrets: t.Mapping[str, str | None]) -> list[Profile]:
    """The profiles of a connection: its own, and one for each port of a bond.

    `secrets`: `password` and `pin` of a modem.
    """
    name, interface = connection["name"], connection["interface"]
    own = Profile(name, interface, _text(connection, secrets))
    return [own, *(_port(name, interface, port) for port in ports_of(connection))]


def _header(name: str, kind: str, interface: str | None) -> list[str]:
    return [
        "[connection]",
        f"id={name}",
        f"uuid={uuid_of(name)}",
        f"type={kind}",
        # A modem is found by being one: NetworkManager knows it by its control port, not by wwan0.
        *([f"interface-name={interface}"] if interface else []),
        "autoconnect=true",
        f"autoconnect-priority={PRIORITY}",
        "autoconnect-retries=0",
    ]


def _port(bond_name: str, bond: str, port: str) -> Profile:
    name = f"{bond_name}-{port}"
    lines = [*_header(name, "ethernet", port), f"master={bond}", "slave-type=bond", "", "[ethernet]"]
    return Profile(name, port, HEADER + "\n".join(lines) + "\n")


def _text(connection: Connection, secrets: t.Mapping[str, str | None]) -> str:
    kind = kind_of(connection)
    lines = _header(connection["name"], kind, None if kind == GSM else connection["interface"])
    if kind == BOND:
        lines.append("autoconnect-slaves=1")
        lines += ["", "[bond]", f"mode={connection['bond']['mode']}", "miimon=100"]
        if connection["bond"].get("primary"):
            lines.append(f"primary={connection['bond']['primary']}")
    elif kind == VLAN:
        lines += ["", "[vlan]", f"id={connection['vlan']['id']}", f"parent={connection['vlan']['parent']}"]
    elif kind == GSM:
        lines += ["", *_modem(connection, secrets)]
    mtu = [f"mtu={connection['mtu']}"] if connection["mtu"] else []
    if kind == GSM:
        lines += mtu
    else:
        # NetworkManager takes the MTU of every kind of wired device from here.
        lines += ["", "[ethernet]", *mtu]
    for version in (4, 6):
        lines += ["", f"[ipv{version}]", *_family(connection, version)]
    return HEADER + "\n".join(lines) + "\n"


def _modem(connection: Connection, secrets: t.Mapping[str, str | None]) -> list[str]:
    modem = connection["modem"]
    lines = ["[gsm]", f"apn={modem['apn']}"]
    if modem.get("user"):
        lines.append(f"username={modem['user']}")
    lines += [f"{key}={secrets[key]}" for key in ("password", "pin") if secrets.get(key)]
    return lines


def _family(connection: Connection, version: int) -> list[str]:
    method = method_of(connection, version)
    lines = [f"method={method}"]
    addresses = of_version(connection["addresses"], version)
    lines += [f"address{number}={address}" for number, address in enumerate(addresses, 1)]
    gateway = gateway_of(connection, version)
    if gateway:
        lines.append(f"gateway={gateway}")
    elif not _may_be_default(connection, version):
        lines.append("never-default=true")
    routes = [route for route in connection["routes"] if version_of(route["to"]) == version]
    for number, route in enumerate(routes, 1):
        metric = f",{route['metric']}" if route.get("metric") is not None else ""
        lines.append(f"route{number}={route['to']},{route['via']}{metric}")
    if connection.get("metric") is not None and method != "disabled":
        lines.append(f"route-metric={connection['metric']}")
    servers = of_version(connection["dns"], version)
    if servers:
        lines.append("dns=" + "".join(f"{server};" for server in servers))
    if version == 4 and method == "auto" and kind_of(connection) != GSM:
        lines.append(f"dhcp-timeout={FOR_EVER}")
    if version == 4 and method != "disabled":
        lines.append("may-fail=false")
    return lines


def _may_be_default(connection: Connection, version: int) -> bool:
    """Whether a family without a gateway of its own may still become the default route: by DHCP, or by router
    advertisements on a link that leads out.
    """
    if version == 4:
        return method_of(connection, 4) == "auto"
    return method_of(connection, 4) == "auto" or gateway_of(connection, 4) is not None
