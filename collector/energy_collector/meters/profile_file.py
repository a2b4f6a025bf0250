# SPDX-License-Identifier: Apache-2.0
"""Checks a profile and unpacks it. The services do this in a child process: hashlib alone brings OpenSSL with it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from energy_collector.meters.profile import (
    LAST_ADDRESS,
    MAX_BLOCK,
    RATIOS,
    Bits,
    Point,
    Profile,
    Serial,
    SunSpecModel,
)
from energy_collector.meters.registers import HIGH_FIRST, TYPES, UNSIGNED, Order, size
from energy_collector.section import Section, show


@dataclass(frozen=True)
class _Defaults:
    """What a profile says once for all of its points."""

    function: int
    order: Order
    missing: dict[str, tuple[int | float, ...]]


def parse(name: str, data: Any) -> Profile:
    """Check and unpack a profile; raises ValueError with all faults, which are ours, not the user's."""
    faults: list[str] = []
    root = Section(data, name, faults)
    kind = root.choice("kind", ("registers", "analogue", "sunspec"), "registers")
    missing = root.section("missing", required=False)
    defaults = _Defaults(
        function=root.number("function", int, 3, 4, 3),
        order=_order(root, HIGH_FIRST),
        missing={one: _numbers(missing, one) for one in missing.data},
    )
    profile = Profile(
        name=name,
        model=root.take("model", str),
        source=" ".join(root.take("source", str).split()),
        kind=kind,
        function=defaults.function,
        max_block=root.number("max_block", int, 1, MAX_BLOCK, MAX_BLOCK),
        max_gap=root.number("max_gap", int, 0, MAX_BLOCK - 1, 10),
        view=root.choice("view", ("load", "source"), "load"),
        points=_points(root.section("points"), defaults) if kind == "registers" else (),
        inputs=tuple(root.take("inputs", list)) if kind == "analogue" else (),
        full_scale=root.take("full_scale", int, 65535),
        models=_models(root, defaults) if kind == "sunspec" else (),
        holes=_holes(root) if kind != "sunspec" else (),
        serial=_serial(root, defaults) if kind != "sunspec" and "serial" in root.data else None,
        digest=hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:16],
    )
    root.finish()
    _check(profile, root)
    if faults:
        raise ValueError("; ".join(faults))
    return profile


def _check(profile: Profile, root: Section) -> None:
    """What lies where it cannot be read."""
    if not profile.source:
        root.fault("source", "cites nothing")
    for point in profile.points:
        where = f"points.{point.name}.address"
        if point.end > LAST_ADDRESS + 1:
            root.fault(where, f"{point.address} leaves no room for {point.size} registers")
        if point.size > profile.max_block:
            root.fault(where, f"{point.size} registers are more than max_block, {profile.max_block}")
        for first, last in profile.holes:
            if point.address <= last and point.end > first:
                root.fault(where, f"{point.address} lies in the hole {first} to {last}")


def _order(section: Section, default: Order) -> Order:
    return Order(
        section.choice("word_order", ("high", "low"), _first(default.low_word_first)) == "low",
        section.choice("byte_order", ("high", "low"), _first(default.low_byte_first)) == "low",
    )


def _first(low: bool) -> str:
    return "low" if low else "high"


def _numbers(section: Section, key: str) -> tuple[int | float, ...]:
    """One number or a list of numbers."""
    value = section.data[key]
    numbers = value if isinstance(value, list) else [value]
    if key not in TYPES and key != "missing":
        section.fault(key, f"is not one of the types {', '.join(TYPES)}")
    if not all(type(one) in (int, float) for one in numbers):
        section.fault(key, f"{show(value)} is not a number or a list of numbers")
        return ()
    return tuple(numbers)


def _pair(section: Section, key: str, value: object) -> tuple[float, float] | None:
    """Two numbers, the lower one first."""
    numbers = value if isinstance(value, list) and all(type(one) in (int, float) for one in value) else []
    if len(numbers) == 2 and numbers[0] <= numbers[1]:
        return numbers[0], numbers[1]
    section.fault(key, f"{show(value)} is not a list of two numbers, the lower one first")
    return None


def _holes(root: Section) -> tuple[tuple[int, int], ...]:
    pairs = [_pair(root, "holes", one) for one in root.take("holes", list, [])]
    return tuple((int(pair[0]), int(pair[1])) for pair in pairs if pair)


def _serial(root: Section, defaults: _Defaults) -> Serial:
    section = root.section("serial")
    whole = [one for one in TYPES if not one.startswith("float")]
    kind = section.choice("type", ("string", *whole), "string")
    serial = Serial(
        address=section.number("address", int, 0, LAST_ADDRESS),
        type=kind,
        size=size(kind) if kind in whole else section.number("size", int, 1, MAX_BLOCK),
        function=section.number("function", int, 3, 4, defaults.function),
        order=_order(section, defaults.order),
    )
    section.finish()
    return serial


def _models(root: Section, defaults: _Defaults) -> tuple[SunSpecModel, ...]:
    models = []
    for section in root.sections("models"):
        models.append(
            SunSpecModel(
                ids=tuple(section.take("ids", list)),
                points=_points(section.section("points"), defaults),
                direction_address=_optional(section, "direction_address"),
            )
        )
        section.finish()
    return tuple(models)


def _optional(section: Section, key: str) -> int | None:
    return section.number(key, int, 0, LAST_ADDRESS) if key in section.data else None


def _points(points: Section, defaults: _Defaults) -> tuple[Point, ...]:
    return tuple(_point(name, points.section(name), defaults) for name in points.data)


def _point(name: str, section: Section, defaults: _Defaults) -> Point:
    kind = section.choice("type", TYPES)
    valid = section.take("valid", list, [])
    point = Point(
        name=name,
        unit=section.take("unit", str),
        address=section.number("address", int, 0, LAST_ADDRESS),
        type=kind if kind in TYPES else "uint16",
        decimals=section.number("decimals", int, -3, 9, 0),
        scale=section.take("scale", float, 1.0),
        offset=section.take("offset", float, 0.0),
        scale_address=_optional(section, "scale_address"),
        ratio=section.choice("ratio", RATIOS, "none"),
        flow=section.take("flow", bool, default=False),
        missing=_missing(section, defaults.missing.get(kind, ())),
        valid=_pair(section, "valid", valid) if valid else None,
        function=section.number("function", int, 3, 4, defaults.function),
        order=_order(section, defaults.order),
        bits=_bits(section, kind) if "bits" in section.data else None,
        counter_max=_counter(section) if "counter" in section.data else None,
    )
    section.finish()
    return point


def _missing(section: Section, default: tuple[int | float, ...]) -> tuple[int | float, ...]:
    if "missing" not in section.data:
        return default
    section.seen("missing")
    return _numbers(section, "missing")


def _bits(section: Section, kind: str) -> Bits:
    bits = section.section("bits")
    found = Bits(bits.number("first", int, 0, 63), bits.number("count", int, 1, 64, 1))
    if kind not in UNSIGNED:
        section.fault("type", f"{kind} has no bits to name; {', '.join(UNSIGNED)} have")
    elif found.first + found.count > 16 * size(kind):
        bits.fault("count", f"{found.count} bits from {found.first} on are more than {kind} has")
    bits.finish()
    return found


def _counter(section: Section) -> float:
    counter = section.section("counter")
    most = counter.take("max", float)
    if "max" in counter.data and most <= 0:
        counter.fault("max", f"{most:g} is not above zero")
    counter.finish()
    return most
