# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Faults of a fleet file that concern the hub's databases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .findings import Finding, dig

# The cluster main, which PostgreSQL brings along.
MAIN_PORT = 5432


def fleet_findings(fleet: Mapping[str, Any]) -> Iterator[Finding]:
    """Databases that could not be told apart."""
    databases = dig(fleet, "hub", "databases")
    if not isinstance(databases, list):
        return
    seen: dict[tuple[str, Any], str] = {("port", MAIN_PORT): "main"}
    for index, database in enumerate(databases):
        for key, kind in (("name", str), ("port", int)):
            value = dig(database, key)
            if not isinstance(value, kind):
                continue
            place = f"databases[{index}]"
            first = seen.setdefault((key, value), place)
            if first != place:
                shown = f'"{value}"' if kind is str else value
                yield Finding(
                    ("hub", "databases", index, key), f"found {shown}, as in {first}, expected another"
                )
