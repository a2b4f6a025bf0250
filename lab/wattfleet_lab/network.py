# SPDX-License-Identifier: Apache-2.0
"""The lab's networks: one WAN bridge a lab, one energy namespace a site, and a wall around both.

The machine forwards nothing for the lab: a table of its own drops what would pass through or reach the
machine's own services, and a blackhole route keeps packets to the lab's range here when no bridge has them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

from wattfleet_lab import kernel
from wattfleet_lab.addresses import ENERGY_NETWORK, RANGE, Plan
from wattfleet_lab.commands import ip_batch, run, succeeds
from wattfleet_lab.errors import LabError

NETNS = Path("/run/netns")
ENERGY_BRIDGE = "energy"
_BLACKHOLE = ("blackhole", str(RANGE), "metric", "4096")

# `oifname != bridge`: where br_netfilter is loaded, frames between two hosts of the lab pass this hook too.
_WALL = """
table inet {table}
delete table inet {table}
table inet {table} {{
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname "{bridge}" ct state established,related accept
    iifname "{bridge}" icmp type echo-request accept
    iifname "{bridge}" drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname "{bridge}" oifname != "{bridge}" drop
    iifname != "{bridge}" oifname "{bridge}" drop
  }}
}}
"""


def ensure_wan(plan: Plan) -> None:
    """The bridge with the machine's address, the wall and the blackhole route; repeating it is harmless."""
    if not blackhole_is_there():
        run("ip", "route", "add", *_BLACKHOLE)
    if not succeeds("ip", "link", "show", plan.bridge):
        _refuse_overlap(plan)
        run("ip", "link", "add", plan.bridge, "type", "bridge", "stp_state", "0")
    Path(f"/proc/sys/net/ipv6/conf/{plan.bridge}/disable_ipv6").write_text("1")
    ip_batch(
        [
            f"address replace {plan.controller}/{plan.network.prefixlen} dev {plan.bridge}",
            f"link set {plan.bridge} up",
        ]
    )
    run("nft", "-f", "-", stdin=_WALL.format(table=plan.table, bridge=plan.bridge))


def remove_wan(plan: Plan) -> None:
    if succeeds("ip", "link", "show", plan.bridge):
        run("ip", "link", "delete", plan.bridge)
    if succeeds("nft", "list", "table", "inet", plan.table):
        run("nft", "delete", "table", "inet", plan.table)


def remove_blackhole() -> None:
    if blackhole_is_there():
        run("ip", "route", "delete", *_BLACKHOLE)


def blackhole_is_there() -> bool:
    routes = json.loads(run("ip", "-json", "route", "show", "type", "blackhole") or "[]")
    return any(route.get("dst") == str(RANGE) for route in routes)


def _refuse_overlap(plan: Plan) -> None:
    for link in json.loads(run("ip", "-json", "address", "show")):
        for address in link.get("addr_info", []):
            if address.get("family") == "inet" and IPv4Address(address["local"]) in plan.network:
                raise LabError(
                    f"{plan.network} is in use: {link['ifname']} has {address['local']}; use another lab"
                )


def ensure_energy(plan: Plan, host: str, addresses: Sequence[IPv4Address]) -> None:
    """The site's energy namespace with a bridge that carries the addresses of its meters.

    It outlives the gateway's reboots, so the meters' sockets in it do too.
    """
    name = plan.machine(host)
    if not (NETNS / name).exists():
        run("ip", "netns", "add", name)
        ip_batch(["link set lo up", f"link add {ENERGY_BRIDGE} type bridge stp_state 0"], name)
    length = ENERGY_NETWORK.prefixlen
    ip_batch(
        [
            *(f"address replace {address}/{length} dev {ENERGY_BRIDGE}" for address in addresses),
            f"link set {ENERGY_BRIDGE} up",
        ],
        name,
    )


def remove_energy(plan: Plan, host: str) -> None:
    if (NETNS / plan.machine(host)).exists():
        run("ip", "netns", "delete", plan.machine(host))


def attach(plan: Plan, host: str, slot: int, energy: bool) -> None:
    """Plugs the two cables of a host that has just started."""
    ip_batch([f"link set {plan.veth(slot, 'w')} master {plan.bridge} up"])
    cable = plan.veth(slot, "e")
    if energy:
        name = plan.machine(host)
        # A socket with data that nobody acknowledges outlives its process, and keeps the namespace of a host that was
        # cut, and so the other end of its old cable, for minutes.
        if succeeds("ip", "-netns", name, "link", "show", cable):
            run("ip", "-netns", name, "link", "delete", cable)
        ip_batch([f"link set {cable} netns {name}"])
        ip_batch([f"link set {cable} master {ENERGY_BRIDGE} up"], name)


def links(plan: Plan) -> list[str]:
    """The lab's links in the machine's own namespace."""
    found = json.loads(run("ip", "-json", "link", "show"))
    return [link["ifname"] for link in found if link["ifname"].startswith(plan.prefix)]


def namespaces(plan: Plan) -> list[str]:
    if not NETNS.is_dir():
        return []
    return sorted(path.name for path in NETNS.iterdir() if path.name.startswith(plan.prefix))


def netns_folder_exists() -> bool:
    return NETNS.exists()


def remove_netns_folder() -> bool:
    """Takes back the mount on /run/netns that ``ip netns add`` made; False while somebody uses it."""
    if not NETNS.exists():
        return True
    if any(NETNS.iterdir()):
        return False
    if kernel.is_mounted(NETNS):
        run("umount", str(NETNS))
    NETNS.rmdir()
    return True


def remove_links(plan: Plan) -> None:
    for link in links(plan):
        # The cable of a host that is ending goes by itself, perhaps right now.
        if not succeeds("ip", "link", "delete", link) and link in links(plan):
            run("ip", "link", "delete", link)
