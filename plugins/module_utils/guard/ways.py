# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What carries the way in at the next boot. A change that takes it away works, and can be confirmed, until then."""

from __future__ import annotations

from typing import Any

from . import manager, units
from .change import Change
from .host import Host

WAYS = {
    "sshd": ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket"),
    "the network": ("NetworkManager.service", "systemd-networkd.service", "networking.service"),
    "the firewall": ("energy-firewall.service", "nftables.service"),
}
# Without a firewall at boot everybody gets in. That may be wanted, by its name.
NEEDED = ("sshd", "the network")
MASK = "/dev/null"
TARGET = f"{units.LINKS}/default.target"


STARTED = ("enabled", "generated")


def look(host: Host) -> list[str]:
    """The units of the ways in that the next boot starts, by their own names and not by aliases."""
    names = [name for names in WAYS.values() for name in names]
    states = units.at_boot(host, names)
    return [name for name in names if states.get(name) in STARTED]


def _switched(change: Change) -> tuple[set[str], set[str]]:
    """The units that a change wants off at the next boot, and those that it wants on, by their names."""
    off = {item["name"] for item in change.units if item.get("masked") or item.get("enabled") is False}
    for item in change.files:
        gone = item["state"] == "absent" or item["target"] == MASK
        if gone and item["path"].startswith(f"{units.LINKS}/"):
            off.add(item["path"].rpartition("/")[2])
    if change.revert:
        # What the originals say of them is wanted.
        off.update(change.kept_units)
    return off, {item["name"] for item in change.units if item.get("enabled")}


def refusal(change: Change, coming: list[str]) -> str | None:
    """Why a change must not begin: it wants a way in off, by name, and nothing takes its place."""
    off, on = _switched(change)
    if change.revert:
        return None  # what it puts back is seen when it is there
    for way in NEEDED:
        carriers = [name for name in coming if name in WAYS[way]]
        left = set(carriers) - off | {name for name in on if name in WAYS[way]}
        if carriers and not left:
            return (
                f"nobody would get in after the next boot: {' and '.join(carriers)} would be off, and nothing "
                f"else brings up {way}; nothing is changed"
            )
    return None


def lost(host: Host, change: Change, was: dict[str, Any], links: dict[str, Any]) -> list[str]:
    """What the next boot would lack though nobody has asked for that by name. `links` are those of the units, now."""
    off, _on = _switched(change)
    states = units.at_boot(host, was["ways"])
    lines = [
        f"{name} is {states.get(name, 'gone')}"
        for name in was["ways"]
        if name not in off and states.get(name) not in STARTED
    ]
    lines += _unwanted(
        [name for name in was["ways"] if name not in off and states.get(name) in STARTED],
        was["links"] or {},
        links,
    )
    # What others need to come up, down to the bus, can be masked as well. No table of names would be complete.
    for path, entry in links.items():
        name = path.rpartition("/")[2]
        fresh = entry != (was["links"] or {}).get(path)
        if fresh and path == f"{units.LINKS}/{name}" and entry.get("target") == MASK and name not in off:
            lines.append(f"{name} is masked")
    lines += _target(change, was["links"] or {}, links)
    if was["network"]:
        without = manager.without_profile(host, was["network"]["manager"])
        lines += [f"no profile of NetworkManager brings up {device} any more" for device in without]
    coming = look(host)
    for way in NEEDED:
        if any(name in WAYS[way] for name in was["ways"]) and not any(name in WAYS[way] for name in coming):
            lines.append(f"nothing brings up {way}")
    return list(dict.fromkeys(lines))


def _unwanted(names: list[str], before: dict[str, Any], links: dict[str, Any]) -> list[str]:
    """Units that nothing starts at boot any more. systemd calls them enabled as long as an alias of theirs is there."""

    def wanted(name: str, found: dict[str, Any]) -> bool:
        return any(path.endswith((f".wants/{name}", f".requires/{name}")) for path in found)

    return [
        f"{name} is wanted by nothing" for name in names if wanted(name, before) and not wanted(name, links)
    ]


def _target(change: Change, before: dict[str, Any], links: dict[str, Any]) -> list[str]:
    target = links.get(TARGET, {}).get("target")
    if target == before.get(TARGET, {}).get("target") or TARGET in change.paths:
        return []
    return [f"the boot ends in {target or 'the target that the distribution names'}"]
