# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Holds what listens on a host against what is declared."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

# Without these nobody could come back, or the meters would not be read: they are never masked because they listen.
_PROTECTED = re.compile(r"(sshd?|NetworkManager|dbus|systemd-\w+|energy-[\w-]+|user@\d+)\.(service|socket)")


def judge_listeners(
    host: Mapping[str, Any], declared: Iterable[Mapping[str, Any]], unwanted: Iterable[str], mask_others: bool
) -> dict[str, list[str]]:
    """What to do about what listens: ``close`` are the units to mask, ``refused`` a line for each listener
    that nobody has declared and that is not masked.

    ``host`` is the fact energy_host. Of the ``unwanted`` units all are masked that the host has, running or
    not, except those that a declared listener belongs to.
    """
    declared = list(declared)
    wanted: set[str] = set()
    undeclared = []
    for listener in host["listeners"]:
        if any(_covers(entry, listener) for entry in declared):
            wanted.update(listener["units"])
        else:
            undeclared.append(listener)
    close = {
        unit
        for unit in unwanted
        if host["units"].get(unit, {}).get("load", "not-found") != "not-found" and unit not in wanted
    }
    refused = set()
    for listener in undeclared:
        units = listener["units"]
        maskable = bool(units) and all(map(_is_maskable, units))
        if units and all(unit in close for unit in units):
            continue
        if maskable and mask_others and not wanted.intersection(units):
            close.update(units)
        else:
            refused.add(_refusal(listener, maskable and not mask_others))
    return {"close": sorted(close), "refused": sorted(refused)}


def _is_maskable(unit: str) -> bool:
    return unit.endswith((".service", ".socket")) and not _PROTECTED.fullmatch(unit)


def _covers(entry: Mapping[str, Any], listener: Mapping[str, Any]) -> bool:
    """Whether a declaration names this listener; what it leaves open is as the listener says."""
    if entry.get("protocol", "tcp") != listener["protocol"] or int(entry["port"]) != listener["port"]:
        return False
    if entry.get("process") and entry["process"] != listener["process"]:
        return False
    address = entry.get("address")
    if not address:
        return True
    if address == "loopback":
        return _is_loopback(ipaddress.ip_address(listener["address"]))
    return bool(address == listener["address"])


def _is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    # Only newer Pythons see by themselves that ::ffff:127.0.0.1 is.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _refusal(listener: Mapping[str, Any], maskable: bool) -> str:
    address = f"[{listener['address']}]" if ":" in listener["address"] else listener["address"]
    process = listener["process"] or "an unknown process"
    owner = f"{process} of {', '.join(listener['units'])}" if listener["units"] else f"{process}, of no unit,"
    way_out = (
        ", or set hardening.mask_undeclared to have it stopped and masked"
        if maskable
        else ", or stop it; it cannot be masked"
    )
    return (
        f"{owner} listens on {listener['protocol']} {address}:{listener['port']}, and nobody has declared it: "
        f"name it in hardening.listeners{way_out}"
    )
