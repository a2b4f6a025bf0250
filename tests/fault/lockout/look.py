# SPDX-License-Identifier: Apache-2.0
"""Runs on a host, as root, with nothing but Python: prints all that a change may alter, as one flat JSON object.

Two of these are equal if and only if the host is as it was. Whatever changes by itself is left out here, each time
with its reason. Nothing of the guard is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

FOLDERS = ("/etc", "/run/NetworkManager/system-connections")

# Pattern of a key -> why it is left out.
IGNORED = {
    r"file /etc/systemd/system/energy-guard.*": "the guard installs itself with its first change",
    r"file /etc/systemd/system/[^/]+\.wants/energy-guard.*": "the same",
    r"file /run/NetworkManager/system-connections/lo(-[0-9a-f-]+)?\.nmconnection": "NetworkManager makes it anew",
    r"unit(-file)? energy-guard.*": "the guard's own units are not what it guards",
    r"unit systemd-(hostnamed|localed|timedated)\.service": "ends by itself when nobody asks for it",
    r"unit NetworkManager-dispatcher\.service": "ends by itself after each event",
    r"unit user(-runtime-dir)?@\d+\.service": "lives as long as a login",
    r"unit (run-[ru][\w-]+|rc-local)\.\w+": "transient units of logins and of systemd-run",
    r"unit systemd-tmpfiles-clean\.service": "runs when its time has come",
    r"unit-file run-.*|unit-file session-.*": "transient",
    r"sysctl net\.ipv4\.tcp_available_.*|sysctl net\.mptcp\.available.*": "modules that the machine has loaded",
    r"sysctl net\.netfilter\..*": "conntrack counts, and the machine's own settings",
    r"sysctl net\.core\..*": "mostly the machine's, not the host's",
    r"sysctl net\.ipv4\.tcp_(allowed|available)_congestion_control": "the machine's",
    r"sysctl net\.\w+\.(conf|neigh)\.(all|default|lo|eth\d)\.(stable_secret)": "cannot be read",
    r"sysctl net\.ipv4\.(udp_mem|tcp_mem)": "the machine's",
}

seen: dict[str, str] = {}


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=30).stdout


def note(key: str, value: object) -> None:
    if any(re.fullmatch(pattern, key) for pattern in IGNORED):
        return
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    number = 2
    name = key
    while name in seen:
        name = f"{key} #{number}"
        number += 1
    seen[name] = text


def without(entry: dict[str, object], *keys: str) -> dict[str, object]:
    return {key: value for key, value in entry.items() if key not in keys}


def file(path: Path) -> None:
    status = path.lstat()
    mode = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if path.is_symlink():
        content = f"-> {path.readlink()}"
    elif stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    else:
        content = ""
    extra = [
        name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("trusted.overlay")
    ]
    note(f"file {path}", " ".join([mode, content, *sorted(extra)]).rstrip())


def files() -> None:
    for top in FOLDERS:
        for folder, folders, names in os.walk(top):
            here = Path(folder)
            file(here)
            for name in [*names, *(name for name in folders if (here / name).is_symlink())]:
                file(here / name)


def plain(value: object) -> object:
    """An nftables expression without what counts: packets, bytes, handles, the time that is left to an element."""
    if isinstance(value, dict):
        return {
            key: sorted(map(plain, item), key=json.dumps)
            if key == "elem" and isinstance(item, list)
            else plain(item)
            for key, item in value.items()
            if key not in ("handle", "packets", "bytes", "expires", "used")
        }
    return [plain(item) for item in value] if isinstance(value, list) else value


def firewall() -> None:
    numbers: dict[str, int] = {}
    for item in json.loads(run("nft", "--json", "list", "ruleset") or '{"nftables": []}')["nftables"]:
        for kind, entry in item.items():
            if kind == "metainfo":
                continue
            place = " ".join(str(entry[key]) for key in ("family", "table", "chain", "name") if key in entry)
            # A rule has no name: its place in its chain is what counts.
            if kind == "rule":
                numbers[place] = numbers.get(place, 0) + 1
                place = f"{place} {numbers[place]}"
            note(f"nft {kind} {place}", plain(entry))


def network() -> None:
    for link in json.loads(run("ip", "-json", "address", "show") or "[]"):
        # Interface numbers are the kernel's; the other end's number changes with each boot.
        note(f"link {link['ifname']}", without(link, "ifindex", "link_index", "link_netnsid", "addr_info"))
        for address in link["addr_info"]:
            key = f"address {link['ifname']} {address['local']}/{address['prefixlen']}"
            note(key, without(address, "local", "prefixlen", "valid_life_time", "preferred_life_time"))
    for family in ("-4", "-6"):
        routes = json.loads(run("ip", "-json", family, "route", "show", "table", "all") or "[]")
        for text in sorted(
            json.dumps(without(route, "expires", "cache"), sort_keys=True) for route in routes
        ):
            note(f"route {text}", "")
        for rule in json.loads(run("ip", "-json", family, "rule", "show") or "[]"):
            note(f"rule {family} {json.dumps(rule, sort_keys=True)}", "")
    for line in run("ss", "-H", "--listening", "--tcp", "--udp", "--numeric", "--processes").splitlines():
        words = line.split()
        program = re.search(r'\(\("([^"]+)"', line)
        note(f"listener {words[0]} {words[4]}", program[1] if program else "")


def network_manager() -> None:
    if run("nmcli", "--terse", "--fields", "RUNNING", "general").strip() != "running":
        note("NetworkManager", "not running")
        return
    for line in run(
        "nmcli", "-t", "-e", "no", "-f", "NAME,UUID,DEVICE,STATE", "connection", "show", "--active"
    ).splitlines():
        if not line.startswith("lo:"):
            note(f"active connection {line}", "")
    for line in run("nmcli", "-t", "-e", "no", "-f", "UUID,NAME,FILENAME", "connection", "show").splitlines():
        uuid, name, path = line.split(":", 2)
        if name == "lo":
            continue
        note(f"connection {name}", f"{uuid} {path}")
        for setting in run("nmcli", "-t", "-e", "no", "connection", "show", uuid).splitlines():
            key, _, value = setting.partition(":")
            # In capitals: what the device has at the moment, which the kernel is asked for.
            if not key[:1].isupper() and key != "connection.timestamp":
                note(f"connection {name} {key}", value)
    for device in ("eth0", "eth1"):
        fields = "GENERAL.STATE,GENERAL.CONNECTION,GENERAL.NM-MANAGED,GENERAL.AUTOCONNECT"
        for line in run("nmcli", "-t", "-e", "no", "-f", fields, "device", "show", device).splitlines():
            key, _, value = line.partition(":")
            note(f"device {device} {key}", value)


def units() -> None:
    for line in run("systemctl", "list-unit-files", "--no-legend", "--plain").splitlines():
        note(f"unit-file {line.split()[0]}", line.split()[1])
    kinds = "service,socket,path,timer,target"
    for line in run(
        "systemctl", "list-units", "--all", "--plain", "--no-legend", "--type", kinds
    ).splitlines():
        name, _, active, sub = line.split()[:4]
        # systemd forgets inactive units when it likes, so not being listed is the same.
        if active != "inactive":
            note(f"unit {name}", f"{active} {sub}")


def sysctls() -> None:
    top = Path("/proc/sys/net")
    for folder, _, names in os.walk(top):
        for name in names:
            path = Path(folder) / name
            try:
                value = " ".join(path.read_text().split())
            except OSError:
                continue  # write-only switches, such as route/flush
            note("sysctl net." + str(path.relative_to(top)).replace("/", "."), value)


def main() -> None:
    for part in (files, firewall, network, network_manager, units, sysctls):
        part()
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
