# SPDX-License-Identifier: Apache-2.0
"""Holds a site's supply meter against the sum of its other meters, and names the likely cause where they differ.

All powers are seen from the site: import positive, generation negative, a charging battery positive. So

    supply = consumption + generation + storage + residual

and the residual of each quarter of an hour should be about zero. What explains it best is looked for among a few
causes that electricians meet, the simpler one first: a load without a meter, a meter that is wrong by a factor
(its CT ratio, or a phase turned round or lost), both. A cause is named only where it takes away most of the residual,
and "likely", because another one may look the same.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from energy_hub.fleet.meters import (
    CONSUMPTION,
    GENERATION,
    MAIN,
    STORAGE,
    described_meters,
    power_point,
    role_of,
)

PHASES = ("l1", "l2", "l3")
PARTS = (CONSUMPTION, GENERATION, STORAGE)
# Of the supply's mean absolute power: within this the meters agree. Classes of meters and CTs add up to about so much.
LIMIT = 0.02
# Quarters of an hour; fewer prove nothing.
LEAST = 24
# A cause is named when what it leaves of the residual (rms) is at most this part of it.
EXPLAINED = 0.15
# A meter whose power hardly varies explains a constant as well as a load does, so it is not accused.
VARIES = 0.1
# Rated primary currents of current transformers in A, and their decimal multiples: IEC 61869-2:2012, 5.201.
PRIMARIES = (10.0, 12.5, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 75.0)
# How near a factor has to be to one of these to be called so.
NEAR = 0.03


@dataclass(frozen=True)
class Meter:
    """A meter with its mean active power by quarter of an hour, in W; `phases` the same by phase where it is known."""

    name: str
    role: str
    power: Mapping[datetime, float]
    ct_ratio: str | None = None
    phases: Mapping[str, Mapping[datetime, float]] | None = None


@dataclass(frozen=True)
class Verdict:
    """How a site's meters agree over a span.

    Energies are in kWh: of the supply, of all other meters together, and what is between them. `share` is the
    mean absolute residual as part of the supply's mean absolute power, None where that is zero. `causes` are
    sentences, the likeliest first. `meter` is the one that is wrong, where nothing else explains it and nothing else is
    missing.
    """

    state: str  # agrees, differs, unknown
    quarters: int
    supply: float
    parts: float
    residual: float
    share: float | None
    causes: tuple[str, ...]
    meter: str | None = None


def of_database(
    connection: psycopg.Connection, since: datetime, until: datetime, site: str | None, limit: float = LIMIT
) -> dict[str, Verdict]:
    """The verdicts of all sites, or of one, that are described, over a span of time.

    What a site's file says holds from a date on: what was measured before it is not held against it.
    """
    verdicts = {}
    for name, begins, content in connection.execute(
        "SELECT DISTINCT ON (site) site, since, content FROM site_description"
        " WHERE since < %s AND site = coalesce(%s, site) ORDER BY site, since DESC",
        (until, site),
    ).fetchall():
        listed = described_meters(content.get("meters"))
        powers: dict[str, dict[datetime, float]] = {}
        for point, start, power in connection.execute(
            "SELECT p.name, q.start, q.sum / (q.good + q.uncertain)"
            " FROM site s JOIN point p ON p.site = s.id JOIN rollup_quarter q ON q.point = p.id"
            " WHERE s.name = %s AND p.name = ANY(%s) AND q.start >= %s AND q.start < %s AND q.sum IS NOT NULL",
            (name, [*map(power_of, listed), *phases_of(listed)], max(since, begins), until),
        ):
            powers.setdefault(point, {})[start] = power
        verdicts[name] = reconcile(measured(listed, powers), limit)
    return verdicts


def power_of(one: Mapping[str, Any], phase: str = "") -> str:
    """The full name of the point of a meter's power, or of a phase's."""
    return f"{one['name']}/{power_point(one, f'_{phase}' if phase else '')}"


def phases_of(listed: Iterable[Mapping[str, Any]]) -> list[str]:
    """Likewise of all phases of all meters."""
    return [power_of(one, phase) for one in listed for phase in PHASES]


def measured(
    listed: Iterable[Mapping[str, Any]], powers: Mapping[str, Mapping[datetime, float]]
) -> list[Meter]:
    """The meters of a site's file with what they have measured, by the full names of their points."""
    return [
        Meter(
            one["name"],
            role_of(one),
            powers.get(power_of(one), {}),
            one.get("ct_ratio"),
            {phase: powers[power_of(one, phase)] for phase in PHASES if power_of(one, phase) in powers},
        )
        for one in listed
    ]


