# SPDX-License-Identifier: Apache-2.0
"""Changes that have to be kept. A guard that undoes everything would pass a campaign of bad ones alone."""

from __future__ import annotations

import hashlib
import json
import random

from tests.fault.lockout.changes import (
    NETWORK,
    TABLE,
    Change,
    Maker,
    connection,
    firewall,
    hardening,
    probes,
)
from tests.fault.lockout.site import SSHD_PATH, SYSCTL_PATH, TABLE_PATH, UNIT, WAN_PATH, Site


def mtu(rng: random.Random, site: Site) -> Change:
    size = rng.choice([value for value in range(1280, 1500, 10) if value != site.mtu])
    content = site.wan(mtu=size)
    wanted = {
        **_file(WAN_PATH, content, "0600"),
        "connection wan 802-3-ethernet.mtu": str(size),
        "link eth0": {"mtu": size},
        "sysctl net.ipv6.conf.eth0.mtu": str(size),
    }
    return connection(
        "good-mtu",
        str(size),
        site,
        content,
        wanted=wanted,
        keep=lambda kept: setattr(kept, "mtu", size),
    )


def route(rng: random.Random, site: Site) -> Change:
    new = f"10.{rng.randint(0, 255)}.{rng.randint(0, 255)}.0/24,{site.hub}"
    routes = [*site.routes[-2:], new]
    before, site.routes = site.routes, routes
    content = site.wan()
    site.routes = before
    return connection(
        "good-route",
        new,
        site,
        content,
        wanted=_file(WAN_PATH, content, "0600"),
        may=(r'route .*"dst": "10\..*', r"connection wan ipv4\.routes"),
        keep=lambda kept: setattr(kept, "routes", routes),
    )


def table(rng: random.Random, site: Site) -> Change:
    ports = [*site.ports[-3:], rng.randint(1024, 8000)]
    before, site.ports = site.ports, ports
    content = site.table()
    site.ports = before
    return firewall(
        "good-firewall",
        str(ports),
        site,
        content,
        wanted={
            **_file(TABLE_PATH, content, "0644"),
            **{f"nft rule inet wattfleet input {place}": _drop(port) for place, port in enumerate(ports, 1)},
        },
        # The rules behind move on.
        may=(r"nft rule inet wattfleet input \d+",),
        keep=lambda kept: setattr(kept, "ports", ports),
    )


def sshd(rng: random.Random, site: Site) -> Change:
    tries = str(
        rng.choice([number for number in range(3, 30) if str(number) != site.sshd.get("MaxAuthTries")])
    )
    content = site.dropin(MaxAuthTries=tries)
    options = {
        "subject": "sshd",
        "files": [{"path": SSHD_PATH, "content": content, "mode": "0644"}],
        "check": [["sshd", "-t", "-f", f"{{staged:{SSHD_PATH}}}"]],
        "apply": [["systemctl", "reload", "ssh.service"]],
        "keep": {"units": ["ssh.service"]},
    }
    return Change(
        "good-sshd",
        f"MaxAuthTries {tries}",
        options,
        wanted=_file(SSHD_PATH, content, "0644"),
        keep=lambda kept: kept.sshd.update(MaxAuthTries=tries),
    )


def sysctl(rng: random.Random, site: Site) -> Change:
    value = str(rng.randint(3, 14))
    content = f"net.ipv4.tcp_retries1 = {value}\n"
    options = {
        "subject": "hardening",
        "files": [{"path": SYSCTL_PATH, "content": content, "mode": "0644", "late": True}],
        "sysctls": {"net.ipv4.tcp_retries1": value},
    }
    wanted = {**_file(SYSCTL_PATH, content, "0644"), "sysctl net.ipv4.tcp_retries1": value}
    return Change("good-sysctl", value, options, wanted=wanted)


def unit(rng: random.Random, site: Site) -> Change:
    """Something is switched off and a file says why; the next such change switches it on again."""
    mode = rng.choice(["0600", "0640", "0644"])
    content = f"{rng.getrandbits(64)}\n"
    path = "/etc/energy-note"
    on = rng.random() < 0.5
    options = {
        "subject": "note",
        "files": [{"path": path, "content": content, "mode": mode}],
        "units": [{"name": UNIT, "active": on, "enabled": on}],
    }
    link = f"file /etc/systemd/system/multi-user.target.wants/{UNIT}"
    wanted = {
        **_file(path, content, mode),
        f"unit {UNIT}": "active running" if on else None,
        f"unit-file {UNIT}": "enabled" if on else "disabled",
    }
    return Change("good-unit", f"{UNIT} {'on' if on else 'off'}, {mode}", options, wanted=wanted, may=(link,))


