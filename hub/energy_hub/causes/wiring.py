# SPDX-License-Identifier: Apache-2.0
"""What a meter of three phases shows when the currents that it gets are not those of its voltages.

The power of a phase is S = V I*, P its real and Q its imaginary part. An element that has the voltage of one phase and
the current of the next shows S turned by 120 degrees: P cos 120 -+ Q sin 120 in place of P. One whose current
transformer is turned round shows -S. So each wrong wiring is a turn of each phase, and turned back, what a meter shows
is what it should show, whatever the load, its power factor and its balance are. Balanced and at power factor 1, with
two currents exchanged, a meter shows -1/6, -1/6 and 1/3 of the whole and 0 in all; with all three moved on by one
phase -1/2. At 0.9 it is -0.31, -0.03 and 0.33, and -0.92 or -0.08: which one, and which phase of an exchanged pair
shows more, depends on the way round.

The direction in which the network turns is not known, and not every meter counts inductive as positive. So both ways
round are tried.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

PHASES = ("l1", "l2", "l3")
BACK = complex(-0.5, math.sqrt(3) / 2)
WAYS = (BACK, BACK.conjugate())
# Where two phases seem to be exchanged: the whole in terms of the third phase, 3 when balanced, and how far, as parts
# of the whole, what the two show together may be from what it should be, and they from one another (0.87 times tan phi
# when balanced). A source on one phase of a balanced load is beyond that.
WHOLE = (2.0, 4.5)
TOGETHER = 0.15
APART = 0.85

Shown = Sequence[Sequence[complex]]
"""By phase, by time: what a meter shows. Where it tells no reactive power, the imaginary part is zero."""


@dataclass(frozen=True)
class Wiring:
    """A wiring that is wrong, in words, and how each phase has to be turned to put it right."""

    what: str
    turns: tuple[complex, ...]

    def missing(self, shown: Shown) -> list[float]:
        """By how much the power is more than what is shown, at each time."""
        return [
            sum(((turn - 1) * power).real for turn, power in zip(self.turns, powers, strict=True))
            for powers in zip(*shown, strict=True)
        ]

    def is_plausible(self, shown: Shown, signs: Sequence[float]) -> bool:
        """Whether more phases look like something real when they are turned back.

        `signs` says which way the power should go at each time. A meter all of whose phases look well is not suspected,
        so that nothing is explained by turning them.
        """
        back = [[turn * power for power in powers] for turn, powers in zip(self.turns, shown, strict=True)]
        return _odd(back, signs) < _odd(shown, signs)


def _odd(shown: Shown, signs: Sequence[float]) -> int:
    """How many phases have their power the wrong way, or a power factor below 0.5: 60 degrees to each side is as much
    as can be told from a turn by 120."""
    return sum(
        statistics.fmean(sign * power.real for sign, power in zip(signs, powers, strict=True)) * math.sqrt(3)
        < statistics.fmean(abs(power.imag) for power in powers)
        for powers in shown
    )


def _turned(*phases: str) -> Wiring:
    whose = "current transformer of" if len(phases) == 1 else "current transformers of"
    verb = "is" if len(phases) == 1 else "are"
    return Wiring(
        f"the {whose} {' and '.join(phases)} {verb} turned round",
        tuple(-1.0 + 0j if one in phases else 1.0 + 0j for one in PHASES),
    )


def _elsewhere(phase: str, way: complex) -> Wiring:
    return Wiring(
        f"the current of {phase} is measured with another phase's voltage",
        tuple(way if one == phase else 1.0 + 0j for one in PHASES),
    )


def _exchanged(third: str, way: complex) -> Wiring:
    one, other = (phase for phase in PHASES if phase != third)
    turns = {one: way, other: way.conjugate(), third: 1.0 + 0j}
    return Wiring(exchanged(third), tuple(turns[phase] for phase in PHASES))


def exchanged(third: str) -> str:
    """That the two phases beside the third are exchanged, in words."""
    one, other = (phase for phase in PHASES if phase != third)
    return f"the current transformers of {one} and {other} are exchanged, or their voltages"


MOVED = "all three current transformers are on the next phase's voltage"
# What can be tried with the active powers of the phases; with their reactive powers too; with the two totals.
BY_ACTIVE = (
    *(_turned(one) for one in PHASES),
    *(_turned(*(p for p in PHASES if p != one)) for one in PHASES),
)
BY_ALL = (
    *BY_ACTIVE,
    *(_elsewhere(one, way) for one in PHASES for way in WAYS),
    *(_exchanged(one, way) for one in PHASES for way in WAYS),
    *(Wiring(MOVED, (way,) * 3) for way in WAYS),
)
BY_TOTALS = tuple(Wiring(MOVED, (way,)) for way in WAYS)


def third_of_a_pair(
    active: Sequence[Sequence[float]], needed: Sequence[float], signs: Sequence[float]
) -> tuple[int, float] | None:
    """The phase that is right where the other two seem to be exchanged, and how many times its power is the whole.

    Without reactive power the two are not known, but the third is, and the whole goes with it as long as the phases
    keep their parts of the load.
    """
    means = [
        statistics.fmean(sign * power for sign, power in zip(signs, powers, strict=True)) for powers in active
    ]
    for third, mean in enumerate(means):
        if mean <= 0:
            continue
        times = sum(n * p for n, p in zip(needed, active[third], strict=True)) / sum(
            p * p for p in active[third]
        )
        if not WHOLE[0] <= times <= WHOLE[1]:
            continue
        one, other = (value / (times * mean) for number, value in enumerate(means) if number != third)
        others = 1 - 1 / times
        if abs(one + other + others / 2) <= TOGETHER and abs(one - other) <= APART * others:
            return third, times
    return None
