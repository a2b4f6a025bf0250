# SPDX-License-Identifier: Apache-2.0
"""How many faults chance may bring: what tells a worse site from an unlucky one.

Two counts of rare events, one from before and one from now. Given their sum, and as long as the rate is the same, the
count from now follows a binomial distribution with the probability trials_now / (trials_now + trials_before), whatever
the rate itself is: the conditional test of Przyborowski and Wilenski, "Homogeneity of Results in Testing Samples from
Poisson Series", Biometrika 31 (1940) 313-323. Turned round, it is a prediction limit: W. Nelson, "Confidence Intervals
for the Ratio of Two Poisson Means and Poisson Predictor Intervals", IEEE Transactions on Reliability R-19 (1970) 42-49.
"""

from __future__ import annotations

from math import exp, lgamma, log

# How often a site that is as it was may fail one check. A rollout makes hundreds of them, and one failure halts it.
ERROR = 0.001


def allowed(before: float, trials_before: float, trials_now: float, margin: float) -> float:
    """The most events in `trials_now` that are right: `margin` times as many as before, and whatever may be chance.

    Many events leave little to chance, and then a growth is certain that nobody minds: the margin is for those.
    """
    usual = before / trials_before * trials_now if trials_before > 0 else 0.0
    return max(most(before, trials_before, trials_now), margin * usual)


def most(before: float, trials_before: float, trials_now: float, error: float = ERROR) -> int:
    """The most events in `trials_now` that do not prove yet that there are more of them than before."""
    if trials_before <= 0 or trials_now <= 0:
        raise ValueError("both counts need trials")
    known = round(before)
    chance = trials_now / (trials_now + trials_before)
    low, high = 0, 1
    while at_least(high, known + high, chance) >= error:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if at_least(middle, known + middle, chance) >= error:
            low = middle
        else:
            high = middle
    return low


def at_least(count: int, trials: int, chance: float) -> float:
    """P(X >= count) of a binomial distribution; 1 where `count` is not above its mean, for which nobody asks."""
    if count <= trials * chance:
        return 1.0
    term = exp(
        lgamma(trials + 1) - lgamma(count + 1) - lgamma(trials - count + 1)
        + count * log(chance) + (trials - count) * log(1 - chance)
    )  # fmt: skip
    total = 0.0
    for number in range(count, trials + 1):
        total += term
        # Beyond the mean each term is smaller than the one before, ever faster.
        if term < total * 1e-12:
            break
        term *= (trials - number) / (number + 1) * chance / (1 - chance)
    return total
