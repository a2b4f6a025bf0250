# SPDX-License-Identifier: Apache-2.0
"""A meter with what it has measured, and how it may be wrong."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from energy_hub.causes.wiring import PHASES

# How near a factor has to be to one that has a name to be called so.
NEAR = 0.03


@dataclass(frozen=True)
class Meter:
    """A meter with its mean active power by quarter of an hour, in W; `phases` the same by phase where it is known.
    `reactive` is its reactive power by phase, in var, and that of all phases by "".

    Those two may have the mean of the whole span alone.
    """

    name: str
    role: str
    power: Mapping[datetime, float]
    ct_ratio: str | None = None
    phases: Mapping[str, Mapping[datetime, float]] | None = None
    reactive: Mapping[str, Mapping[datetime, float]] | None = None


@dataclass(frozen=True)
class Fit:
    """How a meter is wrong: by a factor, with which what it shows has to be multiplied, or by its wiring, in words.

    `left` is the part of the residual (rms) that remains, `offset` a constant load. `quarterly` says whether it
    explains each quarter of an hour, or the mean alone.
    """

    meter: Meter
    offset: float
    left: float
    factor: float = 1.0
    likely: str = ""
    quarterly: bool = True


def actives(meter: Meter) -> list[Mapping[datetime, float]]:
    """By phase, or nothing."""
    found = [(meter.phases or {}).get(phase, {}) for phase in PHASES]
    return found if all(found) else []


def reactives(meter: Meter) -> list[Mapping[datetime, float]]:
    found = [(meter.reactive or {}).get(phase, {}) for phase in PHASES]
    return found if all(found) else []


def tells_reactive(meter: Meter) -> bool:
    """Whether it tells enough to know that its currents are moved on to other phases."""
    return bool(reactives(meter) and actives(meter)) or bool((meter.reactive or {}).get(""))


def means_by_phase(meter: Meter) -> dict[str, float]:
    return dict(zip(PHASES, (statistics.fmean(one.values()) for one in actives(meter)), strict=False))


def is_near(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= NEAR * abs(wanted)


def rms(values: Sequence[float]) -> float:
    return math.sqrt(statistics.fmean(value * value for value in values))
