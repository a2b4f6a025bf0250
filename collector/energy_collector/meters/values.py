# SPDX-License-Identifier: Apache-2.0
"""From the numbers in the registers to values in the points' units, seen from the site."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from energy_collector import quality
from energy_collector.config import ChannelConfig, MeterConfig
from energy_collector.meters.exact import Exact, exact
from energy_collector.meters.profile import Point, Profile

# NAMUR NE 43 (2003): 3.8 to 20.5 mA are a measurement; from 21 mA on, and up to 3.6 mA, the transmitter or the
# wire is faulty. What lies between is neither, and uncertain.
UNDER_RANGE_MA = 3.8
OVER_RANGE_MA = 20.5
FAILURE_MA = 21.0
# SunSpec: scale factors go from -10 to 10, -32768 is "not implemented".
SCALE_FACTOR_LIMIT = 10
# SunSpec model 802, point ChaSt.
DISCHARGING, CHARGING = 3, 4
# Whole numbers above this are no exact floats, and arithmetic with them is slow.
LARGEST_EXACT = 1 << 53

Numbers = Sequence[int | float]
Values = tuple[Sequence[float], bytes]
_Sentinels = list[tuple[frozenset[int | float], Callable[[Numbers], Numbers]]]


class Value(NamedTuple):
    """A value with its quality; None exactly when the quality is bad."""

    value: float | None
    quality: int


class Counter(NamedTuple):
    """A counter, in the point's unit: its highest value, and what one count of the register is worth.

    After `highest` comes zero, `step` further. `step` is 0 where the register holds a float.
    """

    highest: float
    step: float


MISSING = Value(None, quality.BAD_SENSOR)


def ratio(point: Point, meter: MeterConfig) -> float:
    """The factor of the transformers before the meter."""
    factors = {
        "none": 1.0,
        "current": meter.ct_ratio,
        "voltage": meter.pt_ratio,
        "power": meter.ct_ratio * meter.pt_ratio,
    }
    return factors[point.ratio]


def counter(point: Point, meter: MeterConfig, exponent: int = 0) -> Counter | None:
    """Where a point is a counter that rolls over: how far it counts. None also for an impossible scale factor."""
    if point.counter_max is None or not _is_possible(exponent):
        return None
    worth = exact(point.scale).times(Exact(1, exponent)).times(exact(ratio(point, meter)))
    step = 0.0 if point.type.startswith("float") else float(worth)
    return Counter(float(exact(point.counter_max).times(worth)), step)


class _Step(NamedTuple):
    """How one number becomes a value: round(number * factor / divisor + offset) * coarse / fine.

    All are whole numbers where they can be: whole number by whole number is divided exactly rounded in Python, so
    that 2301 tenths are 230.1.
    """

    factor: float
    divisor: int
    offset: float
    coarse: int
    fine: int


class Conversion:
    """Makes values of the numbers of some points, with everything folded into one step each.

    `exponents` are the points' scale factors, powers of ten that a SunSpec device gives; a point whose factor is
    impossible is missing. `direction` is its charge status, where it has one.
    """

    def __init__(
        self,
        points: Sequence[Point],
        meter: MeterConfig,
        profile: Profile,
        exponents: Sequence[int] = (),
        direction: int | None = None,
    ) -> None:
        self._points = points
        possible = [
            exponent if _is_possible(exponent) else None for exponent in exponents or [0] * len(points)
        ]
        turned = {CHARGING: 1, DISCHARGING: -1}.get(direction or 0)
        sign = -1 if meter.reverse else 1
        # With a direction the number's own sign says nothing.
        self._turned = [
            (index, sign * turned) for index, point in enumerate(points) if point.flow and turned is not None
        ]
        view = -1 if profile.view == "source" and turned is None else 1
        self._steps = [
            _step(point, exponent, ratio(point, meter), (sign * view) if point.flow else 1)
            for point, exponent in zip(points, possible, strict=True)
        ]
        self._impossible = {index for index, exponent in enumerate(possible) if exponent is None}
        self._factors = [step.factor for step in self._steps]
        self._divisors = [step.divisor for step in self._steps]
        self._offsets = [step.offset for step in self._steps]
        self._coarse = [step.coarse for step in self._steps]
        self._fine = [step.fine for step in self._steps]
        # Nothing to round: whole numbers whose last digit is the last one wanted.
        self._plain = all(
            not point.type.startswith("float")
            and step == (step.factor, 1, 0, 1, step.fine)
            and isinstance(step.factor, int)
            for point, step in zip(points, self._steps, strict=True)
        )
        self._missing = [_missing(point) for point in points]
        self._sentinels = _sentinels(self._missing)
        self._has_floats = any(point.type.startswith("float") for point in points)
        self._bits = [(index, point.bits) for index, point in enumerate(points) if point.bits is not None]
        self._valid = [(index, *point.valid) for index, point in enumerate(points) if point.valid is not None]

    def __call__(self, numbers: Numbers) -> Values:
        """The values, and their qualities, which are empty when all are good."""
        if (
            self._impossible
            or (self._has_floats and not math.isfinite(sum(numbers)))
            or not all(missing.isdisjoint(pick(numbers)) for missing, pick in self._sentinels)
        ):
            return self._one_by_one(numbers)
        try:
            values = self._convert(numbers)
        except OverflowError:
            return self._one_by_one(numbers)
        for index, low, high in self._valid:
            if not low <= values[index] <= high:
                return values, self._ranges(values, bytearray(len(values)))
        return values, b""

    def _convert(self, numbers: Numbers) -> list[float]:
        """All of them, none of which is missing. Raises OverflowError for a value that is no finite float."""
        if self._bits:
            numbers = list(numbers)
            for index, bits in self._bits:
                numbers[index] = (int(numbers[index]) >> bits.first) & ((1 << bits.count) - 1)
        if self._plain:
            values = [
                number * factor / fine
                for number, factor, fine in zip(numbers, self._factors, self._fine, strict=True)
            ]
        else:
            # round() without digits gives a whole number, which knows no negative zero.
            values = [
                round(number * factor / divisor + offset) * coarse / fine
                for number, factor, divisor, offset, coarse, fine in zip(
                    numbers,
                    self._factors,
                    self._divisors,
                    self._offsets,
                    self._coarse,
                    self._fine,
                    strict=True,
                )
            ]
        for index, sign in self._turned:
            values[index] = sign * abs(values[index]) + 0.0
        return values

    def _one_by_one(self, numbers: Numbers) -> Values:
        """Slowly: what is missing becomes null, and the rest values."""
        codes = bytearray(len(numbers))
        for index, number in enumerate(numbers):
            if index in self._impossible or number in self._missing[index] or not math.isfinite(number):
                codes[index] = quality.BAD_SENSOR
        usable: list[int | float] = [
            0 if code else number for number, code in zip(numbers, codes, strict=True)
        ]
        try:
            values = self._convert(usable)
        except OverflowError:
            self._drop_overflowing(usable, codes)
            values = self._convert(usable)
        return [0.0 if code else value for value, code in zip(values, codes, strict=True)], self._ranges(
            values, codes
        )

    def _drop_overflowing(self, numbers: list[int | float], codes: bytearray) -> None:
        """Take out the numbers too large to be scaled."""
        for index, (number, step) in enumerate(zip(numbers, self._steps, strict=True)):
            try:
                round(number * step.factor / step.divisor + step.offset) * step.coarse / step.fine
            except OverflowError:  # noqa: PERF203  (each number overflows for itself)
                numbers[index] = 0
                codes[index] = quality.BAD_SENSOR

    def _ranges(self, values: Sequence[float], codes: bytearray) -> bytes:
        for index, low, high in self._valid:
            if not codes[index] and not low <= values[index] <= high:
                codes[index] = quality.UNCERTAIN_OUT_OF_RANGE
        return bytes(codes) if any(codes) else b""


def _is_possible(exponent: int) -> bool:
    return -SCALE_FACTOR_LIMIT <= exponent <= SCALE_FACTOR_LIMIT


# Meters of one model with the same transformers share their steps, and what stands for no value.
@lru_cache(maxsize=4096)
def _step(point: Point, exponent: int | None, transformers: float, sign: int) -> _Step:
    """Everything that a number is multiplied with, in units of the last digit that is kept."""
    digits = Exact(1, point.decimals)
    outside = exact(transformers).times(digits).times(Exact(sign, 0))
    scale = Exact(0, 0) if exponent is None else Exact(1, exponent)
    offset = exact(point.offset).times(outside)
    whole, parts = offset.fraction()
    fine, coarse = digits.fraction()
    return _Step(
        *_quotient(exact(point.scale).times(scale).times(outside), point.type),
        whole if parts == 1 else float(offset),
        coarse,
        fine,
    )


def _quotient(factor: Exact, kind: str) -> tuple[float, int]:
    numerator, denominator = factor.fraction()
    if kind.startswith("float") or max(abs(numerator), denominator) > LARGEST_EXACT:
        return float(factor), 1
    return numerator, denominator


@lru_cache(maxsize=4096)
def _missing(point: Point) -> frozenset[int | float]:
    """The numbers that stand for no value, as the registers can hold them."""
    if point.type != "float32":
        return frozenset(point.missing)
    return frozenset(struct.unpack("f", struct.pack("f", number))[0] for number in point.missing)


def _sentinels(missing: Sequence[frozenset[int | float]]) -> _Sentinels:
    """Each set of sentinels once, with what picks the numbers that it is about."""
    found: _Sentinels = []
    for numbers in dict.fromkeys(filter(None, missing)):
        places = [index for index, one in enumerate(missing) if one == numbers]
        if len(places) == 1:
            # One name alone would make itemgetter return a number.
            places *= 2
        found.append((numbers, itemgetter(*places)))
    return found


class ChannelConversion:
    """Makes values of the numbers of analogue inputs; `full_scale` stands for 20 mA or 10 V."""

    def __init__(self, channels: Sequence[ChannelConfig], full_scale: int) -> None:
        self._channels = channels
        self._full_scale = full_scale

    def __call__(self, numbers: Numbers) -> Values:
        """The values, and their qualities, which are empty when all are good."""
        found = [
            from_channel(number, self._full_scale, channel)
            for number, channel in zip(numbers, self._channels, strict=True)
        ]
        codes = bytes(one.quality for one in found)
        return [one.value or 0.0 for one in found], codes if any(codes) else b""


def from_channel(raw: float, full_scale: int, channel: ChannelConfig) -> Value:
    """The engineering value of an analogue input, linear from `low` to `high` of the channel.

    A 4-20 mA channel is read over 0-20 mA. Up to `broken_below` the wire is broken.
    """
    share = raw / full_scale
    code = quality.GOOD
    if channel.signal == "4-20mA":
        current = 20.0 * share
        if current < channel.broken_below or current >= FAILURE_MA:
            return MISSING
        if not UNDER_RANGE_MA <= current <= OVER_RANGE_MA:
            code = quality.UNCERTAIN_OUT_OF_RANGE
        share = (current - 4.0) / 16.0
    value = channel.low + share * (channel.high - channel.low)
    # Adding zero turns a negative zero into zero, which has one encoding only.
    return Value(round(value, channel_decimals(channel)) + 0.0, code)


def channel_decimals(channel: ChannelConfig) -> int:
    """Digits that a ten-thousandth of the channel's span needs: more than a loop's accuracy, less than its
    noise."""
    return max(0, 4 - math.ceil(math.log10(abs(channel.high - channel.low))))


class Decoder:
    """From an answer to values: where the numbers lie, and what they mean."""

    def __init__(
        self,
        unpack: Callable[[bytes], Numbers],
        convert: Callable[[Numbers], Values],
    ) -> None:
        self._unpack = unpack
        self._convert = convert

    def __call__(self, answer: bytes) -> Values:
        """The values of an answer (function code, byte count, registers), and their qualities."""
        return self._convert(self._unpack(answer))
