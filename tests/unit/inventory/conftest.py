# SPDX-License-Identifier: Apache-2.0
"""A small fleet without faults, on disk, for tests to break in one place each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from plugins.module_utils.inventory.fleet import FaultsFoundError, Fleet, load_fleet

FLEET = """\
plugin: wattfleet.energy.sites
fleet: demo
rings: [canary, early, critical]
management: {networks: [10.1.0.0/24], user: admin}
hub: {name: hub.energy.example, address: 10.1.1.2}
"""

SITE = """\
site: plant-a
region: emea
ring: early
timezone: Europe/Paris
gateway: {model: moxa-uc-8220, address: 10.20.4.11}
link: {type: lan}
network:
  wan: {interface: eth0, address: 10.20.4.11/24, gateway: 10.20.4.1}
  energy: {interface: eth1, address: 192.168.10.10/24}
buses:
  - {name: hall, type: modbus-tcp, host: 192.168.10.20}
  - {name: yard, type: rtu, device: /dev/ttyS0}
meters:
  - {name: supply, bus: hall, unit: 1, profile: eastron-sdm630, role: main, ct_ratio: 200:5}
  - {name: press, bus: hall, unit: 2, profile: eastron-sdm630, since: "2026-03-03T09:40:00Z"}
  - {name: pump, bus: yard, unit: 2, profile: carlo-gavazzi-em24}
  - name: process
    bus: hall
    unit: 3
    profile: advantech-adam-6017
    channels:
      flow: {input: 1, signal: 4-20mA, low: 0, high: 100, unit: m3/h}
  - {name: drive, bus: hall, unit: 4, profile: eastron-sdm630, interval: 1, report: 60, raw: [frequency]}
collector:
  buffer: {commit_interval: 10}
  batch: {interval: 60}
  metrics: {port: 9105}
device_mapping:
  supply/active_power:
    - {from: "2026-01-31T12:00:00Z", multiplier: 1.02, note: Fluke 376}
    - {from: "2026-02-28T12:00:00Z", offset: 3}
"""


def other_site(name: str = "plant-b", address: str = "10.20.4.12") -> str:
    """A second site that fits beside SITE."""
    return SITE.replace("plant-a", name).replace("10.20.4.11", address)


class FleetOnDisk:
    """A fleet file and its folder of sites."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "fleet.sites.yml"
        self.sites = folder / "sites"
        self.sites.mkdir()
        self.file.write_text(FLEET, encoding="utf-8")
        self.write("plant-a", SITE)

    def write(self, site: str, text: str) -> None:
        (self.sites / f"{site}.yml").write_text(text, encoding="utf-8")

    def load(self) -> Fleet:
        return load_fleet(self.file)

    def faults(self) -> list[str]:
        """The lines of all faults; none when the fleet is sound."""
        try:
            load_fleet(self.file)
        except FaultsFoundError as found:
            return found.lines.splitlines()
        return []


@pytest.fixture
def fleet(tmp_path: Path) -> FleetOnDisk:
    return FleetOnDisk(tmp_path)


@pytest.fixture
def broken_site(fleet: FleetOnDisk) -> Callable[[str, str], list[str]]:
    """The faults after ``old`` in the site file has become ``new``."""

    def faults(old: str, new: str) -> list[str]:
        assert SITE.count(old) == 1, f"{old!r} is not in the site file exactly once"
        fleet.write("plant-a", SITE.replace(old, new))
        return fleet.faults()

    return faults


@pytest.fixture
def broken_fleet(fleet: FleetOnDisk) -> Callable[[str, str], list[str]]:
    """The faults after ``old`` in the fleet file has become ``new``."""

    def faults(old: str, new: str) -> list[str]:
        assert FLEET.count(old) == 1, f"{old!r} is not in the fleet file exactly once"
        fleet.file.write_text(FLEET.replace(old, new), encoding="utf-8")
        return fleet.faults()

    return faults
