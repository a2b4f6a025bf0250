# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The names of the fleet in /etc/hosts: a block of ours at the top, somebody's own lines untouched below it."""

from __future__ import annotations

import ipaddress
import re
import typing as t

BEGIN = "# BEGIN ANSIBLE MANAGED BLOCK: names of the energy fleet"
END = "# END ANSIBLE MANAGED BLOCK: names of the energy fleet"
_BLOCK = re.compile(rf"^{re.escape(BEGIN)}\n.*?(?:^{re.escape(END)}(?:\n|\Z)|\Z)", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def with_names(text: str, hosts: t.Sequence[t.Mapping[str, str]]) -> str:
    """`text` of a hosts file with our block as `hosts` (name, address) wants it; without one when there are none.

    The first line that names a host wins, and somebody's own line may come further down: so ours is at the top.
    """
    rest = _BLOCK.sub("", text)
    if not hosts:
        return rest
    lines = [BEGIN, *(f"{host['address']} {host['name']}" for host in hosts), END]
    return "\n".join(lines) + "\n" + rest


def faults(hosts: t.Sequence[t.Mapping[str, str]]) -> list[str]:
    """What is wrong with the names that were asked for, one line each."""
    found = []
    for host in hosts:
        if not _NAME.fullmatch(host["name"]):
            found.append(f"hosts: {host['name']!r} is no host name, such as hub.energy.example")
        try:
            ipaddress.ip_address(host["address"])
        except ValueError:
            found.append(f"hosts: {host['address']!r} of {host['name']} is no address, such as 10.0.0.2")
    return found
