# SPDX-License-Identifier: Apache-2.0
"""Holds a site's supply meter against the sum of its other meters, and names the likely cause where they differ.

All powers are seen from the site: import positive, generation negative, a charging battery positive. So

    supply = consumption + generation + storage + residual

and the residual of each quarter of an hour should be about zero. What explains it best is looked for among a few
causes that electricians meet (`causes/`), the simpler one first: a load without a meter, a meter that is wrong by a
factor (its CT ratio, or a phase lost), one whose currents and voltages do not belong together, a load and a meter. A
cause is named only where it takes away most of the residual, and "likely", because another one may look the same; where
one does that can be thought of, it is named, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from energy_hub.causes.fit import Meter
from energy_hub.causes.search import LEAST, explain, mean_size
from energy_hub.causes.wiring import PHASES
from energy_hub.fleet.meters import (
    CONSUMPTION,
    GENERATION,
    MAIN,
    REACTIVE,
    STORAGE,
    described_meters,
    holds_from,
    power_point,
    role_of,
)

PARTS = (CONSUMPTION, GENERATION, STORAGE)
# Of the supply's mean absolute power: within this the meters agree. Classes of meters and CTs add up to about so much.
LIMIT = 0.02


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
        earliest = max(since, holds_from(begins, listed, until))
        powers: dict[str, dict[datetime, float]] = {}
        for point, start, power in connection.execute(
            "SELECT p.name, q.start, q.sum / (q.good + q.uncertain)"
            " FROM site s JOIN point p ON p.site = s.id JOIN rollup_quarter q ON q.point = p.id"
            " WHERE s.name = %s AND p.name = ANY(%s) AND q.start >= %s AND q.start < %s AND q.sum IS NOT NULL",
            (name, [*map(power_of, listed), *phases_of(listed)], earliest, until),
        ):
            powers.setdefault(point, {})[start] = power
        verdicts[name] = reconcile(measured(listed, powers), limit)
    return verdicts


def power_of(one: Mapping[str, Any], phase: str = "") -> str:
    """The full name of the point of a meter's power, or of a phase's."""
    return f"{one['name']}/{power_point(one, f'_{phase}' if phase else '')}"


def reactive_of(one: Mapping[str, Any], phase: str = "") -> str:
    """Likewise of its reactive power."""
    return f"{one['name']}/{power_point(one, f'_{phase}' if phase else '', REACTIVE)}"


def phases_of(listed: Iterable[Mapping[str, Any]]) -> list[str]:
    """Likewise of all phases of all meters, and of their reactive power."""
    return [
        name
        for one in listed
        for name in (
            *(power_of(one, phase) for phase in PHASES),
            *(reactive_of(one, phase) for phase in ("", *PHASES)),
        )
    ]


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
            {
                phase: powers[reactive_of(one, phase)]
                for phase in ("", *PHASES)
                if reactive_of(one, phase) in powers
            },
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
    size = mean_size(supply)
    share = mean_size(residual) / size if size else None
    differs = any(residual) if share is None else share > limit
    causes, wrong = explain(supplies, parts, quarters, residual, limit) if differs else ([], None)
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
