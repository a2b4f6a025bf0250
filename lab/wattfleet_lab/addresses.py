# SPDX-License-Identifier: Apache-2.0
"""The address plan.

Lab i owns the i-th /19 of 198.18.0.0/15 (RFC 2544), and every name that starts with ``wf<i>-``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from wattfleet_lab.errors import LabError

RANGE = IPv4Network("198.18.0.0/15")
LABS = 16
ENERGY_NETWORK = IPv4Network("192.168.10.0/24")
# Site files live below .16.0; hosts that are added by name only get their addresses from here on.
FIRST_ADDED = 16 * 256 + 11
HOST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,37}[a-z0-9])?")
_ADDRESS = re.compile(r"(?<![\d.])198\.18\.(\d{1,2})\.(\d{1,3})(?![\d.])")


@dataclass(frozen=True)
class Plan:
    """Addresses and kernel names of the lab with this index (0 to 15)."""

    index: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < LABS:
            raise LabError(f"lab index {self.index} is not between 0 and {LABS - 1}")

    @property
    def network(self) -> IPv4Network:
        return list(RANGE.subnets(new_prefix=19))[self.index]

    @property
    def controller(self) -> IPv4Address:
        """The machine's own address on the lab's WAN; the hosts' default gateway, which forwards nothing."""
        return self.network[1]

    @property
    def hub(self) -> IPv4Address:
        return self.network[2]

    @property
    def prefix(self) -> str:
        return f"wf{self.index}-"

    @property
    def bridge(self) -> str:
        return f"wf{self.index}-wan"

    @property
    def table(self) -> str:
        """The nftables table on the machine that keeps the lab to itself."""
        return f"wf{self.index}"

    @property
    def cgroup(self) -> str:
        return f"wattfleet-{self.index}"

    def machine(self, host: str) -> str:
        """Name of the container and of the energy namespace of a host, unique on the machine."""
        return self.prefix + host

    def veth(self, slot: int, network: str) -> str:
        """Machine side of a host's link to network ``w`` (WAN) or ``e`` (energy); at most 15 characters."""
        return f"{self.prefix}{slot}{network}"

    def shift(self, text: str) -> str:
        """Moves every address of lab 0 in a text to this lab; all else stays as it is, comments included."""

        def moved(match: re.Match[str]) -> str:
            third, fourth = int(match[1]), int(match[2])
            if third >= 32 or fourth > 255:
                return match[0]
            return str(self.network[third * 256 + fourth])

        return _ADDRESS.sub(moved, text)


def check_host_name(name: str) -> str:
    """The name itself, or LabError when it cannot be a host's name."""
    if not HOST_NAME.fullmatch(name):
        raise LabError(
            f"host name {name!r}: use 1 to 39 of a-z, 0-9 and hyphen, with no hyphen at either end"
        )
    return name
