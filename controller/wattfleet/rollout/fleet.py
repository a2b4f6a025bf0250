# SPDX-License-Identifier: Apache-2.0
"""The fleet as rollouts need it, from `ansible-inventory`: sites, rings, limits, and an inventory of some sites."""

from __future__ import annotations

import hashlib
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


def read_fleet(inventory: Path, limit: str | None = None, cache: Path | None = None) -> Fleet:
    """Raises FleetError.

    In `cache` is kept what Ansible said, for as long as no file of the inventory changes: five thousand sites take it
    eight seconds, and a driver that begins again after a crash should not have to wait for them.
    """
    if not inventory.exists():
        raise FleetError(f"{inventory}: there is no such inventory; name the fleet file with -i")
    if cache is None:
        return _fleet(inventory, _export(inventory, limit))
    stamp = _stamp(inventory, limit)
    exported = _kept(cache, stamp)
    if exported is None:
        exported = _export(inventory, limit)
        new = cache.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"stamp": stamp, "exported": exported}, file)
        new.replace(cache)
    return _fleet(inventory, exported)


def _kept(cache: Path, stamp: str) -> dict[str, Any] | None:
    try:
        kept = json.loads(cache.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # none, or torn by a power cut
        return None
    return dict(kept["exported"]) if kept.get("stamp") == stamp else None


def _stamp(inventory: Path, limit: str | None) -> str:
    """Changes with every file that an inventory is made of: the fleet's, their variables, the playbooks', the code."""
    here = inventory.resolve().parent
    files = {here / inventory.name}
    for folder in (here, PLAYBOOKS):
        for part in ("group_vars", "host_vars"):
            files.update((folder / part).rglob("*"))
    files.update((ROOT / "plugins").rglob("*.py"))
    # The fleet file may name any folder beside it for its sites.
    files.update(file for file in here.glob("*/*.yml") if file.parent.name != "rollouts")
    hashed = hashlib.sha256(f"{here} {limit} {os.environ.get('ANSIBLE_COLLECTIONS_PATH')}".encode())
    for file in sorted(files):
        found = file.stat()
        hashed.update(f"{file} {found.st_mtime_ns} {found.st_size}\n".encode())
    return hashed.hexdigest()


def _export(inventory: Path, limit: str | None) -> dict[str, Any]:
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
    return dict(json.loads(done.stdout))


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
        poll_rate=_poll_rate(file),
    )


def _poll_rate(file: Mapping[str, Any]) -> float:
    """A meter counts as often as its most frequent point travels. Those that report by radio no gate looks at."""
    intervals: list[float] = [
        meter.get("interval", file["interval"])
        if "report" not in meter or "raw" in meter
        else meter["report"]
        for meter in file["meters"]
        if "bus" in meter
    ]
    return sum((1 / interval for interval in intervals), 0.0)


def _without_names(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Without the names of all sites, which would come along with every play."""
    facts = variables.get("energy_fleet")
    if not isinstance(facts, dict):
        return dict(variables)
    return {**variables, "energy_fleet": {key: value for key, value in facts.items() if key != "sites"}}
