# SPDX-License-Identifier: Apache-2.0
"""The fleet's totals twice: as the database has them, and as the simulators say they produced them.

The two ends share nothing but the meters' published register maps: the simulators compute energies in closed form,
the database holds what a collector read from registers. They may differ by what flows within one sampling interval,
and by the meter's own resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from wattfleet.hub import SiteState

# W.h; the coarsest counter of the lab's meters shows 0.1 kWh.
RESOLUTION = 100.0
ROLES_OF_FLEET = ("main", "generation", "storage")


# What one meter's counters show at an instant, in W.h counted up: (site, meter, at) -> point -> value.
Truth = Callable[[str, str, datetime], Mapping[str, float]]


@dataclass(frozen=True)
class Meter:
    """A meter of the site file: where it is, what it stands for, how often it is read (s)."""

    site: str
    name: str
    role: str
    interval: float


@dataclass
class FleetTotal:
    """Energies in W.h. `net` is what the fleet took from the grid, less what it gave."""

    grid_import: float = 0.0
    grid_export: float = 0.0
    generation: float = 0.0
    storage: float = 0.0

    @property
    def net(self) -> float:
        """Import less export."""
        return self.grid_import - self.grid_export

    def add(self, role: str, energies: Mapping[str, float]) -> None:
        """Count one meter's counters in."""
        if role == "main":
            self.grid_import += energies["energy_import"]
            self.grid_export += energies["energy_export"]
        elif role == "generation":
            self.generation += energies["energy_export"]
        elif role == "storage":
            self.storage += energies["energy_import"] - energies["energy_export"]


@dataclass
class Comparison:
    """Both totals, and one line for each counter that does not agree."""

    database: FleetTotal
    simulators: FleetTotal
    compared: int
    disagreements: list[str]


def compare(meters: Iterable[Meter], states: Mapping[str, SiteState], truth: Truth) -> Comparison:
    """Compare every energy counter of the database with the simulator's at the time of the reading."""
    result = Comparison(FleetTotal(), FleetTotal(), 0, [])
    for meter in meters:
        points = states[meter.site].meters.get(meter.name, {}) if meter.site in states else {}
        measured, true = (
            {"energy_import": 0.0, "energy_export": 0.0},
            {"energy_import": 0.0, "energy_export": 0.0},
        )
        for point in ("energy_import", "energy_export"):
            newest = points.get(point)
            if newest is None or newest.value is None:
                continue
            slack = timedelta(seconds=meter.interval)
            before, at, after = (
                truth(meter.site, meter.name, newest.time + shift)[point]
                for shift in (-slack, timedelta(0), slack)
            )
            measured[point], true[point] = newest.value, at
            result.compared += 1
            if not before - RESOLUTION <= newest.value <= after + RESOLUTION:
                result.disagreements.append(
                    f"{meter.site} {meter.name}/{point}: {newest.value:.0f} W.h in the database, "
                    f"{at:.0f} W.h at the simulator"
                )
        if meter.role in ROLES_OF_FLEET:
            if not any(point in points for point in measured):
                result.disagreements.append(f"{meter.site} {meter.name}: no energy counter in the database")
            result.database.add(meter.role, measured)
            result.simulators.add(meter.role, true)
    return result
