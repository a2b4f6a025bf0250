# SPDX-License-Identifier: Apache-2.0
"""The readings of an ordinary site for benchmarks: eight three-phase meters with twenty points each.

The powers follow the physics of the lab's simulated site; on top of it comes the noise that a meter's last
digits show, because smooth curves would compress better than life. Values have the decimals of the profile.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from energy_collector import profiles
from energy_collector.reading import Layout, Record
from wattfleet_lab.meters.description import Listener, Unit
from wattfleet_lab.meters.description import Site as SiteDescription
from wattfleet_lab.meters.site import Site

METERS = ("main", "press", "paint", "ovens", "compressor", "office", "hall", "solar")
POINTS = 20
SITE = "plant-a"
# Noise between two samples, as a fraction of the value: load and voltage move, the grid's frequency hardly does.
POWER_NOISE, VOLTAGE_NOISE, FREQUENCY_NOISE = 0.005, 0.0005, 0.0001
MORNING = 1_767_600_000.0  # 2026-01-05, a Monday, 08:00 UTC


def _site() -> Site:
    roles = dict.fromkeys(METERS, "consumption") | {"main": "main", "solar": "generation"}
    units = tuple(
        Unit(number, "eastron-sdm630", name, roles[name], 1.0, 1.0, (), {})
        for number, name in enumerate(METERS, 1)
    )
    listener = Listener("127.0.0.1", 502, "tcp", 0.0, None, units)
    description = SiteDescription(SITE, None, 7, "Europe/Paris", 48.0, 80_000.0, (listener,), "")
    return Site(description, MORNING - 8 * 3600)


class SiteReadings:
    """Records of all meters, one each meter and time."""

    def __init__(self) -> None:
        self._site = _site()
        self._chance = random.Random(3)
        points = list(profiles.load("eastron-sdm630").points)[:POINTS]
        self._points = points
        self._layouts = {
            meter: Layout(tuple(f"{meter}/{one.name}" for one in points), tuple(one.unit for one in points))
            for meter in METERS
        }

    def at(self, seconds: float) -> list[Record]:
        """What the meters show at a time (unix s); each is asked a little after the one before."""
        return [self._record(meter, seconds + 0.02 * index) for index, meter in enumerate(METERS)]

    def every(self, interval: float, count: int, start: float = MORNING) -> Iterator[list[Record]]:
        """`count` polls of all meters."""
        for number in range(count):
            yield self.at(start + number * interval)

    def _record(self, meter: str, at: float) -> Record:
        values = self._site.values(meter, at)
        power, voltage = self._noise(POWER_NOISE), self._noise(VOLTAGE_NOISE)
        found = []
        for point in self._points:
            value = values[point.name]
            if point.name.startswith("voltage"):
                value *= voltage
            elif point.name == "frequency":
                value *= self._noise(FREQUENCY_NOISE)
            elif point.name.startswith(("current", "active_power", "apparent", "reactive_power")):
                value *= power * self._noise(POWER_NOISE / 5)
            found.append(round(value, point.decimals))
        # A poll is a few ms late, never the same.
        return Record(self._layouts[meter], int(at * 1000) + self._chance.randrange(4), found)

    def _noise(self, fraction: float) -> float:
        return 1 + self._chance.gauss(0, fraction)


def count(polls: Sequence[list[Record]]) -> int:
    """Readings in polls."""
    return sum(len(record.values) for records in polls for record in records)