def reconcile(meters: Sequence[Meter], limit: float = LIMIT) -> Verdict:
    """The verdict over the quarters in which all meters have measured."""
    supplies = [one for one in meters if one.role == MAIN]
    parts = [one for one in meters if one.role in PARTS]
    if not supplies or not parts:
        missing = "meter of the supply (role main)" if not supplies else "meter beside the supply's"
        return Verdict("unknown", 0, 0.0, 0.0, 0.0, None, (f"the site has no {missing}",))
    quarters = sorted(set.intersection(*(set(one.power) for one in [*supplies, *parts])))
    if len(quarters) < LEAST:
        return Verdict(
            "unknown", len(quarters), 0.0, 0.0, 0.0, None, (_too_few(quarters, [*supplies, *parts]),)
        )
    supply = [sum(one.power[at] for one in supplies) for at in quarters]
    total = [sum(one.power[at] for one in parts) for at in quarters]
    residual = [have - seen for have, seen in zip(supply, total, strict=True)]
    size = _mean_size(supply)
    share = _mean_size(residual) / size if size else None
    differs = any(residual) if share is None else share > limit
    causes, wrong = _causes(supplies, parts, quarters, residual) if differs else ([], None)
    energy = [sum(one) / 4 / 1000 for one in (supply, total, residual)]
    return Verdict(
        "differs" if differs else "agrees",
        len(quarters),
        energy[0],
        energy[1],
        energy[2],
        share,
        tuple(causes),
        wrong,
    )


def _too_few(quarters: Sequence[datetime], meters: Sequence[Meter]) -> str:
    poorest = min(meters, key=lambda one: len(one.power))
    return (
        f"all meters have measured in {len(quarters)} quarters of an hour, and {LEAST} are needed:"
        f" {poorest.name} has {len(poorest.power)}"
    )


def _causes(
    supplies: Sequence[Meter], parts: Sequence[Meter], quarters: Sequence[datetime], residual: Sequence[float]
) -> tuple[list[str], str | None]:
    """What explains the residual, the simplest first, or else what it looks like; and the meter that alone does."""
    whole = _rms(residual)
    load = statistics.fmean(residual)
    if _rms([one - load for one in residual]) <= EXPLAINED * whole:
        return [_load(load, constant=True)], None
    fits = [fit for fit in (_factor(one, quarters, residual) for one in parts) if fit is not None]
    if len(supplies) == 1:
        # The supply's own factor acts the other way round.
        own = _factor(supplies[0], quarters, [-one for one in residual])
        fits += [own] if own is not None else []
    fits = sorted((fit for fit in fits if fit.left <= EXPLAINED * whole), key=lambda fit: fit.left)
    if not fits:
        return [_load(load, constant=False)], None
    best = fits[0]
    # What explains it nearly as well is told, too: nobody should open the wrong cabinet.
    alike = [fit for fit in fits[1:] if fit.left <= 1.5 * best.left + 0.05 * whole]
    causes = [_told(best)]
    if abs(best.offset) > 0.2 * whole:
        causes.append(
            "besides, " + _load(best.offset if best.meter.role != MAIN else -best.offset, constant=True)
        )
    causes += [f"or else: {_told(fit)}" for fit in alike]
    return causes, best.meter.name if len(causes) == 1 else None


@dataclass(frozen=True)
class _Fit:
    """What a meter shows has to be multiplied by `factor`; `left` is the rms that remains, `offset` a constant load."""

    meter: Meter
    factor: float
    offset: float
    left: float


