# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What the networks of a site must fulfil among each other, beyond the schema.

Nearly every site has a WAN and an energy network with one address each; checks.py looks at those by itself, for
thousands of files a second. A network that says more is held against the checks of network_connections.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from ..network import faults, site
from ..network.connection import Connection
from .findings import Finding
from .kinds import INVALID

_PLAIN = frozenset(("interface", "address", "gateway", "dns"))


def is_plain(network: Any) -> bool:
    """Whether a site's network has nothing but what checks.py looks at by itself."""
    if not isinstance(network, dict):
        return True
    parts = [network.get("wan"), network.get("energy")]
    return "others" not in network and all(
        not isinstance(part, dict) or (part.keys() <= _PLAIN and part.get("address") != site.AUTO)
        for part in parts
    )


def findings(network: Mapping[str, Any]) -> Iterator[Finding]:
    """The faults of networks that say more than interface, address, router and name servers."""
    named = site.networks_of(network)
    sound = []
    for place, name, keys in named:
        if _refused(keys):
            continue
        connection = site.connection_of(name, keys)
        sound.append((place, connection))
        for fault in faults.own(connection):
            yield Finding(("network", *place, *_steps(fault.steps, keys)), fault.message)
        if place[0] == "others" and "address" not in keys and "bond" not in keys:
            yield Finding(
                ("network", *place), 'found no address, expected one, or "auto"; only a bond may have none'
            )
    if len(sound) < len(named):
        return
    for index, fault in faults.between([connection for _place, connection in sound]):
        if fault.steps != ("name",):  # the schema has seen to that
            yield Finding(("network", *sound[index][0], *fault.steps), fault.message)
    yield from _apart(sound)


def _refused(value: Any) -> bool:
    """Whether the schema has refused anything in here: then it is told already, and what follows from it is not."""
    if isinstance(value, dict):
        return any(_refused(below) for below in value.values())
    if isinstance(value, list):
        return any(_refused(below) for below in value)
    return value is INVALID


def _steps(steps: tuple[str | int, ...], keys: Mapping[str, Any]) -> tuple[str | int, ...]:
    """The place in the site file of a fault of a connection, whose `addresses` begin with the site's `address`."""
    if steps[0] in ("ipv4", "name"):
        return ()
    if steps[0] != "addresses":
        return steps
    number = int(steps[1])
    written = keys.get("address") not in (None, site.AUTO)
    if not written:
        return steps
    return ("address",) if number == 0 else ("addresses", number - 1)


def _apart(sound: list[tuple[tuple[str, ...], Connection]]) -> Iterator[Finding]:
    """Two networks of one gateway that overlap leave it to chance which interface a packet takes."""
    before: list[tuple[str, Any]] = []
    for place, connection in sound:
        own = []
        for number, address in enumerate(connection["addresses"]):
            try:
                network = ipaddress.ip_interface(address).network
            except ValueError:
                continue
            own.append((place[-1], network))
            for other, known in before:
                pair = {other, place[-1]} == {"wan", "energy"} and number == 0
                if network.version == known.version and network.overlaps(known) and not pair:
                    yield Finding(
                        ("network", *place),
                        f"found {network}, which overlaps {known} of {other}, expected networks apart",
                    )
        before += own
