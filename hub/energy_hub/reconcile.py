# SPDX-License-Identifier: Apache-2.0
"""Holds a site's supply meter against the sum of its other meters, and names the likely cause where they differ.

All powers are seen from the site: import positive, generation negative, a charging battery positive. So

    supply = consumption + generation + storage + residual

and the residual of each quarter of an hour should be about zero. What explains it best is looked for among a few
causes that electricians meet, the simpler one first: a load without a meter, a meter that is wrong by a factor
(its CT ratio, or a phase lost), one whose currents and voltages do not belong together (`wiring`), a load and a meter.
A cause is named only where it takes away most of the residual, and "likely", because another one may look the same;
where one does that can be thought of, it is named, too.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from energy_hub import wiring
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
from energy_hub.wiring import PHASES, Wiring

PARTS = (CONSUMPTION, GENERATION, STORAGE)
# Of the supply's mean absolute power: within this the meters agree. Classes of meters and CTs add up to about so much.
LIMIT = 0.02
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
# Rated primary currents of current transformers in A, and their decimal multiples: IEC 61869-2:2012, 5.201.
PRIMARIES = (10.0, 12.5, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 75.0)
# And their secondary currents, likewise 5.202.
SECONDARIES = (5.0, 1.0)
# By how much a scale is wrong, if it is: a point in the wrong place, or k in place of none.
SCALES = (10, 100, 1000)
# How near a factor has to be to one of these to be called so.
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
    size = _mean_size(supply)
    share = _mean_size(residual) / size if size else None
    differs = any(residual) if share is None else share > limit
    causes, wrong = _causes(supplies, parts, quarters, residual, limit) if differs else ([], None)
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
    supplies: Sequence[Meter],
    parts: Sequence[Meter],
    quarters: Sequence[datetime],
    residual: Sequence[float],
    limit: float,
) -> tuple[list[str], str | None]:
    """What explains the residual, the likeliest first, or else what it looks like; and the meter that alone does."""
    load, whole = statistics.fmean(residual), _rms(residual)
    level = _rms([one - load for one in residual]) / whole
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
        return _one_of([*map(_told, wired), _load(load, constant=True)]), None
    fits = [fit for meter, own in suspects for fit in _explained(meter, quarters, own)]
    fits.sort(key=lambda fit: fit.left)
    # The days of many loads are alike, so that a meter seems to explain one that is not there. A cause is not doubted
    # if the meters would agree without it. Of the supply's meter, the others say how much that is.
    sizes = {
        one.name: _mean_size([sum(other.power[at] for other in others) for at in quarters])
        for ones, others in ((parts, supplies), (supplies, parts))
        for one in ones
    }
    certain = [fit for fit in fits if fit.left * whole <= limit * sizes[fit.meter.name]]
    if not certain:
        looks = [text for meter, own in suspects for text in _looks(meter, quarters, own)]
        perhaps = [_told(fit) for fit in fits if abs(fit.offset) <= BESIDE * whole]
        return _one_of([_load(load, constant=False), *looks, *perhaps]), None
    best = certain[0]
    # What explains it nearly as well is told, too: nobody should open the wrong cabinet.
    alike = [fit for fit in certain[1:] if fit.left <= 1.5 * best.left + 0.05]
    causes = [_told(best)]
    besides = abs(best.offset) > BESIDE * whole
    if besides:
        causes.append(
            "besides, " + _load(best.offset if best.meter.role != MAIN else -best.offset, constant=True)
        )
    causes += [f"or else: {_told(fit)}" for fit in alike]
    alone = not besides and all(fit.meter is best.meter for fit in alike)
    return causes, best.meter.name if alone else None


@dataclass(frozen=True)
class _Fit:
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


def _one_of(causes: Sequence[str]) -> list[str]:
    return [*causes[:1], *(f"or else: {cause}" for cause in causes[1:])]


def _explained(meter: Meter, quarters: Sequence[datetime], own: Sequence[float]) -> list[_Fit]:
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
    return [factor, *wired] if _is_near(factor.factor, -1.0) else wired


def _factor(meter: Meter, quarters: Sequence[datetime], own: Sequence[float]) -> _Fit | None:
    power = [meter.power[at] for at in quarters]
    if statistics.pstdev(power) <= VARIES * _rms(power):
        return None
    whole = _rms(own)
    slope, offset = statistics.linear_regression(power, own)
    left = _rms([r - slope * p - offset for r, p in zip(own, power, strict=True)]) / whole
    # Where it explains as much without a constant, there is none.
    alone = sum(r * p for r, p in zip(own, power, strict=True)) / sum(p * p for p in power)
    without = _rms([r - alone * p for r, p in zip(own, power, strict=True)]) / whole
    if without <= 1.1 * left + 0.02:
        slope, offset, left = alone, 0.0, without
    if meter.role == MAIN and abs(1 + slope) <= NEAR:
        # The other meters show nothing, and that is no fault of the supply's.
        return None
    return _Fit(meter, offset, left, 1 + slope)


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


def _wired(meter: Meter, quarters: Sequence[datetime], own: Sequence[float]) -> list[_Fit]:
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


def _best(fits: list[_Fit]) -> list[_Fit]:
    fits.sort(key=lambda fit: fit.left)
    return [fit for fit in fits if fit.left <= 1.5 * fits[0].left + 0.05]


def _tried(meter: Meter, over: _Over) -> list[_Fit]:
    """All wirings that what the meter tells can be held against."""
    active, reactive = _active(meter), _reactive(meter)
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


def _held(meter: Meter, span: _Span, missing: Sequence[float], what: str) -> list[_Fit]:
    """The fit of what a wiring hides against what the meter lacks, if it is one."""
    whole, quarterly = _rms(span.own), len(span.own) >= LEAST
    rest = [own - hidden for own, hidden in zip(span.own, missing, strict=True)]
    without = _rms(rest) / whole if whole else 1.0
    offset = statistics.fmean(rest)
    left = _rms([one - offset for one in rest])
    needed = span.needed
    alone = without <= (EXPLAINED if quarterly else EXPLAINED_MEAN)
    if not alone:
        # With a constant load beside it: then it has to explain all that varies.
        mean = statistics.fmean(span.own)
        if not quarterly or left > EXPLAINED * _rms([one - mean for one in span.own]):
            return []
        needed = [one - offset for one in needed]
    size = sum(one * one for one in needed)
    share = sum(s * n for s, n in zip(span.power, needed, strict=True)) / size if size else 0.0
    likely = f"shows {_percent(share)} of what it should: likely {what}"
    if alone:
        return [_Fit(meter, 0.0, without, likely=likely, quarterly=quarterly)]
    return [_Fit(meter, offset, left / whole, likely=likely)]


def _pair(meter: Meter, over: _Over) -> list[_Fit]:
    """Two currents that are exchanged, by the active powers of the phases alone."""
    active = _active(meter)
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
    if not fits and not _tells_reactive(meter):
        fits = _pair(meter, lambda points: _means(meter, quarters, own, points))
    if fits or _tells_reactive(meter):
        return [_told(fit) for fit in fits]
    power = [meter.power[at] for at in quarters]
    needed = [shown + lacks for shown, lacks in zip(power, own, strict=True)]
    if meter.role != MAIN and not _active(meter) and _rms(power) <= 0.1 * _rms(needed):
        return [
            f"{meter.name} shows next to nothing: two of its current transformers may be exchanged, or all open"
        ]
    usual = {CONSUMPTION: 1.0, GENERATION: -1.0}.get(meter.role)
    if usual is None or any(usual * mean > 0 for mean in _by_phase(meter).values()):
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


def _told(fit: _Fit) -> str:
    name, factor = fit.meter.name, fit.factor
    if fit.likely:
        return f"{name} {fit.likely}"
    if abs(factor) <= NEAR and not any(_is_near(factor, 1 / times) for times in SCALES):
        return f"{name} counts what another meter counts, too, or what is not behind the supply's meter"
    text = f"{name} shows {_percent(1 / factor)} of what it should"
    ratio = _ratio(fit.meter.ct_ratio, factor) if fit.meter.ct_ratio else "its CT ratio or its scale is wrong"
    by_phase = _by_phase(fit.meter)
    turned, lost = _phases(by_phase, factor)
    moves = not _tells_reactive(fit.meter)
    if _is_near(factor, -1.0):
        # At a power factor of 0.87 they count the wrong way exactly, too. No inverter runs so.
        other = "" if not moves or fit.meter.role == GENERATION else f", or {wiring.MOVED}"
        return f"{name} counts the wrong way: likely its current transformers are turned round, or its sign is{other}"
    if turned:
        return f"{text}: likely the current transformer of {turned} is turned round, or on another phase's voltage"
    if lost:
        return f"{text}: likely {lost} is not measured: a fuse of its voltage, or an open current transformer"
    if factor < 0:
        likely = [wiring.MOVED] if moves else []
        if not by_phase and _is_near(factor, -3.0):
            likely.insert(0, "the current transformers of two phases are turned round")
        return f"{text}: likely {', or '.join([*likely, f'all current transformers are turned round and {ratio}'])}"
    if not by_phase and _is_near(factor, 3.0):
        return f"{text}: likely one phase's current transformer is turned round, or {ratio}"
    return f"{text}: likely {ratio}"


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
        if other != secondary and _is_near(ratio * other, primary)
    ]
    likely = _standard(ratio * secondary)
    if likely is not None and likely != primary:
        found.append(f"{likely:g}:{secondary:g}")
    if not found:
        both = [(_standard(ratio * other), other) for other in SECONDARIES if other != secondary]
        found = [f"{likely:g}:{other:g}" for likely, other in both if likely is not None]
    text = f"its CT ratio is {' or '.join(found)} and not {configured}" if found else ""
    for times in SCALES:
        if _is_near(factor, times) or _is_near(factor, 1 / times):
            text += f"{', or ' if text else ''}its scale is {times} times too {'small' if factor > 1 else 'large'}"
    return text or f"its CT ratio is not {configured}, but about {primary * factor:.0f}:{secondary:g}"


def _standard(primary: float) -> float | None:
    """The rated primary current that is meant, in A. There are none beyond these."""
    if not 1 <= primary <= 30_000:
        return None
    scale = 10.0 ** math.floor(math.log10(primary / 10))
    for step in (scale, scale * 10):
        for one in PRIMARIES:
            if _is_near(primary / (one * step), 1.0):
                return one * step
    return None


def _active(meter: Meter) -> list[Mapping[datetime, float]]:
    """By phase, or nothing."""
    found = [(meter.phases or {}).get(phase, {}) for phase in PHASES]
    return found if all(found) else []


def _reactive(meter: Meter) -> list[Mapping[datetime, float]]:
    found = [(meter.reactive or {}).get(phase, {}) for phase in PHASES]
    return found if all(found) else []


def _tells_reactive(meter: Meter) -> bool:
    """Whether it tells enough to know that its currents are moved on to other phases."""
    return bool(_reactive(meter) and _active(meter)) or bool((meter.reactive or {}).get(""))


def _by_phase(meter: Meter) -> dict[str, float]:
    return dict(zip(PHASES, (statistics.fmean(one.values()) for one in _active(meter)), strict=False))


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
    return f"{round(100 * part)} %"


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(statistics.fmean(value * value for value in values))


def _mean_size(values: Iterable[float]) -> float:
    return statistics.fmean(abs(value) for value in values)
