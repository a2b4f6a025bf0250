# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What differs between the host and the connections that were asked for, and the steps that put it right."""

from __future__ import annotations

import os
import stat
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from . import hosts as host_names
from . import keyfile
from .connection import Connection, method_of, parents_first, ports_of
from .keyfile import Profile
from .live import Live, Snapshot, absence, as_text, device_of, read, unmanaged, wanted

DIRECTORY = Path("/etc/NetworkManager/system-connections")
VOLATILE = Path("/run/NetworkManager/system-connections")
HOSTS = Path("/etc/hosts")
ACCEPTED = (0o600, 0, 0)  # mode, owner and group without which NetworkManager ignores a profile


class RefusedError(Exception):
    """What was asked for must not be done. One line."""


@dataclass
class Plan:
    """The difference, in the terms of a guarded change."""

    files: list[dict[str, t.Any]] = field(default_factory=list)
    apply: list[t.Any] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)
    connections: list[dict[str, t.Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    names: str = "unchanged"

    @property
    def changed(self) -> bool:
        return bool(self.files or self.apply)


def make(
    connections: list[Connection],
    hosts: t.Sequence[t.Mapping[str, str]] | None,
    secrets: t.Mapping[str, str | None],
    keep: t.Collection[str],
    snapshot: Snapshot,
    *,
    nmcli: str | None,
    able: t.Callable[[str], bool],
    directory: Path = DIRECTORY,
    hosts_file: Path = HOSTS,
) -> Plan:
    """The plan. RefusedError when the host would be cut off, or NetworkManager has no say in an interface."""
    connections = parents_first(connections)
    absent = {item["name"]: absence(item, snapshot, able) for item in connections}
    _refuse(connections, absent, keep, snapshot)
    plan = Plan()
    loads: list[str] = []
    ups: list[dict[str, t.Any]] = []
    ours: set[str] = set()
    for connection in connections:
        states = []
        for profile in keyfile.profiles(connection, secrets):
            ours.add(profile.file)
            states.append(_profile(profile, directory, snapshot, nmcli is not None, plan, loads))
        _device(connection, states, absent[connection["name"]], snapshot, nmcli is not None, plan, ups)
    gone = _no_longer_wanted(ours, directory, plan)
    if nmcli is not None:
        # All profiles first: whatever happens while devices are brought up, a reboot ends in the wanted state.
        if loads or gone:
            plan.apply.append([nmcli, "connection", "load", *loads, *gone])
        plan.apply += ({"bring_up": up} for up in ups)
    if hosts is not None:
        _names(hosts, hosts_file, plan)
    return plan


def _refuse(
    connections: list[Connection],
    absent: t.Mapping[str, str | None],
    keep: t.Collection[str],
    snapshot: Snapshot,
) -> None:
    wanted_hosts = {
        address.split("/")[0]
        for item in connections
        if absent[item["name"]] is None or item["interface"] in snapshot.links
        for address in item["addresses"]
    }
    for connection in connections:
        for interface in (connection["interface"], *ports_of(connection)):
            if unmanaged(snapshot, interface):
                raise RefusedError(
                    f"NetworkManager does not manage {interface} (unmanaged). Take it out of "
                    "/etc/network/interfaces and of unmanaged-devices in /etc/NetworkManager, restart "
                    "NetworkManager, and run again."
                )
            if method_of(connection, 4) == "auto" and interface == connection["interface"]:
                continue  # what DHCP will give, only DHCP knows
            for entry in snapshot.links.get(interface, {}).get("addr_info", []):
                if entry["local"] in keep and entry["local"] not in wanted_hosts:
                    raise RefusedError(_cutting_off(connection, interface, entry["local"], absent))


def _cutting_off(
    connection: Connection, interface: str, host: str, absent: t.Mapping[str, str | None]
) -> str:
    name = connection["name"]
    if interface != connection["interface"]:
        instead = f"a port of {connection['interface']}"
    else:
        instead = ", ".join(connection["addresses"]) or "no address"
    why = f" ({absent[name]})" if absent[name] else ""
    return (
        f"connection {name} would replace {host} on {interface}, the address that this host is reached by, "
        f"with {instead}{why}. Nothing is changed. Correct the site file, or give the host its new address on "
        "site first."
    )


def _profile(
    profile: Profile, directory: Path, snapshot: Snapshot, manager: bool, plan: Plan, loads: list[str]
) -> str:
    """What is to be done about a keyfile: unchanged, written, or loaded."""
    path = directory / profile.file
    before, accepted = read_profile(path)
    held = snapshot.files.get(profile.uuid)
    if before == profile.text and accepted and (held == str(path) or not manager):
        return "unchanged"
    if held and held.startswith("/run/"):
        # A profile changed with `nmcli --temporary` lies there and would hide the file on disk.
        plan.files.append({"path": held, "state": "absent"})
    loads.append(str(path))
    if before == profile.text and accepted:
        plan.diff.append(
            {
                "before": f"{profile.name} held from {held or 'nowhere'}\n",
                "after": f"{profile.name} held from {path}\n",
            }
        )
        return "loaded"
    file = {"path": str(path), "content": profile.text, "mode": "0600", "owner": "root", "group": "root"}
    plan.files.append({**file, "sensitive": True} if keyfile.has_secrets(profile.text) else file)
    plan.diff.append(_file_diff(path, before, accepted, profile.text))
    return "written"


def read_profile(path: Path) -> tuple[str, bool]:
    """Text of a profile ('' if there is none), and whether NetworkManager accepts its owner and mode."""
    try:
        status = path.stat()
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "", False
    return text, (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == ACCEPTED


def _file_diff(path: Path, before: str, accepted: bool, after: str) -> dict[str, str]:
    before, after = keyfile.without_secrets(before), keyfile.without_secrets(after)
    if before and not accepted:
        before = f"mode and owner: not 0600 root:root\n{before}"
        after = f"mode and owner: 0600 root:root\n{after}"
    return {"before_header": str(path), "after_header": str(path), "before": before, "after": after}


def _device(
    connection: Connection,
    profiles: list[str],
    absent: str | None,
    snapshot: Snapshot,
    manager: bool,
    plan: Plan,
    ups: list[dict[str, t.Any]],
) -> None:
    name, interface = connection["name"], connection["interface"]
    profile = next((state for state in profiles if state != "unchanged"), "unchanged")
    done: dict[str, t.Any] = {"name": name, "profile": profile, "device": "unchanged"}
    plan.connections.append(done)
    if absent is not None:
        done["device"] = "absent"
        plan.warnings.append(f"connection {name}: kept as a profile only, {absent}")
        return
    want = wanted(connection)
    live: Live = read(connection, snapshot) if manager else {"state": "without NetworkManager"}
    uuid = keyfile.uuid_of(name)
    if live != want:
        plan.diff.append({"before": as_text(interface, live), "after": as_text(interface, want)})
    elif profile == "unchanged" or device_of(connection, snapshot).get("GENERAL.CON-UUID") != uuid:
        # A device that is right is left alone, even when another profile brought it there: ours has the higher
        # priority and takes over at the next boot.
        return
    done["device"] = "brought up"
    # NetworkManager knows a modem by its control port
    ups.append({"interface": device_of(connection, snapshot).get("GENERAL.DEVICE", interface), "uuid": uuid})


def _no_longer_wanted(ours: set[str], directory: Path, plan: Plan) -> list[str]:
    """Profiles of ours that no connection asks for any more. Those of others stay."""
    gone = []
    for entry in sorted(directory.glob("*.nmconnection")) if directory.is_dir() else []:
        if entry.name in ours:
            continue
        text, _accepted = read_profile(entry)
        if text.startswith(keyfile.HEADER):
            plan.files.append({"path": str(entry), "state": "absent"})
            plan.diff.append(_file_diff(entry, text, True, ""))
            plan.connections.append({"name": entry.stem, "profile": "removed", "device": "unchanged"})
            gone.append(str(entry))
    return gone


def _names(hosts: t.Sequence[t.Mapping[str, str]], path: Path, plan: Plan) -> None:
    try:
        before = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        before = ""
    after = host_names.with_names(before, hosts)
    if after == before:
        return
    plan.names = "written"
    plan.files.append({"path": str(path), "content": after, "mode": "0644", "owner": "root", "group": "root"})
    plan.diff.append(
        {
            "before_header": str(path),
            "after_header": str(path),
            "before": _readable(before),
            "after": _readable(after),
        }
    )


def _readable(text: str) -> str:
    """For people: a byte that is no UTF-8 as a question mark in a box."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def interfaces(root: str = "/sys/class/net") -> list[str]:
    """The interfaces that the host has. `bonding_masters` is a file in there, not a link."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
