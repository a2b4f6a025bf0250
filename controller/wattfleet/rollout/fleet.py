# SPDX-License-Identifier: Apache-2.0
"""The fleet as rollouts need it, from `ansible-inventory`: sites, rings, limits, and an inventory of some sites."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wattfleet.errors import WattfleetError
from wattfleet.paths import PLAYBOOKS, ROOT
from wattfleet.rollout.model import Settings, Site
from wattfleet.rollout.windows import Always, Window

FORKS = 25
INSTALL_TIME = 300.0  # s


class FleetError(WattfleetError):
    """The inventory cannot be read; the lines are Ansible's."""


@dataclass(frozen=True)
class Node:
    """A machine that reaches sites for the controller."""

    name: str
    host: str
    ssh_config: str | None = None
    runner: str = "ansible-runner"


@dataclass(frozen=True)
class Fleet:
    """`facts` is the fleet file, `hub` the variables of its host, `exported` what `ansible-inventory` said."""

    inventory: Path
    rings: tuple[str, ...]
    sites: Mapping[str, Site]
    settings: Settings
    forks: int
    nodes: tuple[Node, ...]
    install_time: float
    facts: Mapping[str, Any]
    hub: Mapping[str, Any]
    exported: Mapping[str, Any]

    def with_known(self, known: Mapping[str, Mapping[str, Any]]) -> Fleet:
        """With what earlier rollouts, or the sites themselves, have told."""
        sites = {
            name: replace(
                site,
                rate=known.get(name, {}).get("rate", site.rate),
                version=known.get(name, {}).get("version", site.version),
            )
            for name, site in self.sites.items()
        }
        return replace(self, sites=sites)

    def part(self, names: Collection[str], variables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """An inventory (of the plugin ansible.builtin.yaml) with some sites only, and `variables` of their own.

        Read anew for each play, five thousand site files would take longer than the play.
        """
        wanted = set(names)
        hosts = self.exported["_meta"]["hostvars"]
        top = {name: {**hosts.get(name, {}), **variables.get(name, {})} for name in sorted(wanted)}
        groups: dict[str, Any] = {}
        for name, group in self.exported.items():
            if name == "_meta":
                continue
            one: dict[str, Any] = {}
            if inside := wanted & set(group.get("hosts", ())):
                one["hosts"] = {key: {} for key in sorted(inside)}
            if group.get("children"):
                one["children"] = {key: {} for key in group["children"]}
            if group.get("vars"):
                one["vars"] = _without_names(group["vars"])
            groups[name] = one
        whole = groups.pop("all", {})
        # Every group is there once by its name; that the others are below `all` need not be said.
        return {"all": {"hosts": top, "vars": whole.get("vars", {})}} | groups


def read_fleet(inventory: Path, limit: str | None = None) -> Fleet:
    """Raises FleetError."""
    if not inventory.exists():
        raise FleetError(f"{inventory}: there is no such inventory; name the fleet file with -i")
    command = ["ansible-inventory", "-i", str(inventory.resolve()), "--list", "--export"]
    command += ["--playbook-dir", str(PLAYBOOKS)] + (["--limit", limit] if limit else [])
    done = subprocess.run(
        command,
        # Below ansible-playbook standard input is one that Ansible itself refuses.
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=ansible_environment(),
    )
    if done.returncode != 0:
        raise FleetError(
            done.stderr.strip() or f"{inventory}: ansible-inventory ended with {done.returncode}"
        )
    return _fleet(inventory, json.loads(done.stdout))


def ansible_environment() -> dict[str, str]:
    """For Ansible's commands: ours come first on PATH, and its configuration is the project's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": path, "ANSIBLE_NOCOLOR": "1"}


def _fleet(inventory: Path, exported: dict[str, Any]) -> Fleet:
    facts = exported.get("all", {}).get("vars", {}).get("energy_fleet")
    if facts is None:
        raise FleetError(
            f"{inventory}: no fleet of wattfleet.energy.sites is in it: its name ends with sites.yml"
        )
    told = facts.get("rollout", {})
    deadlines = told.get("deadlines", {})
    plain = ("max_offline", "max_failed", "growth", "soak", "patience")
    limits = {key: told[key] for key in plain if key in told} | {
        f"{key}_deadline": value for key, value in deadlines.items()
    }
    hosts = exported["_meta"]["hostvars"]
    sites = {
        name: _site(name, one["energy_site"]) for name, one in sorted(hosts.items()) if "energy_site" in one
    }
    return Fleet(
        inventory=inventory.resolve(),
        rings=tuple(facts["rings"]),
        sites=sites,
        settings=Settings(**limits),
        forks=told.get("forks", FORKS),
        nodes=tuple(Node(**node) for node in told.get("nodes", ())),
        install_time=told.get("install_time", INSTALL_TIME),
        facts=facts,
        # The variables of its groups are exported apart; those of all hosts tell how ssh gets there.
        hub={**exported["all"].get("vars", {}), **hosts["hub"]} if "hub" in hosts else {},
        exported=exported,
    )


def _site(name: str, file: Mapping[str, Any]) -> Site:
    link, window = file["link"], file.get("maintenance")
    return Site(
        name=name,
        ring=file["ring"],
        model=file["gateway"]["model"],
        critical=file["critical"],
        pair=file.get("redundancy_pair"),
        link=link["type"],
        window=Window.of(window, file["timezone"]) if window else Always(),
        rate=link.get("rate"),
        price=link.get("price_per_mb", 0.0),
        transfer_rate=link.get("transfer_rate"),
        transfer_budget=link.get("transfer_budget"),
    )


def _without_names(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Without the names of all sites, which would come along with every play."""
    facts = variables.get("energy_fleet")
    if not isinstance(facts, dict):
        return dict(variables)
    return {**variables, "energy_fleet": {key: value for key, value in facts.items() if key != "sites"}}
