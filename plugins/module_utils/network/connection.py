# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""A connection as it was asked for: what kind it is, and what follows from what was left out."""

from __future__ import annotations

import ipaddress
import typing as t

Connection = t.Dict[str, t.Any]

OPTIONS: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "interface": {"type": "str", "required": True},
    "addresses": {"type": "list", "elements": "str", "default": []},
    "ipv4": {"type": "str", "choices": ["auto", "manual", "disabled"]},
    "ipv6": {"type": "str", "choices": ["auto", "manual", "link-local", "disabled"]},
    "gateway": {"type": "str"},
    "gateway6": {"type": "str"},
    "routes": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "to": {"type": "str", "required": True},
            "via": {"type": "str", "required": True},
            "metric": {"type": "int"},
        },
    },
    "dns": {"type": "list", "elements": "str", "default": []},
    "metric": {"type": "int"},
    "mtu": {"type": "int", "default": 0},
    "bond": {
        "type": "dict",
        "options": {
            "interfaces": {"type": "list", "elements": "str", "required": True},
            "mode": {
                "type": "str",
                "choices": ["active-backup", "802.3ad", "balance-xor"],
                "default": "active-backup",
            },
            "primary": {"type": "str"},
        },
    },
    "vlan": {
        "type": "dict",
        "options": {
            "id": {"type": "int", "required": True},
            "parent": {"type": "str", "required": True},
        },
    },
    "modem": {
        "type": "dict",
        "options": {"apn": {"type": "str", "required": True}, "user": {"type": "str"}},
    },
}

ETHERNET, BOND, VLAN, GSM = "ethernet", "bond", "vlan", "gsm"


def kind_of(connection: Connection) -> str:
    """`type` of the connection's profile."""
    for key, kind in (("bond", BOND), ("vlan", VLAN), ("modem", GSM)):
        if connection.get(key):
            return kind
    return ETHERNET


def ports_of(connection: Connection) -> list[str]:
    """The interfaces that a bond is made of; none for any other kind."""
    return list(connection["bond"]["interfaces"]) if connection.get("bond") else []


def version_of(text: str) -> int:
    """4 or 6, for an address or a network. The faults have made sure of the form."""
    return ipaddress.ip_interface(text).version


def of_version(texts: t.Iterable[str], version: int) -> list[str]:
    return [text for text in texts if version_of(text) == version]


def method_of(connection: Connection, version: int) -> str:
    """`method` of a family. Left out it follows from whether there are addresses."""
    asked = connection.get(f"ipv{version}")
    if asked:
        return str(asked)
    return "manual" if of_version(connection["addresses"], version) else "disabled"


def gateway_of(connection: Connection, version: int) -> str | None:
    return connection.get("gateway" if version == 4 else "gateway6") or None


def parents_first(connections: list[Connection]) -> list[Connection]:
    """In the order given, but bonds before and VLANs after all others: a VLAN needs its parent."""
    rank = {BOND: 0, VLAN: 2}
    return sorted(connections, key=lambda item: rank.get(kind_of(item), 1))
