# SPDX-License-Identifier: Apache-2.0
"""How a cause is told, for somebody who is about to open a cabinet."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from energy_hub.causes import wiring
from energy_hub.causes.fit import NEAR, Fit, is_near, means_by_phase, tells_reactive
from energy_hub.fleet.meters import GENERATION

# Rated primary currents of current transformers in A, and their decimal multiples: IEC 61869-2:2012, 5.201.
PRIMARIES = (10.0, 12.5, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 75.0)
# And their secondary currents, likewise 5.202.
SECONDARIES = (5.0, 1.0)
# By how much a scale is wrong, if it is: a point in the wrong place, or k in place of none.
SCALES = (10, 100, 1000)


def told(fit: Fit) -> str:
    name, factor = fit.meter.name, fit.factor
    if fit.likely:
        return f"{name} {fit.likely}"
    if abs(factor) <= NEAR and not any(is_near(factor, 1 / times) for times in SCALES):
        return f"{name} counts what another meter counts, too, or what is not behind the supply's meter"
    text = f"{name} shows {percent(1 / factor)} of what it should"
    ratio = _ratio(fit.meter.ct_ratio, factor) if fit.meter.ct_ratio else "its CT ratio or its scale is wrong"
    by_phase = means_by_phase(fit.meter)
    turned, lost = _phases(by_phase, factor)
    moves = not tells_reactive(fit.meter)
    if is_near(factor, -1.0):
        # At a power factor of 0.87 they count the wrong way exactly, too. No inverter runs so.
        other = "" if not moves or fit.meter.role == GENERATION else f", or {wiring.MOVED}"
        return f"{name} counts the wrong way: likely its current transformers are turned round, or its sign is{other}"
    if turned:
        return f"{text}: likely the current transformer of {turned} is turned round, or on another phase's voltage"
    if lost:
        return f"{text}: likely {lost} is not measured: a fuse of its voltage, or an open current transformer"
    if factor < 0:
        likely = [wiring.MOVED] if moves else []
        if not by_phase and is_near(factor, -3.0):
            likely.insert(0, "the current transformers of two phases are turned round")
        return f"{text}: likely {', or '.join([*likely, f'all current transformers are turned round and {ratio}'])}"
    if not by_phase and is_near(factor, 3.0):
        return f"{text}: likely one phase's current transformer is turned round, or {ratio}"
    return f"{text}: likely {ratio}"


def load_of(mean: float, *, constant: bool) -> str:
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


def _ratio(configured: str, factor: float) -> str:
    """What the CT ratio is, or was meant to be: all that count the same and that a plate may say."""
    match = re.fullmatch(r"([0-9.]+):([0-9.]+)", configured)
    if match is None or float(match[2]) == 0:
        return f"its CT ratio is not {configured}"
    primary, secondary, factor = float(match[1]), float(match[2]), abs(factor)
    ratio = primary / secondary * factor
    # That one of the two figures is wrong is likelier than both.
    found = [
        f"{primary:g}:{other:g}"
        for other in SECONDARIES
        if other != secondary and is_near(ratio * other, primary)
    ]
    likely = _standard(ratio * secondary)
    if likely is not None and likely != primary:
        found.append(f"{likely:g}:{secondary:g}")
    if not found:
        both = [(_standard(ratio * other), other) for other in SECONDARIES if other != secondary]
        found = [f"{likely:g}:{other:g}" for likely, other in both if likely is not None]
    text = f"its CT ratio is {' or '.join(found)} and not {configured}" if found else ""
    for times in SCALES:
        if is_near(factor, times) or is_near(factor, 1 / times):
            text += f"{', or ' if text else ''}its scale is {times} times too {'small' if factor > 1 else 'large'}"
    return text or f"its CT ratio is not {configured}, but about {primary * factor:.0f}:{secondary:g}"


def _standard(primary: float) -> float | None:
    """The rated primary current that is meant, in A. There are none beyond these."""
    if not 1 <= primary <= 30_000:
        return None
    scale = 10.0 ** math.floor(math.log10(primary / 10))
    for step in (scale, scale * 10):
        for one in PRIMARIES:
            if is_near(primary / (one * step), 1.0):
                return one * step
    return None


def _phases(means: Mapping[str, float], factor: float) -> tuple[str, str]:
    """A phase that goes against the others, and one that is not there; '' each.

    Each only if it then lacks about what the others have: a source on one phase goes against them too, and a phase may
    have no load.
    """
    if not means:
        return "", ""
    whole = sum(means.values())
    largest = max(map(abs, means.values()))
    turned = [name for name, mean in means.items() if mean * whole < -0.1 * largest * abs(whole)]
    lost = [name for name, mean in means.items() if abs(mean) < 0.01 * largest]
    if len(turned) == 1:
        others = whole - means[turned[0]]
        turned = turned if 0.6 <= (factor * whole - others) / (others / 2) <= 1.7 else []
    if len(lost) == 1 and whole:
        lost = lost if 0.6 <= (factor * whole - whole) / (whole / 2) <= 1.7 else []
    return (turned[0] if len(turned) == 1 else "", lost[0] if len(lost) == 1 else "")


def percent(part: float) -> str:
    return f"{round(100 * part)} %"
