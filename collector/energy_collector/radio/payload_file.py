# SPDX-License-Identifier: Apache-2.0
"""Checks a payload file and unpacks it. The services do this in a child process."""

from __future__ import annotations

import re
from typing import Any

from energy_collector.radio.payload import FORMATS, SERVERS, TIMES, Moment, Path, Payload, PayloadPoint
from energy_collector.section import Section, show

POINT = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*")
MAX_STEPS = 16


def parse(name: str, data: Any) -> Payload:
    """Check and unpack a payload file; raises ValueError with all faults."""
    faults: list[str] = []
    root = Section(data, name, faults)
    server = root.choice("server", SERVERS)
    payload = Payload(
        name=name,
        model=root.take("model", str),
        source=" ".join(root.take("source", str).split()),
        server=server,
        interval=root.number("interval", float, 1, 604800),
        time=_moment(root, TIMES.get(server, TIMES["chirpstack"])),
        view=root.choice("view", ("load", "source"), "load"),
        points=_points(root.section("points")),
    )
    root.finish()
    if not payload.source:
        root.fault("source", "cites nothing")
    if faults:
        raise ValueError("; ".join(faults))
    return payload


def _moment(root: Section, default: Moment) -> Moment:
    if "time" not in root.data:
        return default
    section = root.section("time")
    found = Moment(_path(section), section.choice("format", FORMATS, "auto"))
    section.finish()
    return found


def _points(points: Section) -> tuple[PayloadPoint, ...]:
    if not points.data:
        points.fault("", "names no point")
    for name in points.data:
        if not POINT.fullmatch(name):
            points.fault(name, "is not made of lower-case letters, digits and single underscores")
    return tuple(_point(name, points.section(name)) for name in points.data)


def _point(name: str, section: Section) -> PayloadPoint:
    point = PayloadPoint(
        name=name,
        unit=section.take("unit", str),
        path=_path(section),
        decimals=section.number("decimals", int, -3, 9, 0),
        scale=section.number("scale", float, -1e12, 1e12, 1.0),
        offset=section.number("offset", float, -1e12, 1e12, 0.0),
        flow=section.take("flow", bool, default=False),
        valid=_valid(section),
    )
    if not point.scale:
        section.fault("scale", "0 makes every value the same")
    section.finish()
    return point


def _valid(section: Section) -> tuple[float, float] | None:
    if "valid" not in section.data:
        return None
    value = section.take("valid", list)
    numbers = value if all(type(one) in (int, float) for one in value) else []
    if len(numbers) == 2 and numbers[0] <= numbers[1]:
        return float(numbers[0]), float(numbers[1])
    section.fault("valid", f"{show(value)} is not a list of two numbers, the lower one first")
    return None


def _path(section: Section) -> Path:
    """`object.energy.total`, or a list where a key has a point in it. A whole number is a place in a list."""
    section.seen("path")
    value = section.data.get("path")
    steps = value.split(".") if isinstance(value, str) else value
    if (
        not isinstance(steps, list)
        or not 0 < len(steps) <= MAX_STEPS
        or not all(type(step) in (str, int) and step != "" for step in steps)
    ):
        text = 'missing, as in "object.energy"' if value is None else f"{show(value)} is no path"
        section.fault("path", text)
        return ("?",)
    return tuple(int(step) if isinstance(step, str) and step.isdecimal() else step for step in steps)
