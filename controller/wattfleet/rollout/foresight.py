# SPDX-License-Identifier: Apache-2.0
"""Which sites' gates are going to be inconclusive whatever happens: their meters are asked too seldom for the soak."""

from __future__ import annotations

import math
from collections.abc import Iterable

from wattfleet.rollout.gate_settings import GateSettings
from wattfleet.rollout.model import Site
from wattfleet.rollout.telemetry import ARRIVAL, SPENT, spent

# The checks whose samples are polls of meters.
OF_POLLS = ("readings", "nulls", "uncertain")


def doubts(sites: Iterable[Site], soak: float, gates: GateSettings) -> dict[str, str]:
    """Site -> why a rollout with a soak of so many s would wait for a person there, and what would help.

    The delay of a site's readings is not known beforehand, and taken for none: who is not named may still come short.
    """
    if not any(gates[name].enabled and not gates[name].dry_run for name in OF_POLLS):
        return {}
    judged = soak - sum(spent(soak, gates.settle, 0))
    found = {}
    for site in sites:
        if site.poll_rate is None or (polls := site.poll_rate * judged) >= gates.samples:
            continue
        found[site.name] = (
            f"about {polls:.0f} polls in the {judged:.0f} s of its soak that are judged, and its gate needs "
            f"{gates.samples}: {_way_out(site.poll_rate, gates)}"
        )
    return found


def _way_out(rate: float, gates: GateSettings) -> str:
    """The shortest soak with samples enough. What is spent at either end is `settle` (or ARRIVAL), or a part of the
    soak (SPENT) where that is less."""
    if not rate:
        return "none of its meters is on a bus"
    needed = gates.samples / rate
    soak = math.ceil(
        min(
            needed + gates.settle + ARRIVAL,
            (needed + gates.settle) / (1 - SPENT),
            (needed + ARRIVAL) / (1 - SPENT),
            needed / (1 - 2 * SPENT),
        )
    )
    return f"a soak (rollout.soak) of {soak} s has them"
