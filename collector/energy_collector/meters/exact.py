# SPDX-License-Identifier: Apache-2.0
"""Exact decimal numbers: what profiles and transformers say, and their products.

Python's fractions would do, and bring its decimals with them: half a megabyte in a service that has 30.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Exact(NamedTuple):
    """`digits` times ten to the power of `exponent`."""

    digits: int
    exponent: int

    def times(self, other: Exact) -> Exact:
        """The product."""
        return Exact(self.digits * other.digits, self.exponent + other.exponent)

    def fraction(self) -> tuple[int, int]:
        """Numerator and denominator, in lowest terms."""
        if self.exponent >= 0:
            return self.digits * 10**self.exponent, 1
        whole = 10**-self.exponent
        common = math.gcd(self.digits, whole)
        return self.digits // common, whole // common

    def __float__(self) -> float:
        """The nearest float: Python divides whole numbers exactly rounded."""
        numerator, denominator = self.fraction()
        return numerator / denominator


def exact(number: float) -> Exact:
    """The decimal that was written, not the binary fraction next to it."""
    text, _, exponent = repr(float(number)).partition("e")
    whole, _, rest = text.partition(".")
    return Exact(int(whole + rest), int(exponent or 0) - len(rest))
