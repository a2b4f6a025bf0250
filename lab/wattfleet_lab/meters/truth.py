# SPDX-License-Identifier: Apache-2.0
"""What the simulated meters truly produce, for any instant, in any process.

The description is the parsed one, or the mapping that the simulator was started with. Times are unix
seconds or datetimes with a time zone. The server computes registers for whole tenths of a second; `reading`
at the time in its log of answers is exactly what it sent.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from wattfleet_lab.meters.description import Description, parse
from wattfleet_lab.meters.models import make
from wattfleet_lab.meters.models.base import Model
from wattfleet_lab.meters.site import Site, Values

Instant = float | datetime


class _Truth:
    def __init__(self, description: Description) -> None:
        self.sites = {site.site: Site(site, description.epoch) for site in description.sites}
        self.models: dict[tuple[str, str], Model] = {
            (site.site, unit.name): make(unit) for site in description.sites for unit in site.units()
        }


def totals(description: Description | Mapping[str, Any], at: Instant) -> dict[str, dict[str, dict[str, Any]]]:
    """By site and meter: `role`, `active_power` (W), `energy_import` and `energy_export` (W.h), exact.

    Signed from the site's view: generation's power is negative and its energy counts up as energy_export;
    storage is positive while charging and has `state_of_charge` (%) too. Process modules have `role` and
    their channels' values. Raises ValueError for a time before the description's epoch.
    """
    return {name: site_totals(site, seconds(at)) for name, site in _truth(description).sites.items()}


def site_totals(site: Site, at: float) -> dict[str, dict[str, Any]]:
    """The totals of one site by meter."""
    result: dict[str, dict[str, Any]] = {}
    for name, unit in site.units.items():
        if unit.role == "process":
            result[name] = {"role": unit.role, **site.values(name, at)}
            continue
        energy = site.energy(name, at)
        result[name] = {
            "role": unit.role,
            "active_power": site.power(name, at),
            "energy_import": energy.taken,
            "energy_export": energy.given,
        }
        if unit.role == "storage":
            result[name]["state_of_charge"] = site.state_of_charge(name, at)
    return result


def reading(
    description: Description | Mapping[str, Any], site: str, meter: str, point: str, at: Instant
) -> float:
    """What a perfect collector stores for a point before its own rounding: the device's resolution is in it.

    Raises KeyError when there is no such site, meter or point, and ValueError for a time before the epoch.
    """
    truth = _truth(description)
    return truth.models[site, meter].reading(point, truth.sites[site].values(meter, seconds(at)))


def readings(
    description: Description | Mapping[str, Any], site: str, meter: str, at: Instant
) -> dict[str, float]:
    """All points of a meter at once, as `reading` gives them."""
    truth = _truth(description)
    model, values = truth.models[site, meter], truth.sites[site].values(meter, seconds(at))
    return {point: model.reading(point, values) for point in model.points()}


def exact(description: Description | Mapping[str, Any], site: str, meter: str, at: Instant) -> Values:
    """The quantities themselves, without any device's resolution."""
    return _truth(description).sites[site].values(meter, seconds(at))


def seconds(at: Instant) -> float:
    """Unix seconds of an instant. Raises ValueError for a datetime without a time zone."""
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError(f"{at.isoformat()} has no time zone")
        return at.timestamp()
    return float(at)


def _truth(description: Description | Mapping[str, Any]) -> _Truth:
    if isinstance(description, Description):
        return _made(description.source)
    return _made(json.dumps(description, sort_keys=True, separators=(",", ":")))


@lru_cache(maxsize=8)
def _made(source: str) -> _Truth:
    return _Truth(parse(json.loads(source)))
