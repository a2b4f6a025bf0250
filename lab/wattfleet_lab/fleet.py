# SPDX-License-Identifier: Apache-2.0
"""The fleet's inventory as the lab reads it, and the copy of it that fits the lab that is up."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import yaml

from wattfleet_lab import firmware, paths
from wattfleet_lab.addresses import ENERGY_NETWORK, Plan
from wattfleet_lab.errors import LabError
from wattfleet_lab.host import Host
from wattfleet_lab.state import State

_PAIR = re.compile(r"^redundancy_pair:[ \t]*['\"]?([a-z0-9-]+).*\n", re.MULTILINE)
DEFAULT_FLEET = paths.REPOSITORY / "inventory" / "lab" / "fleet.sites.yml"


@dataclass(frozen=True)
class Site:
    """A site file and its contents; addresses are those of lab 0."""

    name: str
    file: Path
    content: dict[str, Any]

    @property
    def address(self) -> str:
        return str(self.content["gateway"]["address"])

    @property
    def model(self) -> str:
        return str(self.content["gateway"].get("model", firmware.MODEL))

    @property
    def energy_addresses(self) -> list[str]:
        """Addresses of the devices in the energy network: one for each different host of a bus."""
        hosts = [IPv4Address(bus["host"]) for bus in self.content.get("buses", []) if "host" in bus]
        for host in hosts:
            if host not in ENERGY_NETWORK:
                raise LabError(
                    f"{self.file}: bus address {host} is not in the lab's energy network {ENERGY_NETWORK}"
                )
        return [str(host) for host in dict.fromkeys(hosts)]


class Fleet:
    """A fleet file and the site files beside it."""

    def __init__(self, file: Path = DEFAULT_FLEET) -> None:
        self.file = file
        self.content = _load(file)
        self.folder = file.parent / str(self.content.get("sites", "sites"))
        self.files = {path.stem: path for path in sorted(self.folder.glob("*.yml"))}

    def site(self, name: str) -> Site:
        if name not in self.files:
            raise LabError(f"no site {name!r} in {self.folder}: there are {len(self.files)}, {self._range()}")
        content = _load(self.files[name])
        if "address" not in (content.get("gateway") or {}):
            raise LabError(f"{self.files[name]}: gateway.address is missing")
        return Site(name, self.files[name], content)

    def first(self, count: int) -> list[Site]:
        if not 0 <= count <= len(self.files):
            raise LabError(f"--sites {count}: there are {len(self.files)} sites in {self.folder}")
        return [self.site(name) for name in list(self.files)[:count]]

    def _range(self) -> str:
        names = list(self.files)
        return f"{names[0]} to {names[-1]}" if names else "none"


def _load(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise LabError(f"{file}: no such file") from None
    except yaml.YAMLError as error:
        raise LabError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise LabError(f"{file}: expected a mapping of keys, found {type(content).__name__}")
    return content


def write_inventory(state: State, plan: Plan, fleet_file: Path, gateways: list[Host]) -> None:
    """``<state>/inventory``: the fleet with the gateways that are up, at this lab's addresses.

    A redundancy pair of which only one site is up is none here: the other name would not be known.
    The fleet's own group_vars come along; ``group_vars/all/lab.yml`` says how to reach the hosts.
    """
    new = state.path / "inventory.new"
    if new.exists():  # left by an `up` that was interrupted
        shutil.rmtree(new)
    names = {host.name for host in gateways}
    copies = {fleet_file: "fleet.sites.yml"}
    for host in gateways:
        if host.site_file:
            copies[Path(host.site_file)] = f"sites/{host.name}.yml"
    shared = fleet_file.parent / "group_vars"
    for file in shared.glob("**/*.yml"):
        # A folder all/ hides a file all.yml beside it, so the file moves into the folder.
        name = str(file.relative_to(shared))
        copies[file] = f"group_vars/{'all/fleet.yml' if name == 'all.yml' else name}"
    for source, name in copies.items():
        target = new / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = plan.shift(source.read_text())
        if name.startswith("sites/"):
            text = _PAIR.sub(lambda match: match[0] if match[1] in names else "", text)
        target.write_text(text)
    everybody = new / "group_vars" / "all"
    everybody.mkdir(parents=True, exist_ok=True)
    (everybody / "lab.yml").write_text(
        f"# Written by `wattfleet lab up`.\nansible_ssh_common_args: -F {state.ssh_config}\n"
    )
    (new / "sites").mkdir(exist_ok=True)
    if state.inventory.exists():
        shutil.rmtree(state.inventory)
    new.rename(state.inventory)
