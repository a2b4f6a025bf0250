# SPDX-License-Identifier: Apache-2.0
"""How long `ansible-inventory` takes with our plugin, and with Ansible's YAML inventory of the same hosts.

    .venv/bin/python tests/bench/bench_inventory.py [--sites 5000] [--runs 5]

Ours reads and checks one file for each site; Ansible's reads one large file and checks nothing. The two take
turns, so that both see the same machine; the figures are medians. The outputs of both are compared first: a
ratio between different answers would say nothing. Writes build/bench/inventory.json, a list of {name, value,
unit, against, ratio}.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("ansible-inventory")
REGIONS = ("emea", "apac", "americas", "nordics")
RINGS = ("canary", "early", "main", "critical")
MODELS = ("moxa-uc-8220", "advantech-uno-2271g", "siemens-iot2050")
LINKS = ("lan", "cellular", "satellite")
FLEET: dict[str, Any] = {
    "plugin": "wattfleet.energy.sites",
    "fleet": "bench",
    "sites": "sites",
    "rings": list(RINGS),
    "management": {"networks": ["172.20.0.0/24"], "user": "admin"},
    "hub": {"name": "hub.energy.example", "address": "172.20.1.2", "port": 8883},
}


def site(number: int) -> tuple[str, str]:
    """The name and the file of a site: two buses, four meters, solar on every third."""
    name = f"site-{number:05d}"
    address = f"10.{number // 250 + 1}.{number % 250}.2"
    critical = number % 10 == 0
    ring = RINGS[3] if critical else RINGS[number % 3]
    role = "generation" if number % 3 == 0 else "process"
    return (
        name,
        f"""\
site: {name}
name: Site {number}
region: {REGIONS[number % 4]}
ring: {ring}
critical: {"true" if critical else "false"}
timezone: Europe/Paris
gateway:
  model: {MODELS[number % 3]}
  address: {address}
link: {{type: {LINKS[number % 3]}}}
network:
  wan: {{interface: eth0, address: {address}/30, gateway: {address[:-1]}1}}
  energy: {{interface: eth1, address: 192.168.10.10/24}}
interval: 10
buses:
  - name: board
    type: modbus-tcp
    host: 192.168.10.20
    port: 502
    timeout: 1.0
  - name: roof
    type: rtu-over-tcp
    host: 192.168.10.21
    port: 4001
    timeout: 1.5
meters:
  - {{name: supply, bus: board, unit: 1, profile: eastron-sdm630, role: main, ct_ratio: "400:5"}}
  - {{name: line-1, bus: board, unit: 2, profile: eastron-sdm630, role: consumption, ct_ratio: "200:5"}}
  - {{name: line-2, bus: roof, unit: 3, profile: carlo-gavazzi-em24, role: consumption}}
  - {{name: east, bus: roof, unit: 4, profile: sunspec-inverter, role: {role}}}
""",
    )


def write_ours(folder: Path, count: int) -> Path:
    (folder / "sites").mkdir(parents=True)
    for number in range(count):
        name, text = site(number)
        (folder / "sites" / f"{name}.yml").write_text(text, encoding="utf-8")
    file = folder / "fleet.sites.yml"
    file.write_text(yaml.safe_dump(FLEET, sort_keys=False), encoding="utf-8")
    return file


def write_theirs(folder: Path, listed: dict[str, Any]) -> Path:
    """The same inventory for ansible.builtin.yaml, made from what `--list` says about ours."""
    folder.mkdir()
    hosts = listed["_meta"]["hostvars"]
    fleet = next(iter(hosts.values()))["energy_fleet"]
    own = {
        name: {key: value for key, value in found.items() if key != "energy_fleet"}
        for name, found in hosts.items()
    }
    children = {
        group: {
            "hosts": {name: own[name] if group in ("gateways", "hubs") else None for name in members["hosts"]}
        }
        for group, members in listed.items()
        if group not in ("_meta", "all", "ungrouped")
    }
    file = folder / "hosts.yml"
    inventory = {"all": {"vars": {"energy_fleet": fleet}, "children": children}}
    text = yaml.dump(inventory, Dumper=yaml.CSafeDumper, sort_keys=False)
    file.write_text(text, encoding="utf-8")
    return file


def run(file: Path, action: str) -> tuple[float, str]:
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_INVENTORY_ENABLED": "wattfleet.energy.sites,ansible.builtin.yaml",
    }
    started = time.perf_counter()
    done = subprocess.run(
        [COMMAND, "-i", file, action], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    elapsed = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"bench_inventory: ansible-inventory {action} of {file} failed:\n{done.stderr}")
    return elapsed, done.stdout


def compare(left: dict[str, Any], theirs: Path) -> None:
    """Stops when the inventory ``left`` and the one in ``theirs`` differ in hosts, variables or groups."""
    right = json.loads(run(theirs, "--list")[1])
    for inventory in (left, right):
        inventory["all"]["children"].sort()
        for group in inventory.values():
            group.get("hosts", []).sort()
    if left != right:
        sys.exit("bench_inventory: the two inventories differ, so that their times cannot be compared")


def measure(ours: Path, theirs: Path, action: str, runs: int) -> dict[str, Any]:
    times: dict[Path, list[float]] = {ours: [], theirs: []}
    for _ in range(runs):
        for file, found in times.items():
            found.append(run(file, action)[0])
    value, against = (statistics.median(found) for found in times.values())
    return {
        "name": f"ansible-inventory {action}",
        "value": round(value, 3),
        "unit": "s",
        "against": round(against, 3),
        "ratio": round(value / against, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time our inventory plugin against ansible.builtin.yaml.")
    parser.add_argument("--sites", type=int, default=5000, help="how many sites to generate (default: 5000)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each, alternating (default: 5)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"Generating {options.sites} sites ...", flush=True)
        ours = write_ours(folder / "ours", options.sites)
        listed = json.loads(run(ours, "--list")[1])
        theirs = write_theirs(folder / "theirs", listed)
        compare(listed, theirs)
        print(f"{'':32}{'ours':>9}{'YAML':>9}{'ratio':>8}   medians of {options.runs}, {options.sites} sites")
        # --list prints 30 MB at this size, most of which is the printing; it ran once of each for `compare`.
        result = measure(ours, theirs, "--graph", options.runs)
        print(
            f"{result['name']:32}{result['value']:7.2f} s{result['against']:7.2f} s{result['ratio']:8.2f}",
            flush=True,
        )
    target = ROOT / "build" / "bench" / "inventory.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps([result], indent=2) + "\n", encoding="utf-8")
    print(f"Written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
