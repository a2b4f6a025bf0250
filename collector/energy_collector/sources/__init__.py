# SPDX-License-Identifier: Apache-2.0
"""Readings that do not come from a Modbus bus."""

from energy_collector.config import Config
from energy_collector.sources.buses import BusSource, Counters, Places
from energy_collector.sources.host import HostSource
from energy_collector.sources.hwmon import HwmonSource
from energy_collector.sources.source import Source, run

__all__ = ["BusSource", "HostSource", "HwmonSource", "Source", "from_config", "run"]


def from_config(config: Config, counters: Counters, places: Places) -> list[Source]:
    """The sources that the configuration wants; the buses are asked for what they have counted."""
    intervals = {one.name: one.interval for one in config.sources if one.enabled}
    found: list[Source] = []
    if "hwmon" in intervals:
        found.append(HwmonSource(intervals["hwmon"]))
    if "host" in intervals:
        found.append(HostSource(intervals["host"], config.buffer.path.parent))
    if "buses" in intervals:
        found.append(BusSource(intervals["buses"], counters, places))
    return found
