# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Faults of a site file and of a fleet file that concern rollouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .findings import Finding, Steps, dig, text_at

# Of a collector's source buses where nobody says; in s.
BUSES_INTERVAL = 60
# Of a soak a half is judged at the least: for so many intervals it sees what the buses count twice.
INTERVALS_IN_A_SOAK = 4


def fleet_findings(fleet: Mapping[str, Any]) -> Iterator[Finding]:
    """Faults of the limits, of the nodes and of the window that sites take over."""
    yield from _window(dig(fleet, "defaults", "maintenance"), ("defaults", "maintenance"))
    offline, failed = dig(fleet, "rollout", "max_offline"), dig(fleet, "rollout", "max_failed")
    if isinstance(offline, int) and isinstance(failed, int) and failed >= offline:
        yield Finding(
            ("rollout", "max_failed"),
            f"found {failed} with max_offline {offline}, expected less: sites that failed count as offline",
        )
    yield from _soak(fleet)
    names: dict[str, int] = {}
    nodes = dig(fleet, "rollout", "nodes")
    for index, node in enumerate(nodes if isinstance(nodes, list) else ()):
        name = text_at(node, "name")
        if name is not None and names.setdefault(name, index) != index:
            yield Finding(
                ("rollout", "nodes", index, "name"),
                f'found "{name}", as in nodes[{names[name]}], expected a name of its own',
            )


def _soak(fleet: Mapping[str, Any]) -> Iterator[Finding]:
    """A soak in which the gates over errors of the buses would see none of their counters, and decide nothing."""
    soak = dig(fleet, "rollout", "soak")
    interval = dig(fleet, "defaults", "collector", "sources", "buses", "interval") or BUSES_INTERVAL
    decides = [
        gate
        for gate in ("crc_errors", "timeouts")
        if dig(fleet, "gates", gate, "enabled") is not False and not dig(fleet, "gates", gate, "dry_run")
    ]
    if not isinstance(soak, int | float) or not isinstance(interval, int | float) or not decides:
        return
    if soak < INTERVALS_IN_A_SOAK * interval:
        yield Finding(
            ("rollout", "soak"),
            f"found {soak:g}, expected at least {INTERVALS_IN_A_SOAK * interval:g}: what the buses count is told every "
            f"{interval:g} s (collector.sources.buses), and {' and '.join(decides)} of the gates need it",
        )


def site_findings(site: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[Finding]:
    """Faults of a site's own keys; those of the fleet's defaults are told there."""
    if site.get("maintenance") != defaults.get("maintenance"):
        yield from _window(site.get("maintenance"), ("maintenance",))


def _window(window: object, place: Steps) -> Iterator[Finding]:
    start, end = text_at(window, "start"), text_at(window, "end")
    if start is not None and start == end:
        yield Finding(
            (*place, "end"),
            f'found "{end}", equal to start, expected another time; for a site that may be interrupted at any '
            "time leave maintenance out",
        )
