# SPDX-License-Identifier: Apache-2.0
"""What a site's file says of its meters, as far as the glance at the fleet needs it, and their points' numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

POWER, IMPORT, EXPORT = "active_power", "energy_import", "energy_export"
REACTIVE = "reactive_power"
MEAN = f"{POWER}_mean"
MAIN, CONSUMPTION, GENERATION, STORAGE, PROCESS = "main", "consumption", "generation", "storage", "process"
# What the site file's schema has as its default, in s.
INTERVAL = 10.0


@dataclass(frozen=True)
class Meter:
    """`interval` is the time between two of its readings; points are numbers of table `point`, None where the meter
    has none yet. `shown` is the point by which its readings are counted."""

    name: str
    role: str
    interval: float
    power: int | None
    energy_import: int | None
    energy_export: int | None
    shown: int | None


@dataclass(frozen=True)
class Description:
    """What a site's file says. `begins`: from when on; `first`: from when on there was one at all."""

    label: str | None
    region: str | None
    first: datetime
    begins: datetime
    interval: float
    meters: tuple[Mapping[str, Any], ...]


def description_of(row: Mapping[str, Any]) -> Description:
    """From a row of the query of descriptions. What is no site's file has no meters."""
    return Description(
        _text(row["label"]),
        _text(row["region"]),
        row["first"],
        row["since"],
        seconds(row["interval"], INTERVAL),
        tuple(described_meters(row["meters"])),
    )


def described_meters(listed: object) -> list[dict[str, Any]]:
    """What a site's file has as its meters."""
    return (
        [one for one in listed if isinstance(one, dict) and "name" in one] if isinstance(listed, list) else []
    )


def since_of(one: Mapping[str, Any]) -> datetime | None:
    """From when on a meter is as a site's file has it, where the file says so itself."""
    try:
        moment = datetime.fromisoformat(str(one.get("since")))
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def holds_from(begins: datetime, listed: Iterable[Mapping[str, Any]], until: datetime) -> datetime:
    """From when on all of a site's meters are as its file has them now. What was read before the file was there went by
    the one before, so that no date of a meter makes it earlier; one after `until` is still to come."""
    own = [since for one in listed if (since := since_of(one)) is not None and since < until]
    return max([begins, *own])


def role_of(one: Mapping[str, Any]) -> str:
    return str(one.get("role") or CONSUMPTION)


def power_point(one: Mapping[str, Any], phase: str = "", power: str = POWER) -> str:
    """By which of its points a meter of a site's file tells its power, or that of a phase (`_l1`). With statistics the
    samples do not travel, and after a change of the file the other point only has the past."""
    point = f"{power}{phase}"
    return f"{point}_mean" if one.get("report") and point not in (one.get("raw") or ()) else point


def meters_of(
    described: Description, points: Mapping[str, int], others: Mapping[str, int]
) -> tuple[Meter, ...]:
    """The meters of a site. `points` are those of POINTS by their full name, `others` one of each further meter."""
    return tuple(meter_of(one, described.interval, points, others) for one in described.meters)


def meter_of(
    one: Mapping[str, Any], usual: float, points: Mapping[str, int], others: Mapping[str, int]
) -> Meter:
    """One of them; `usual` is the interval that the site's file has for all."""
    name, role = str(one["name"]), role_of(one)
    shown = power_point(one)
    power = points.get(f"{name}/{shown}")
    interval = one.get("report") if shown == MEAN else one.get("interval")
    return Meter(
        name,
        role,
        seconds(interval, usual),
        None if role == PROCESS else power,
        _counter(one, IMPORT, points),
        _counter(one, EXPORT, points),
        power if power is not None else others.get(name),
    )


def _counter(one: Mapping[str, Any], name: str, points: Mapping[str, int]) -> int | None:
    """The point of a counter, unless it is one that is not read any more."""
    read = one.get("points")
    is_read = not isinstance(read, list) or name in read
    return points.get(f"{one['name']}/{name}") if is_read else None


def without_power(described: Description, points: Iterable[str]) -> list[str]:
    """Meters that have to be counted by another point than their power."""
    have = {name.partition("/")[0] for name in points if name.endswith((f"/{POWER}", f"/{MEAN}"))}
    return [str(one["name"]) for one in described.meters if one["name"] not in have]


def seconds(value: object, usual: float) -> float:
    """An interval of a site's file; the usual one where it has none, or none that could be."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return float(value)
    return usual


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
