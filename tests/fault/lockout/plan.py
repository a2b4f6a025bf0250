# SPDX-License-Identifier: Apache-2.0
"""Which change meets which death: everything random comes from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

from tests.fault.lockout import bad, deaths, good
from tests.fault.lockout.changes import Change, Maker
from tests.fault.lockout.deaths import Death
from tests.fault.lockout.site import Site

MAKERS: dict[str, Maker] = {**bad.KINDS, **good.KINDS}
# One round in so many is a change that has to be kept.
GOOD_EVERY = 5


@dataclass(frozen=True)
class Round:
    """One change on one host. `seed` names it: the same seed makes the same change and the same deaths."""

    number: int
    seed: str
    kind: str
    death: str
    # Instead of those that the seed would make.
    fixed: tuple[Death, ...] = ()

    def change(self, site: Site) -> Change:
        return MAKERS[self.kind](random.Random(f"{self.seed} change"), site)

    def deaths(self, wait: float) -> list[Death]:
        if self.fixed:
            return list(self.fixed)
        chosen = deaths.choose(self.death, random.Random(f"{self.seed} deaths"), wait)
        return [death for death in chosen if death.what != bad.HARMLESS_WITH.get(self.kind)]


def rounds(seed: int, count: int) -> list[Round]:
    """`count` rounds. Every kind and every death comes about equally often, in an order of the seed's."""
    rng = random.Random(seed)
    wrong, right = _shuffled(list(bad.KINDS), rng), _shuffled(list(good.KINDS), rng)
    # Deaths have their own order for either, or some pairs would never meet.
    dying = {True: _shuffled(list(deaths.NAMES), rng), False: _shuffled(list(deaths.NAMES), rng)}
    planned = []
    for number in range(1, count + 1):
        is_good = number % GOOD_EVERY == 0
        kind = next(right if is_good else wrong)
        planned.append(Round(number, f"{seed}/{number}", kind, next(dying[is_good])))
    return planned


def one_of_each(seed: int) -> list[Round]:
    """Every kind once, and every death at least twice: what CI runs."""
    rng = random.Random(seed)
    kinds = list(MAKERS)
    rng.shuffle(kinds)
    # A good change without a death is the one that has to be confirmed, whatever else happens.
    first = next(kind for kind in kinds if kind in good.KINDS)
    kinds.remove(first)
    names = cycle(deaths.NAMES)
    pairs = [(first, "none"), *((kind, next(names)) for kind in kinds)]
    return [Round(number, f"{seed}/{number}", kind, death) for number, (kind, death) in enumerate(pairs, 1)]


def _shuffled(names: list[str], rng: random.Random) -> Iterator[str]:
    """All names again and again, each time in another order."""
    while True:
        order = list(names)
        rng.shuffle(order)
        yield from order
