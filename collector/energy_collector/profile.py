# SPDX-License-Identifier: Apache-2.0
"""What a profile says: the points of a model, and where and how its registers hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from energy_collector.registers import TYPES, size
from energy_collector.section import Section

# Which transformers a quantity has to be multiplied with.
RATIOS = ("none", "current", "voltage", "power")
SWAPPED = {"energy_import": "energy_export", "reactive_energy_import": "reactive_energy_export"}


@dataclass(frozen=True)
class Point:
    """A quantity in the registers.

    `address` counts from 0, or from the model's first register (its id) with SunSpec. The value is
    number x `scale`, times ten to the power of the register at `scale_address` where there is one.
    `flow` marks what changes its sign when the device counts the other direction as positive.
    """

    name: str
    unit: str
    address: int
    type: str
    decimals: int
    scale: float = 1.0
    scale_address: int | None = None
    ratio: str = "none"
    flow: bool = False
    missing: tuple[int, ...] = ()
    valid: tuple[float, float] | None = None

    @property
    def size(self) -> int:
        """Registers that the value takes."""
        return size(self.type)


@dataclass(frozen=True)
class SunSpecModel:
    """One model of a SunSpec map, or several of the same layout.

    `direction_address` is a register that says 3 while discharging and 4 while charging.
    """

    ids: tuple[int, ...]
    points: tuple[Point, ...]
    direction_address: int | None = None


@dataclass(frozen=True)
class Profile:
    """A model. Either `points` or `inputs` or `models` is filled, as `kind` says.

    `view` tells what the device counts as positive: `load` what it takes from the line (the site's view),
    `source` what it gives. Of `models` the first has to be there; a point is taken from the first one that
    has it.
    """

    name: str
    model: str
    source: str
    kind: str
    function: int = 3
    low_word_first: bool = False
    max_block: int = 125
    max_gap: int = 10
    view: str = "load"
    points: tuple[Point, ...] = ()
    inputs: tuple[int, ...] = ()
    full_scale: int = 65535
    models: tuple[SunSpecModel, ...] = ()


def parse(name: str, data: Any) -> Profile:
    """Check and unpack a profile; raises ValueError with all faults, which are ours, not the user's."""
    faults: list[str] = []
    root = Section(data, name, faults)
    kind = root.choice("kind", ("registers", "analogue", "sunspec"), "registers")
    missing = {
        key: tuple(value if isinstance(value, list) else [value])
        for key, value in root.section("missing", required=False).data.items()
    }
    models = []
    for section in root.sections("models") if kind == "sunspec" else ():
        models.append(
            SunSpecModel(
                ids=tuple(section.take("ids", list)),
                points=_points(section.section("points"), missing),
                direction_address=section.take("direction_address", int, 0)
                if "direction_address" in section.data
                else None,
            )
        )
        section.finish()
    profile = Profile(
        name=name,
        model=root.take("model", str),
        source=" ".join(root.take("source", str).split()),
        kind=kind,
        function=root.number("function", int, 3, 4, 3),
        low_word_first=root.choice("word_order", ("high", "low"), "high") == "low",
        max_block=root.number("max_block", int, 1, 125, 125),
        max_gap=root.number("max_gap", int, 0, 124, 10),
        view=root.choice("view", ("load", "source"), "load"),
        points=_points(root.section("points"), missing) if kind == "registers" else (),
        inputs=tuple(root.take("inputs", list)) if kind == "analogue" else (),
        full_scale=root.take("full_scale", int, 65535),
        models=tuple(models),
    )
    root.finish()
    if faults:
        raise ValueError("; ".join(faults))
    return profile


def _points(points: Section, missing: dict[str, tuple[int, ...]]) -> tuple[Point, ...]:
    return tuple(_point(name, points.section(name), missing) for name in points.data)


def _point(name: str, section: Section, missing: dict[str, tuple[int, ...]]) -> Point:
    kind = section.choice("type", TYPES)
    valid = section.take("valid", list, [])
    point = Point(
        name=name,
        unit=section.take("unit", str),
        address=section.number("address", int, 0, 65535),
        type=kind,
        decimals=section.number("decimals", int, -3, 9, 0),
        scale=section.take("scale", float, 1.0),
        scale_address=section.take("scale_address", int, 0) if "scale_address" in section.data else None,
        ratio=section.choice("ratio", RATIOS, "none"),
        flow=section.take("flow", bool, default=False),
        missing=tuple(section.take("missing", list, list(missing.get(kind, ())))),
        valid=(float(valid[0]), float(valid[1])) if valid else None,
    )
    section.finish()
    return point
