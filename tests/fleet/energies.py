# SPDX-License-Identifier: Apache-2.0
"""The hub's energies against what the simulators have counted: the fleet's totals, and each site's day at a glance."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from wattfleet.demo.totals import RESOLUTION
from wattfleet_lab.meters import truth

from tests.fleet.fleet import Fleet

Meter = tuple[str, str]  # site, meter
Span = tuple[float, float]
MAIN_PORT = 5432

_ENDS = (
    "SELECT s.name, split_part(p.name, '/', 1), extract(epoch FROM min(q.first_time)),"
    " extract(epoch FROM max(q.last_time)) FROM {} q JOIN point p ON p.id = q.point"
    " JOIN site s ON s.id = p.site LEFT JOIN rollup_zone z ON z.site = s.id"
    " WHERE s.here AND p.name ~ '/energy_(import|export)$' AND q.last_time IS NOT NULL{} GROUP BY 1, 2"
)
# Unix times of the first and the last reading of a meter's counters: in all, and of the site's own day.
_ALL = _ENDS.format("rollup_quarter", "")
_TODAY = _ENDS.format(
    "rollup_day", " AND q.start = date_trunc('day', now() AT TIME ZONE z.zone) AT TIME ZONE z.zone"
)


def held_against_the_simulators(fleet: Fleet, ports: Iterable[int] = (MAIN_PORT,)) -> None:
    """`ports` are those of the hub's databases. Raises AssertionError."""
    description = json.loads(fleet.state.meters.read_text())
    _totals(fleet, description, list(ports))
    _days(fleet, description, list(ports))


def _totals(fleet: Fleet, description: dict[str, Any], ports: list[int]) -> None:
    now = datetime.now(UTC)
    span = [
        "--since",
        (now - timedelta(days=1)).isoformat(),
        "--until",
        (now + timedelta(days=1)).isoformat(),
    ]
    said, counted = _asked(fleet, description, _ALL, ports, "totals", *span, "--json")
    found = said["roles"]
    bounds: dict[str, Span] = {}
    for site, content in fleet.sites.items():
        for meter in content["meters"]:
            role = meter.get("role", "consumption")
            if role != "process":
                bounds[role] = _added(bounds.get(role, (0.0, 0.0)), counted[site, meter["name"]])
    assert set(found) == set(bounds)
    for role, (low, high) in bounds.items():
        total = found[role]["energy_kwh"]
        print(f"{role}: {total:.2f} kWh at the hub, {low:.2f} to {high:.2f} kWh at the simulators")
        assert low <= total <= high, f"{role}: {total} kWh at the hub, {low} to {high} kWh at the simulators"
        assert found[role]["unknown"] == 0
    # What is asked is not lost in what may be: the supply has counted more than that.
    assert abs(found["main"]["energy_kwh"]) > bounds["main"][1] - bounds["main"][0]


def _days(fleet: Fleet, description: dict[str, Any], ports: list[int]) -> None:
    said, counted = _asked(fleet, description, _TODAY, ports, "fleet")
    found = said["sites"]
    for site, content in fleet.sites.items():
        by_role: dict[str, Span] = {"generation": (0.0, 0.0), "storage": (0.0, 0.0)}
        for meter in content["meters"]:
            role = meter.get("role", "consumption")
            if role != "process":
                by_role[role] = _added(by_role.get(role, (0.0, 0.0)), counted[site, meter["name"]])
        own = _added(by_role["generation"], by_role["storage"])
        if "main" in by_role:
            net = by_role["main"]
            load = (net[0] - own[1], net[1] - own[0])
        else:
            load = by_role["consumption"]
            net = _added(load, own)
        known = found[site]["energy_kwh"]
        for name, (low, high) in (by_role | {"load": load, "net": net}).items():
            if name in known:
                assert low <= known[name] <= high, (
                    f"{site}: {name} of today: {known[name]} kWh at the hub, {low} to {high} at the simulators"
                )
        print(f"{site}: {known} kWh of today, as the simulators have it")


def _asked(
    fleet: Fleet, description: dict[str, Any], question: str, ports: list[int], *command: str
) -> tuple[dict[str, Any], dict[Meter, Span]]:
    """What a command of the hub says, and what the meters have counted then. A site's day may begin meanwhile."""
    meters = {
        (site, meter["name"])
        for site, content in fleet.sites.items()
        for meter in content["meters"]
        if meter.get("role") != "process"
    }
    for _ in range(10):
        before = _ends(fleet, question, ports)
        said = json.loads(fleet.hub.command(*command))
        after = _ends(fleet, question, ports)
        if all(meter in before and before[meter][0] == after[meter][0] for meter in meters):
            return said, _counted(description, before, after)
        time.sleep(30)
    raise AssertionError(f"the hub has no counters of {sorted(meters - before.keys())}")


def _ends(fleet: Fleet, question: str, ports: list[int]) -> dict[Meter, Span]:
    rows: list[list[str]] = []
    for port in ports:
        said = fleet.ssh(
            "hub", f"sudo -u postgres psql -XAtq --port={port} energy -c {shlex.quote(question)}"
        )
        rows += [line.split("|") for line in said.splitlines()]
    return {(site, meter): (float(first), float(last)) for site, meter, first, last in rows}


def _counted(
    description: dict[str, Any], before: Mapping[Meter, Span], after: Mapping[Meter, Span]
) -> dict[Meter, Span]:
    """kWh that each meter has counted from its first reading to its last, taken less given: what it may have been at
    a time between two looks."""

    def net(meter: Meter, at: float) -> float:
        true = truth.totals(description, at)[meter[0]][meter[1]]
        return float(true["energy_import"] - true["energy_export"]) / 1000

    # Import and export, at both ends of the span.
    slack = 4 * RESOLUTION / 1000
    found: dict[Meter, Span] = {}
    for meter, (first, last) in before.items():
        ends = [net(meter, at) for at in (last, after[meter][1])]
        begin = net(meter, first)
        found[meter] = min(ends) - begin - slack, max(ends) - begin + slack
    return found


def _added(one: Span, other: Span) -> Span:
    return one[0] + other[0], one[1] + other[1]
