# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Register contents as numbers, and what a difference from a reference reading tells about the
configuration.
"""

from __future__ import annotations

import math
import struct

# Type name -> struct format of the value when its registers are in big-endian order.
TYPES = {
    "uint16": ">H",
    "int16": ">h",
    "uint32": ">I",
    "int32": ">i",
    "float32": ">f",
    "uint64": ">Q",
    "int64": ">q",
    "float64": ">d",
}
WORD_ORDERS = ("big", "little")


def width(type_name: str) -> int:
    """How many 16-bit registers a value of this type takes."""
    return struct.calcsize(TYPES[type_name]) // 2


def decode(
    registers: list[int], type_name: str, word_order: str = "big", scale: float = 1.0
) -> float | int | None:
    """The value in `registers` times `scale`; None when a float is not a number (many meters send NaN for "no
    value").

    `word_order` big means that the first register holds the most significant word.
    """
    words = registers[: width(type_name)]
    if len(words) < width(type_name):
        raise ValueError(f"{type_name} takes {width(type_name)} registers, found {len(words)}")
    if word_order == "little":
        words = words[::-1]
    value: float | int
    (value,) = struct.unpack(TYPES[type_name], struct.pack(f">{len(words)}H", *words))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if scale == 1.0 else value * scale


def parse_ratio(text: str) -> float:
    """The factor of a transformer ratio such as "200:5" (40.0)."""
    primary, separator, secondary = text.partition(":")
    try:
        factor = float(primary) / float(secondary) if separator else math.nan
    except (ValueError, ZeroDivisionError):
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"{text!r} is not a ratio; write primary:secondary, for instance 200:5")
    return factor


def close(value: float | None, expected: float, tolerance: float) -> bool:
    """Whether `value` is within `tolerance` (a fraction of `expected`; absolute when `expected` is 0)."""
    if value is None:
        return False
    return abs(value - expected) <= tolerance * (abs(expected) or 1.0)


def explain(
    registers: list[int],
    expected: float,
    tolerance: float,
    type_name: str,
    word_order: str,
    scale: float,
    ct_ratio: str | None = None,
) -> list[dict[str, str]]:
    """Which single mistakes of configuration would explain that the value is not the expected one.

    Each finding has `finding` (scale, word_order, type, polarity, ct_ratio) and `message`. An empty list
    means that the value agrees, or that no single mistake explains it.
    """
    value = decode(registers, type_name, word_order, scale)
    if close(value, expected, tolerance):
        return []
    findings = _of_ratio(value, expected, tolerance, ct_ratio)
    findings += _of_encoding(registers, expected, tolerance, type_name, word_order, scale)
    return findings


def _of_ratio(
    value: float | None, expected: float, tolerance: float, ct_ratio: str | None
) -> list[dict[str, str]]:
    if not value or not expected:
        return []
    findings = []
    if close(-value, expected, tolerance):
        message = (
            "the value has the opposite sign: a current transformer is mounted or wired the wrong way round"
        )
        findings.append({"finding": "polarity", "message": message})
    ratio = value / expected
    if ct_ratio is not None:
        factor = parse_ratio(ct_ratio)
        if factor != 1.0 and close(ratio, factor, tolerance):
            message = f"{factor:g} times the expected: the CT ratio {ct_ratio} is applied twice"
            findings.append({"finding": "ct_ratio", "message": message})
        if factor != 1.0 and close(ratio, 1 / factor, tolerance):
            message = f"1/{factor:g} of the expected: the CT ratio {ct_ratio} is not applied"
            findings.append({"finding": "ct_ratio", "message": message})
    for exponent in (1, 2, 3, -1, -2, -3):
        if close(ratio, 10.0**exponent, tolerance):
            relation = f"{10**exponent} times" if exponent > 0 else f"1/{10**-exponent} of"
            message = f"{relation} the expected: multiply the scale of this register by {10.0**-exponent:g}"
            findings.append({"finding": "scale", "message": message})
    return findings


def _of_encoding(
    registers: list[int], expected: float, tolerance: float, type_name: str, word_order: str, scale: float
) -> list[dict[str, str]]:
    """Other readings of the same registers that give the expected value; zero matches too much to prove
    anything.
    """
    if not expected:
        return []
    findings = []
    for other_type in TYPES:
        if width(other_type) != width(type_name):
            continue
        for other_order in WORD_ORDERS if width(other_type) > 1 else ("big",):
            changed_type, changed_order = other_type != type_name, other_order != word_order
            if changed_type is changed_order is False or not close(
                decode(registers, other_type, other_order, scale), expected, tolerance
            ):
                continue
            if changed_type:
                message = f"the registers hold the expected value as {other_type}, word order {other_order}"
                findings.append({"finding": "type", "message": message})
            else:
                message = f"the words are in the other order: set the word order to {other_order}"
                findings.append({"finding": "word_order", "message": message})
    # The plain word order is the likelier mistake when both explain the value.
    if any(finding["finding"] == "word_order" for finding in findings):
        findings = [finding for finding in findings if finding["finding"] == "word_order"]
    return findings
