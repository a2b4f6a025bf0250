# SPDX-License-Identifier: Apache-2.0
"""Load, generation, storage and net of a site from its meters. Seen from the site, as everywhere: import positive,
generation negative, a charging battery positive. So, always,

    net = load + generation + storage

A site with a meter of its supply has its net from there, and the load is what is left; without one the net is the sum.
None is what is not known: one meter without a value makes the figures that need it unknown, and never too small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from energy_hub.fleet.history import Cut
from energy_hub.fleet.meters import CONSUMPTION, GENERATION, MAIN, STORAGE, Meter


@dataclass(frozen=True)
class Balance:
    """kW or kWh."""

    load: float | None
    generation: float | None
    storage: float | None
    net: float | None


FIGURES = ("load", "generation", "storage", "net")
UNKNOWN = Balance(None, None, None, None)


def counting(meters: Sequence[Meter]) -> list[Meter]:
    """The meters that the balance needs: with a meter of the supply not those of its loads."""
    demand = MAIN if any(one.role == MAIN for one in meters) else CONSUMPTION
    roles = (demand, GENERATION, STORAGE)
    return [one for one in meters if one.role in roles]


def balance(meters: Sequence[Meter], values: Mapping[str, float | None]) -> Balance:
    """`values` are the meters' by their names; a missing one is not known."""
    needed = counting(meters)
    if not needed:
        return UNKNOWN
    generation, storage = _sum(needed, GENERATION, values), _sum(needed, STORAGE, values)
    # What is made and stored at the site itself.
    own = None if generation is None or storage is None else generation + storage
    has_supply = any(one.role == MAIN for one in needed)
    demand = _sum(needed, MAIN if has_supply else CONSUMPTION, values)
    if has_supply:
        load = None if demand is None or own is None else demand - own
        return Balance(load, generation, storage, demand)
    net = None if demand is None or own is None else demand + own
    return Balance(demand, generation, storage, net)


def _sum(meters: Sequence[Meter], role: str, values: Mapping[str, float | None]) -> float | None:
    total = 0.0
    for one in meters:
        if one.role == role:
            value = values.get(one.name)
            if value is None:
                return None
            total += value
    return total


def energy_of(meter: Meter, days: Mapping[int, Mapping[str, Any]], cuts: Iterable[Cut] = ()) -> float | None:
    """kWh of a day, from rows of rollup_day by point: by what the counters advanced, import less export. Where there is
    none, or one was reset, or it does not go on from itself (`cuts`), the mean power over the time that it is known for
    stands in."""
    rows = [days[point] for point in _counters(meter) if point in days]
    is_cut = any(
        row["first_time"] < until and since <= row["last_time"] for since, until in cuts for row in rows
    )
    counted = None if is_cut else advance_of(meter, days)
    if counted is not None:
        return counted
    power = days.get(meter.power) if meter.power is not None else None
    if power is None or power["sum"] is None:
        return None
    hours = (power["last_time"] - power["first_time"]).total_seconds() / 3600
    return float(power["sum"] / power["valued"] * hours / 1000)


def advance_of(meter: Meter, spans: Mapping[int, Mapping[str, Any]]) -> float | None:
    """kWh that the counters advanced over a span, import less export; None where there is none, or one was reset or
    silent: what it counted is not known, which is not nothing."""
    counters = _counters(meter)
    if not counters or any(point not in spans or _was_reset(spans[point]) for point in counters):
        return None
    advanced = {point: spans[point]["last_value"] - spans[point]["first_value"] for point in counters}
    return float(sum(sign * advanced[point] for point, sign in counters.items())) / 1000


def _counters(meter: Meter) -> dict[int, int]:
    """The points of the counters that the meter has, with their signs."""
    found = ((meter.energy_import, 1), (meter.energy_export, -1))
    return {point: sign for point, sign in found if point is not None}


def _was_reset(row: Mapping[str, Any]) -> bool:
    return bool(row["minimum"] < row["first_value"])