def _factor(meter: Meter, quarters: Sequence[datetime], residual: Sequence[float]) -> _Fit | None:
    power = [meter.power[at] for at in quarters]
    if statistics.pstdev(power) <= VARIES * _rms(power):
        return None
    slope, offset = statistics.linear_regression(power, residual)
    left = _rms([r - slope * p - offset for r, p in zip(residual, power, strict=True)])
    # Where it explains as much without a constant, there is none.
    alone = sum(r * p for r, p in zip(residual, power, strict=True)) / sum(p * p for p in power)
    without = _rms([r - alone * p for r, p in zip(residual, power, strict=True)])
    if without <= 1.1 * left + 0.02 * _rms(residual):
        return _Fit(meter, 1 + alone, 0.0, without)
    return _Fit(meter, 1 + slope, offset, left)


def _told(fit: _Fit) -> str:
    name, factor = fit.meter.name, fit.factor
    text = f"{name} shows {_percent(1 / factor) if factor else 'nothing'} of what it should"
    turned, lost = _phases(fit.meter)
    if _is_near(factor, -1.0):
        return (
            f"{name} counts the wrong way: likely its current transformers are turned round, or its sign is"
        )
    if turned:
        return f"{text}: likely the current transformer of {turned} is turned round, or on another phase's voltage"
    if lost:
        return f"{text}: likely {lost} is not measured: a fuse of its voltage, or an open current transformer"
    if _is_near(factor, 3.0):
        return f"{text}: likely one phase's current transformer is turned round"
    if fit.meter.ct_ratio and factor > 0:
        return f"{text}: {_ratio(fit.meter.ct_ratio, factor)}"
    return f"{text}: likely its CT ratio or its scale is wrong"


def _ratio(configured: str, factor: float) -> str:
    match = re.fullmatch(r"([0-9.]+):([0-9.]+)", configured)
    if match is None:
        return f"likely its CT ratio is not {configured}"
    primary, secondary = float(match[1]), float(match[2])
    for found, other in ((primary * factor, secondary), (primary, secondary / factor)):
        likely = _standard(found) if other == secondary else (found if other in (1.0, 5.0) else None)
        if likely is not None:
            return f"likely its CT ratio is {likely:g}:{other:g} and not {configured}"
    return f"likely its CT ratio is not {configured}, but about {primary * factor:.0f}:{secondary:g}"


def _standard(primary: float) -> float | None:
    """The rated primary current that is meant, in A."""
    scale = 10.0 ** math.floor(math.log10(primary / 10))
    for step in (scale, scale * 10):
        for one in PRIMARIES:
            if _is_near(primary / (one * step), 1.0):
                return one * step
    return None


def _phases(meter: Meter) -> tuple[str, str]:
    """A phase that goes against the others, and one that is not there; '' each."""
    means = {name: statistics.fmean(power.values()) for name, power in (meter.phases or {}).items() if power}
    if len(means) != 3:
        return "", ""
    largest = max(map(abs, means.values()))
    turned = [
        name
        for name, mean in means.items()
        if mean * sum(means.values()) < -0.1 * largest * abs(sum(means.values()))
    ]
    lost = [name for name, mean in means.items() if abs(mean) < 0.01 * largest]
    return (turned[0] if len(turned) == 1 else "", lost[0] if len(lost) == 1 else "")


def _load(mean: float, *, constant: bool) -> str:
    kind = "constant" if constant else "that varies"
    if mean >= 0:
        return (
            f"a load {kind}, of {mean / 1000:.2f} kW in the mean, has no meter"
            if constant
            else (
                f"a load without a meter {kind}, {mean / 1000:.2f} kW in the mean, or more than one meter is wrong"
            )
        )
    if constant:
        return f"a source of {-mean / 1000:.2f} kW has no meter, or a load is counted by two"
    return f"a source without a meter {kind}, {-mean / 1000:.2f} kW in the mean, or a load is counted by two"


def _is_near(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= NEAR * abs(wanted)


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(statistics.fmean(value * value for value in values))


def _mean_size(values: Iterable[float]) -> float:
    return statistics.fmean(abs(value) for value in values)