def by_network_module(rng: random.Random, site: Site) -> Change:
    """The energy network as the network role has it: a profile of ours, changed, or not asked for any more."""
    path = "/etc/NetworkManager/system-connections/EnergyInternal.nmconnection"
    host = ".".join(str(rng.randint(0, 250)) for _ in range(2))
    address = f"10.{host}.1"
    addresses = ["192.168.10.10/24", f"{address}/24"]
    one: dict[str, object] = {
        "name": "EnergyInternal",
        "interface": "eth1",
        "addresses": addresses,
        "metric": 110,
    }
    wanted: dict[str, object] = {}
    if site.energy:
        wanted[f"address eth1 {site.energy}/24"] = None
    if site.energy and rng.random() < 0.4:
        # NetworkManager goes back to the profile that the site had before.
        connections, address = [], ""
        wanted[f"file {path}"] = None
    else:
        connections = [one]
        live = {"broadcast": f"10.{host}.255", "family": "inet", "label": "eth1", "noprefixroute": True}
        wanted[f"address eth1 {address}/24"] = json.dumps({**live, "scope": "global"}, sort_keys=True)
        wanted["device eth1 GENERAL.CONNECTION"] = "EnergyInternal"
        if rng.random() < 0.5:
            # Which this kernel cannot make, and a modem that is not there. NetworkManager holds their profiles.
            number = rng.randint(2, 4000)
            vlan: dict[str, object] = {
                "name": "Vlan",
                "interface": f"eth1.{number}",
                "vlan": {"id": number, "parent": "eth1"},
            }
            modem: dict[str, object] = {
                "name": "Mobile",
                "interface": "wwan0",
                "ipv4": "auto",
                "modem": {"apn": "iot.example"},
            }
            connections += [vlan | {"addresses": ["10.251.0.1/24"]}, modem | {"metric": 700}]
            wanted |= {"connection Vlan vlan.id": str(number), "connection Mobile gsm.apn": "iot.example"}
    options = {"connections": connections, "guard": {"probes": probes(site)}}
    return Change(
        "good-by-network-module",
        f"{address or 'nothing'} on eth1",
        options,
        wanted=wanted,
        may=(
            f"file {path.replace('.', '[.]')}",
            r"(active )?connection (EnergyInternal|energy)\b.*",
            r"(file /etc/NetworkManager/system-connections/|connection )(Vlan|Mobile)\b.*",
            r"device eth1 .*",
            r'route .*"dev": "eth1".*',
        ),
        module=NETWORK,
        keep=lambda kept: setattr(kept, "energy", address),
    )


def by_firewall_module(rng: random.Random, site: Site) -> Change:
    """The same as `table`, through the module that the firewall role uses."""
    one = table(rng, site)
    content = str(one.options["files"][0]["content"])
    one.options = {
        # The module replaces the table by itself.
        "content": content[content.index("table inet wattfleet {") :],
        "guard": {"probes": probes(site)},
    }
    one.wanted |= _file(TABLE_PATH, content, "0600")
    one.kind, one.module = "good-by-firewall-module", TABLE
    return one


def by_hardening_role(rng: random.Random, site: Site) -> Change:
    """The whole role; what moves from one time to the next is sshd's configuration and what it says before a login."""
    banner = f"Private, {rng.getrandbits(64):x}"
    users = ["admin", *rng.sample(["ann", "ben", "cleo", "dan"], rng.randint(1, 3))]
    variables = {
        "hardening_banner": banner,
        "hardening_ssh_users": users,
        "hardening_ssh_tcp_forwarding": rng.random() < 0.5,
    }
    return hardening(
        "good-by-hardening-role",
        ", ".join(users),
        site,
        variables=variables,
        wanted={
            **_file("/etc/issue", f"{banner}\n", "0644"),
            **_file("/etc/issue.net", f"{banner}\n", "0644"),
            "unit fail2ban.service": "active running",
            "unit-file fail2ban.service": "enabled",
        },
        may=(
            f"file {SSHD_PATH.replace('.', '[.]')}",
            r"file /etc/(fail2ban|sysctl\.d|security|profile\.d|modprobe\.d|sudoers\.d|lynis|cron\.\w+)\b.*",
            r"file /etc/systemd/(journald|coredump)\.conf\.d\b.*",
            r"file /etc/systemd/system/(fail2ban\.service\.d|multi-user\.target\.wants/fail2ban)\b.*",
            r"file /etc/(login\.defs|rc\d\.d/[SK]\d+fail2ban)",
            r"file /etc/apt/apt\.conf\.d/60energy-(auto|unattended)-upgrades",
            r"sysctl net\.ipv[46]\..*",
        ),
    )


def _drop(port: int) -> str:
    """The rule that a table has for a closed port, in the form of look.py."""
    place = {"family": "inet", "table": "wattfleet", "chain": "input"}
    match = {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": port}
    return json.dumps({**place, "expr": [{"match": match}, {"counter": {}}, {"drop": None}]}, sort_keys=True)


def _file(path: str, content: str, mode: str) -> dict[str, str]:
    """A regular file of root's, in the form of look.py."""
    bits = "".join(
        letter if int(mode, 8) >> (8 - place) & 1 else "-" for place, letter in enumerate("rwxrwxrwx")
    )
    return {f"file {path}": f"-{bits} 0:0 {hashlib.sha256(content.encode()).hexdigest()}"}


KINDS: dict[str, Maker] = {
    "good-mtu": mtu,
    "good-route": route,
    "good-firewall": table,
    "good-sshd": sshd,
    "good-sysctl": sysctl,
    "good-unit": unit,
    "good-by-network-module": by_network_module,
    "good-by-firewall-module": by_firewall_module,
    "good-by-hardening-role": by_hardening_role,
}
