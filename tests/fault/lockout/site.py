# SPDX-License-Identifier: Apache-2.0
"""A gateway as the campaign has it before a change: two interfaces, a firewall, a hub that it knows by name.

Half of the sites have the controller on their own network (`flat`), half behind their gateway (`routed`), since some
mistakes cut only one of the two.
"""

from __future__ import annotations

import random
import textwrap
import time
import uuid
from dataclasses import dataclass, field

from tests.fault.lockout.host import LabHost

WAN_PATH = "/etc/NetworkManager/system-connections/wan.nmconnection"
ENERGY_PATH = "/etc/NetworkManager/system-connections/energy.nmconnection"
TABLE_PATH = "/etc/nftables.d/wattfleet.nft"
HOSTS_PATH = "/etc/hosts"
SSHD_PATH = "/etc/ssh/sshd_config.d/10-energy.conf"
SYSCTL_PATH = "/etc/sysctl.d/90-energy.conf"
UNIT = "campaign-idle.service"
HUB_PORT = 8883
# s
BOOTED = 60.0
WAN_UUID = str(uuid.uuid5(uuid.NAMESPACE_DNS, "wan.campaign"))
ENERGY_UUID = str(uuid.uuid5(uuid.NAMESPACE_DNS, "energy.campaign"))


@dataclass
class Site:
    """What of a site's wanted state a good change may move; everything else follows from it."""

    name: str
    address: str
    controller: str
    hub: str
    routed: bool
    mtu: int = 0
    routes: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    sshd: dict[str, str] = field(default_factory=dict)
    # A second address of the energy network, once the network module manages that.
    energy: str = ""

    def wan(self, **other: object) -> str:
        """The keyfile of the WAN. `other` replaces address, gateway, mtu, and adds `extra` lines to [ipv4]."""
        length = 24 if self.routed else 19
        address = other.get("address", f"{self.address}/{length}")
        gateway = other.get("gateway", self.controller if self.routed else "")
        mtu = other.get("mtu", self.mtu)
        # On a routed site the hub is not on the link by its address, but answers there: the lab forwards nothing.
        routes = [f"{self.hub}/32"] if self.routed else []
        extra = other.get("extra", [])
        assert isinstance(extra, list)
        lines = ["[connection]", "id=wan", f"uuid={WAN_UUID}", "type=ethernet", "interface-name=eth0"]
        lines += ["autoconnect-retries=0", "", "[ethernet]", *([f"mtu={mtu}"] if mtu else []), "", "[ipv4]"]
        lines += ["method=manual", f"address1={address}", *([f"gateway={gateway}"] if gateway else [])]
        lines += [f"route{number}={route}" for number, route in enumerate([*routes, *self.routes], 1)]
        # Said, since NetworkManager's own choice depends on the order in which it finds the interfaces.
        lines += ["route-metric=100", *map(str, extra), "", "[ipv6]", "method=disabled", ""]
        return "\n".join(lines)

    def table(self, *, management: str = "", first: str = "", output: str = "") -> str:
        """The firewall. `management` replaces the set's only element; the others are rules at a chain's start."""
        ports = "\n".join(f"tcp dport {port} counter drop" for port in self.ports)
        rules = textwrap.indent("\n".join(filter(None, [first, ports])), " " * 8)
        return f"""table inet wattfleet
delete table inet wattfleet
table inet wattfleet {{
    set management {{
        type ipv4_addr
        elements = {{ {management or self.controller} }}
    }}
    chain input {{
        type filter hook input priority 0; policy drop;
{rules}
        iif lo accept
        ct state established,related counter accept
        ip saddr @management tcp dport 22 counter accept
        icmp type echo-request limit rate 10/second counter accept
        counter
    }}
    chain output {{
        type filter hook output priority 0; policy accept;
{textwrap.indent(output, " " * 8)}
        ip daddr {self.hub} tcp dport {HUB_PORT} counter accept
    }}
}}
"""

    def hosts(self, hub: str = "") -> str:
        return f"127.0.0.1\tlocalhost\n127.0.1.1\t{self.name}\n{hub or self.hub}\thub.campaign\n"

    def dropin(self, **other: str) -> str:
        """What sshd is told besides the distribution's configuration."""
        return "".join(
            f"{key} {value}\n" for key, value in {"LoginGraceTime": "30", **self.sshd, **other}.items()
        )


_SETUP = """set -eu
umask 077
cat > {wan} <<'EOF'
{site_wan}EOF
cat > {energy} <<'EOF'
[connection]
id=energy
uuid={energy_uuid}
type=ethernet
interface-name=eth1

[ipv4]
method=manual
address1=192.168.10.10/24
never-default=true
route-metric=110

[ipv6]
method=disabled
EOF
umask 022
mkdir -p /etc/nftables.d
cat > {table} <<'EOF'
{site_table}EOF
echo 'include "/etc/nftables.d/*.nft"' > /etc/nftables.conf
cat > {hosts} <<'EOF'
{site_hosts}EOF
cat > {sshd} <<'EOF'
{site_sshd}EOF
# What the hardening role needs and would install, so that a round is about what can lock out.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --no-install-recommends fail2ban python3-systemd libpam-pwquality >/dev/null 2>&1
rm /usr/sbin/policy-rc.d
systemctl --quiet disable fail2ban.service
# The hardening role changes this default, which shows on an interface only once it comes up again: at a reboot of some
# later round. So it is that before.
echo 'net.ipv4.conf.default.rp_filter = 1' > /etc/sysctl.d/10-campaign.conf
# Something that runs, is enabled, and that nobody misses.
cat > /etc/systemd/system/{unit} <<'EOF'
[Service]
ExecStart=/usr/bin/sleep infinity
[Install]
WantedBy=multi-user.target
EOF
nmcli connection reload
nmcli --wait 20 connection up energy >/dev/null
nmcli --wait 20 connection up wan >/dev/null
systemctl daemon-reload
systemctl --quiet enable --now nftables.service {unit}
systemctl reload ssh.service
"""

_HUB = f"""set -eu
systemctl is-active --quiet hub-listener.service ||
    systemd-run --quiet --unit=hub-listener.service python3 -m http.server {HUB_PORT}
"""


def prepare(host: LabHost, controller: str, hub: str, routed: bool) -> Site:
    """Bring a new host into the state in which the campaign's sites begin."""
    site = Site(host.name, host.address, controller, hub, routed)
    paths = {
        "wan": WAN_PATH,
        "energy": ENERGY_PATH,
        "table": TABLE_PATH,
        "hosts": HOSTS_PATH,
        "sshd": SSHD_PATH,
    }
    content = {
        "site_wan": site.wan(),
        "site_table": site.table(),
        "site_hosts": site.hosts(),
        "site_sshd": site.dropin(),
    }
    host.exec("sh", "-s", stdin=_SETUP.format(**paths, **content, unit=UNIT, energy_uuid=ENERGY_UUID))
    # What a boot makes of all that is where the rounds begin.
    boots = int(host.power["boots"])
    host.reboot()
    deadline = time.monotonic() + BOOTED
    while int(host.power["boots"]) == boots and time.monotonic() < deadline:
        time.sleep(0.2)
    return site


def prepare_hub(host: LabHost) -> None:
    """A hub that only listens: more is not asked of it by a probe."""
    host.exec("sh", "-s", stdin=_HUB)


def stranger(rng: random.Random, site: Site) -> str:
    """An address of the lab's network that nobody has."""
    first, second = site.controller.split(".")[:2]
    third = int(site.controller.split(".")[2]) + rng.randint(20, 30)
    return f"{first}.{second}.{third}.{rng.randint(2, 250)}"
