# SPDX-License-Identifier: Apache-2.0
"""The limit that chance sets, against the definition and against chance itself."""

from __future__ import annotations

import random
from fractions import Fraction
from math import comb

import pytest
from wattfleet.rollout.chance import ERROR, allowed, at_least, most


def exactly(count: int, trials: int, chance: Fraction) -> Fraction:
    return sum(
        (comb(trials, n) * chance**n * (1 - chance) ** (trials - n) for n in range(count, trials + 1)),
        Fraction(),
    )


@pytest.mark.parametrize(
    ("count", "trials", "chance"),
    [(8, 10, Fraction(1, 2)), (3, 3, Fraction(1, 2)), (60, 200, Fraction(1, 5)), (1, 40, Fraction(1, 100))],
)
def test_the_tail_of_the_binomial_distribution(count: int, trials: int, chance: Fraction) -> None:
    assert at_least(count, trials, float(chance)) == pytest.approx(float(exactly(count, trials, chance)))


@pytest.mark.parametrize(
    ("before", "trials_before", "trials_now"),
    [(0, 1000, 1000), (5, 1000, 500), (200, 90_000, 90_000), (3, 50, 5000), (40, 3000, 200)],
)
def test_the_limit_is_the_last_count_that_proves_nothing(
    before: int, trials_before: int, trials_now: int
) -> None:
    limit = most(before, trials_before, trials_now)
    chance = Fraction(trials_now, trials_now + trials_before)
    assert exactly(limit, before + limit, chance) >= ERROR or limit <= (before + limit) * chance
    assert exactly(limit + 1, before + limit + 1, chance) < ERROR


def test_known_limits() -> None:
    # Without a fault before, as many trials again: 1/2^9 is more than one in a thousand, 1/2^10 is less.
    assert most(0, 1000, 1000) == 9
    assert allowed(0, 1000, 1000, 1.5) == 9
    # A large count leaves little to chance, and the margin decides.
    assert 10_300 < most(10_000, 1e6, 1e6) < 10_600
    assert allowed(10_000, 1e6, 1e6, 1.5) == 15_000
    assert allowed(10_000, 1e6, 1e5, 1.5) == 1500
    with pytest.raises(ValueError, match="need trials"):
        most(0, 0, 10)


def test_a_site_that_is_as_it_was_fails_no_more_often_than_it_may() -> None:
    chance, trials = random.Random(5), 2000

    def count(rate: float) -> int:
        return sum(chance.random() < rate for _ in range(trials))

    assert sum(count(0.005) > allowed(count(0.005), trials, trials, 1.0) for _ in range(300)) <= 2
    assert sum(count(0.03) > allowed(count(0.005), trials, trials, 1.5) for _ in range(50)) >= 45
