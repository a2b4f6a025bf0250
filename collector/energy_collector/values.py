# SPDX-License-Identifier: Apache-2.0
"""From registers to a value in the point's unit, seen from the site."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from energy_collector import quality
from energy_collector.config import ChannelConfig, MeterConfig
from energy_collector.profile import SWAPPED, Point, Profile
from energy_collector.registers import decode

# Below this a 4-20 mA loop is broken: NAMUR NE 43 takes up to 3.6 mA for a fault, 3.8 mA for under-range.
BROKEN_WIRE_MA = 3.6
SCALE_FACTOR_MISSING = -0x8000
SCALE_FACTOR_LIMIT = 10
# SunSpec model 802, point ChaSt.
DISCHARGING, CHARGING = 3, 4

_SWAPPED_BACK = {new: old for old, new in SWAPPED.items()}


class Value(NamedTuple):
    """A value with its quality; None exactly when the quality is bad."""

    value: float | None
    quality: int


MISSING = Value(None, quality.BAD_SENSOR)


def point_name(point: Point, meter: MeterConfig) -> str:
    """The name that a point gets: a meter wired the other way counts the import in its export register."""
    if not meter.reverse:
        return point.name
    return SWAPPED.get(point.name) or _SWAPPED_BACK.get(point.name) or point.name


def ratio(point: Point, meter: MeterConfig) -> float:
    """The factor of the transformers before the meter."""
    factors = {
        "none": 1.0,
        "current": meter.ct_ratio,
        "voltage": meter.pt_ratio,
        "power": meter.ct_ratio * meter.pt_ratio,
    }
    return factors[point.ratio]


def from_registers(
    registers: Sequence[int],
    point: Point,
    meter: MeterConfig,
    profile: Profile,
    *,
    scale_factor: int = 0,
    direction: int | None = None,
) -> Value:
    """The value of a point in its registers. `scale_factor` is the exponent of ten that the device gives
    for it."""
    raw = decode(
        registers,
        point.type,
        low_word_first=point.order.low_word_first,
        low_byte_first=point.order.low_byte_first,
    )
    if raw in point.missing or not math.isfinite(raw):
        return MISSING
    if not -SCALE_FACTOR_LIMIT <= scale_factor <= SCALE_FACTOR_LIMIT:
        return MISSING
    value = raw * point.scale * 10.0**scale_factor * ratio(point, meter)
    if point.flow:
        value = _signed(value, profile.view == "source", direction)
        if meter.reverse:
            value = -value
    return _finish(value, point.decimals, point.valid)


def _signed(value: float, is_source: bool, direction: int | None) -> float:
    if direction == CHARGING:
        return abs(value)
    if direction == DISCHARGING:
        return -abs(value)
    return -value if is_source else value


def from_channel(raw: int, full_scale: int, channel: ChannelConfig) -> Value:
    """The engineering value of an analogue input, linear from `low` to `high` of the channel.

    A 4-20 mA channel is read over 0-20 mA. Below 3.6 mA the wire is broken.
    """
    share = raw / full_scale
    if channel.signal == "4-20mA":
        current = 20.0 * share
        if current < BROKEN_WIRE_MA:
            return MISSING
        share = (current - 4.0) / 16.0
    value = channel.low + share * (channel.high - channel.low)
    return _finish(value, channel_decimals(channel), None)


def channel_decimals(channel: ChannelConfig) -> int:
    """Digits that a ten-thousandth of the channel's span needs: more than a loop's accuracy, less than its
    noise."""
    return max(0, 4 - math.ceil(math.log10(abs(channel.high - channel.low))))


def _finish(value: float, decimals: int, valid: tuple[float, float] | None) -> Value:
    # Adding zero turns a negative zero into zero, which has one encoding only.
    rounded = round(value, decimals) + 0.0
    if not math.isfinite(rounded):
        return MISSING
    if valid is not None and not valid[0] <= rounded <= valid[1]:
        return Value(rounded, quality.UNCERTAIN_OUT_OF_RANGE)
    return Value(rounded, quality.GOOD)
