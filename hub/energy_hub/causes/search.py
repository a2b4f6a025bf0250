# SPDX-License-Identifier: Apache-2.0
"""What explains the residual of a site best, among a few causes that electricians meet."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from energy_hub.causes import wiring
from energy_hub.causes.fit import (
    NEAR,
    Fit,
    Meter,
    actives,
    is_near,
    means_by_phase,
    reactives,
    rms,
    tells_reactive,
)
from energy_hub.causes.wiring import PHASES, Wiring
from energy_hub.causes.words import load_of, percent, told
from energy_hub.fleet.meters import CONSUMPTION, GENERATION, MAIN

# Quarters of an hour; fewer prove nothing.
LEAST = 24
# A cause is named when what it leaves of the residual (rms) is at most this part of it.
EXPLAINED = 0.15
# And of its mean, where the means alone are known.
EXPLAINED_MEAN = 0.1
# A constant load beside a meter that is wrong is told when it is more than this part of the residual.
BESIDE = 0.2
# A meter whose power hardly varies explains a constant as well as a load does, so it is not accused.
VARIES = 0.1


def explain(
    supplies: Sequence[Meter],
    parts: Sequence[Meter],
    quarters: Sequence[datetime],
    residual: Sequence[float],
    limit: float,
) -> tuple[list[str], str | None]:
    """What explains the residual, the likeliest first, or else what it looks like; and the meter that alone does."""
    load, whole = statistics.fmean(residual), rms(residual)
    level = rms([one - load for one in residual]) / whole
    suspects = [(one, residual) for one in parts]
    if len(supplies) == 1:
        # What the supply's meter lacks acts the other way round.
        suspects.append((supplies[0], [-one for one in residual]))
    if level <= EXPLAINED:
        # A load that hardly varies behind a meter that is wired wrongly.
        wired = [
            fit
            for meter, own in suspects
            for fit in _wired(meter, quarters, own)
            if fit.quarterly and fit.left <= 1.5 * level + 0.05 and not fit.offset
        ]
        wired.sort(key=lambda fit: fit.left)
        return _one_of([*map(told, wired), load_of(load, constant=True)]), None
    fits = [fit for meter, own in suspects for fit in _explained(meter, quarters, own)]
    fits.sort(key=lambda fit: fit.left)
    # The days of many loads are alike, so that a meter seems to explain one that is not there. A cause is not doubted
    # if the meters would agree without it. Of the supply's meter, the others say how much that is.
    sizes = {
        one.name: mean_size([sum(other.power[at] for other in others) for at in quarters])
        for ones, others in ((parts, supplies), (supplies, parts))
        for one in ones
    }
    certain = [fit for fit in fits if fit.left * whole <= limit * sizes[fit.meter.name]]
    if not certain:
        looks = [text for meter, own in suspects for text in _looks(meter, quarters, own)]
        perhaps = [told(fit) for fit in fits if abs(fit.offset) <= BESIDE * whole]
        return _one_of([load_of(load, constant=False), *looks, *perhaps]), None
    best = certain[0]
    # What explains it nearly as well is told, too: nobody should open the wrong cabinet.
    alike = [fit for fit in certain[1:] if fit.left <= 1.5 * best.left + 0.05]
    causes = [told(best)]
    besides = abs(best.offset) > BESIDE * whole
    if besides:
        causes.append(
            "besides, " + load_of(best.offset if best.meter.role != MAIN else -best.offset, constant=True)
        )
    causes += [f"or else: {told(fit)}" for fit in alike]
    alone = not besides and all(fit.meter is best.meter for fit in alike)
    return causes, best.meter.name if alone else None


def _one_of(causes: Sequence[str]) -> list[str]:
    return [*causes[:1], *(f"or else: {cause}" for cause in causes[1:])]


def _explained(meter: Meter, quarters: Sequence[datetime], own: Sequence[float]) -> list[Fit]:
    """How the meter itself explains `own`, what it lacks in each quarter."""
    factor = _factor(meter, quarters, own)
    if factor is None or factor.left > EXPLAINED:
        return [fit for fit in _wired(meter, quarters, own) if fit.quarterly]
    # That the meter is wrong is seen by the quarter; for how it is wrong, the means of its phases will do.
    wired = [fit for fit in _wired(meter, quarters, own) if fit.quarterly] or [
        dataclasses.replace(fit, left=factor.left, offset=factor.offset)
        for fit in _wired(meter, quarters, [one - factor.offset for one in own])
        if not fit.quarterly
    ]
    if not wired or wired[0].left > 1.5 * factor.left + 0.05:
        return [factor]
    # A wiring has nothing in it that could be fitted, so it counts more than a factor; but not than the simplest one.
    return [factor, *wired] if is_near(factor.factor, -1.0) else wired


def _factor(meter: Meter, quarters: Sequence[datetime], own: Sequence[float]) -> Fit | None:
    power = [meter.power[at] for at in quarters]
    if statistics.pstdev(power) <= VARIES * rms(power):
        return None
    whole = rms(own)
    slope, offset = statistics.linear_regression(power, own)
    left = rms([r - slope * p - offset for r, p in zip(own, power, strict=True)]) / whole
    # Where it explains as much without a constant, there is none.
    alone = sum(r * p for r, p in zip(own, power, strict=True)) / sum(p * p for p in power)
    without = rms([r - alone * p for r, p in zip(own, power, strict=True)]) / whole
    if without <= 1.1 * left + 0.02:
        slope, offset, left = alone, 0.0, without
    if meter.role == MAIN and abs(1 + slope) <= NEAR:
        # The other meters show nothing, and that is no fault of the supply's.
        return None
    return Fit(meter, offset, left, 1 + slope)


@dataclass(frozen=True)
class _Span:
    """What a meter shows and lacks at the same times, and its points then."""

    power: list[float]
    own: list[float]
    points: list[list[float]]

    @property
    def needed(self) -> list[float]:
        return [power + own for power, own in zip(self.power, self.own, strict=True)]

    @property
    def signs(self) -> list[float]:
        return [math.copysign(1.0, one) if one else 0.0 for one in self.needed]

    def shown(self, count: int) -> list[list[complex]]:
        """The first points as active powers, the others as the reactive ones to them, where there are any."""
        nothing = [0.0] * len(self.own)
        return [
            [complex(p, q) for p, q in zip(active, reactive, strict=True)]
            for active, reactive in zip(
                self.points[:count], self.points[count:] or [nothing] * count, strict=True
            )
        ]


_Over = Callable[[Sequence[Mapping[datetime, float]]], _Span]


def _wired(meter: Meter, quarters: Sequence[datetime], own: Sequence[float]) -> list[Fit]:
    """By which wirings a meter explains what it lacks, the best first."""

    def over(points: Sequence[Mapping[datetime, float]]) -> _Span:
        at = [number for number, start in enumerate(quarters) if all(start in point for point in points)]
        if len(at) < LEAST:
            return _means(meter, quarters, own, points)
        return _Span(
            [meter.power[quarters[number]] for number in at],
            [own[number] for number in at],
            [[point[quarters[number]] for number in at] for point in points],
        )

    return _best(_tried(meter, over) or _pair(meter, over))


def _means(
    meter: Meter,
    quarters: Sequence[datetime],
    own: Sequence[float],
    points: Sequence[Mapping[datetime, float]],
) -> _Span:
    """The means alone, which is all that the glance at the fleet asks of phases."""
    return _Span(
        [statistics.fmean(meter.power[at] for at in quarters)],
        [statistics.fmean(own)],
        [[statistics.fmean(point.values())] for point in points],
    )


def _best(fits: list[Fit]) -> list[Fit]:
    fits.sort(key=lambda fit: fit.left)
    return [fit for fit in fits if fit.left <= 1.5 * fits[0].left + 0.05]


def _tried(meter: Meter, over: _Over) -> list[Fit]:
    """All wirings that what the meter tells can be held against."""
    active, reactive = actives(meter), reactives(meter)
    total = (meter.reactive or {}).get("", {})
    attempts: list[tuple[Iterable[Wiring], _Span, int]] = []
    if active and reactive:
        attempts = [(wiring.BY_ALL, over([*active, *reactive]), 3)]
    else:
        if active:
            attempts.append((wiring.BY_ACTIVE, over(active), 3))
        if total:
            attempts.append((wiring.BY_TOTALS, over([meter.power, total]), 1))
    found = []
    for wirings, span, count in attempts:
        shown = span.shown(count)
        for one in wirings:
            if one.is_plausible(shown, span.signs):
                found += _held(meter, span, one.missing(shown), one.what)
    return found


def _held(meter: Meter, span: _Span, missing: Sequence[float], what: str) -> list[Fit]:
    """The fit of what a wiring hides against what the meter lacks, if it is one."""
    whole, quarterly = rms(span.own), len(span.own) >= LEAST
    rest = [own - hidden for own, hidden in zip(span.own, missing, strict=True)]
    without = rms(rest) / whole if whole else 1.0
    offset = statistics.fmean(rest)
    left = rms([one - offset for one in rest])
    needed = span.needed
    alone = without <= (EXPLAINED if quarterly else EXPLAINED_MEAN)
    if not alone:
        # With a constant load beside it: then it has to explain all that varies.
        mean = statistics.fmean(span.own)
        if not quarterly or left > EXPLAINED * rms([one - mean for one in span.own]):
            return []
        needed = [one - offset for one in needed]
    size = sum(one * one for one in needed)
    share = sum(s * n for s, n in zip(span.power, needed, strict=True)) / size if size else 0.0
    likely = f"shows {percent(share)} of what it should: likely {what}"
    if alone:
        return [Fit(meter, 0.0, without, likely=likely, quarterly=quarterly)]
    return [Fit(meter, offset, left / whole, likely=likely)]


def _pair(meter: Meter, over: _Over) -> list[Fit]:
    """Two currents that are exchanged, by the active powers of the phases alone."""
    active = actives(meter)
    if not active:
        return []
    span = over(active)
    found = wiring.third_of_a_pair(span.points, span.needed, span.signs)
    if found is None:
        return []
    third, whole = found
    missing = [whole * one - shown for one, shown in zip(span.points[third], span.power, strict=True)]
    return _held(meter, span, missing, wiring.exchanged(PHASES[third]))


def _looks(meter: Meter, quarters: Sequence[datetime], own: Sequence[float]) -> list[str]:
    """What may be wrong with a meter whose own figures are odd, where nothing explains it quarter by quarter."""
    fits = [fit for fit in _wired(meter, quarters, own) if not fit.quarterly]
    if not fits and not tells_reactive(meter):
        fits = _pair(meter, lambda points: _means(meter, quarters, own, points))
    if fits or tells_reactive(meter):
        return [told(fit) for fit in fits]
    power = [meter.power[at] for at in quarters]
    needed = [shown + lacks for shown, lacks in zip(power, own, strict=True)]
    if meter.role != MAIN and not actives(meter) and rms(power) <= 0.1 * rms(needed):
        return [
            f"{meter.name} shows next to nothing: two of its current transformers may be exchanged, or all open"
        ]
    usual = {CONSUMPTION: 1.0, GENERATION: -1.0}.get(meter.role)
    if usual is None or any(usual * mean > 0 for mean in means_by_phase(meter).values()):
        return []
    shown, should = usual * statistics.fmean(power), usual * statistics.fmean(needed)
    # Moved on by one phase, down to a power factor of 0.7.
    if not -1.4 * should <= shown < -0.02 * should:
        return []
    way, behind = ("gives", "source") if usual > 0 else ("takes", "load")
    return [
        (
            f"{meter.name} {way} power, and its role is {meter.role}: likely {wiring.MOVED},"
            f" or its current transformers are turned round, or there is a {behind} behind it"
        )
    ]


def mean_size(values: Iterable[float]) -> float:
    return statistics.fmean(abs(value) for value in values)
