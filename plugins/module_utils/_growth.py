# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""How much counters grew between two looks, and which of them grew more than they may."""

from __future__ import annotations

import typing as t

# kind ("buses", "meters", "devices", "links") -> name -> counter -> value
Counters = t.Dict[str, t.Dict[str, t.Dict[str, int]]]


def growth(before: t.Mapping[str, t.Any], after: t.Mapping[str, t.Any]) -> Counters:
    """The growth of every counter that both looks know.

    A counter that went backwards was reset in between (a restart, a power failure, or a 16-bit counter that
    wrapped); its growth since then is at least its present value, and that is what counts.
    """
    grown: Counters = {}
    for kind, names in after.items():
        for name, counters in names.items():
            earlier = (before.get(kind) or {}).get(name)
            if not isinstance(earlier, dict):
                continue
            grown.setdefault(kind, {})[name] = {
                counter: value - earlier[counter] if value >= earlier[counter] else value
                for counter, value in counters.items()
                if isinstance(earlier.get(counter), int)
            }
    return grown


def exceeded(grown: Counters, watched: t.Iterable[str], limit: int) -> list[dict[str, t.Any]]:
    """The watched counters that grew by more than `limit`: kind, name, counter, growth, limit."""
    watched = list(watched)
    return [
        {"kind": kind, "name": name, "counter": counter, "growth": counters[counter], "limit": limit}
        for kind, names in sorted(grown.items())
        for name, counters in sorted(names.items())
        for counter in watched
        if counters.get(counter, 0) > limit
    ]
