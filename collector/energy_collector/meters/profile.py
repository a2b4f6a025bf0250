# SPDX-License-Identifier: Apache-2.0
"""What a profile says: the points of a model, and where and how its registers hold them.

The format is described in docs/reference/profiles.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from energy_collector.meters.registers import HIGH_FIRST, Field, Order, size

# Which transformers a quantity has to be multiplied with.
RATIOS = ("none", "current", "voltage", "power")
# What changes its name when a meter is wired the other way round.
SWAPPED = {
    "energy_import": "energy_export",
    "energy_export": "energy_import",
    "reactive_energy_import": "reactive_energy_export",
    "reactive_energy_export": "reactive_energy_import",
}
LAST_ADDRESS = 65535
MAX_BLOCK = 125


@dataclass(frozen=True)
class Bits:
    """Some bits of a register: `count` of them from bit `first` on, bit 0 being the lowest."""

    first: int
    count: int


@dataclass(frozen=True)
class Point:
    """A quantity in the registers.

    `address` counts from 0, or from the model's first register (its id) with SunSpec. The value is
    number x `scale` + `offset`, the number times ten to the power of the register at `scale_address` where
    there is one.
    `flow` marks what changes its sign when the device counts the other direction as positive.
    `counter_max` marks a counter: the highest number that its registers show before it begins at zero again.
    """

    name: str
    unit: str
    address: int
    type: str
    decimals: int
    scale: float = 1.0
    offset: float = 0.0
    scale_address: int | None = None
    ratio: str = "none"
    flow: bool = False
    missing: tuple[int | float, ...] = ()
    valid: tuple[float, float] | None = None
    function: int = 3
    order: Order = HIGH_FIRST
    bits: Bits | None = None
    counter_max: float | None = None

    @property
    def size(self) -> int:
        """Registers that the value takes."""
        return size(self.type)

    @property
    def field(self) -> Field:
        """What to take out of the registers."""
        return Field(self.address, self.type, self.order)

    @property
    def end(self) -> int:
        """The address after its last register."""
        return self.address + self.size


@dataclass(frozen=True)
class Serial:
    """Where the device keeps its serial number: a text, or a whole number of a type, in `size` registers."""

    address: int
    type: str
    size: int
    function: int = 3
    order: Order = HIGH_FIRST


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
    has it. `holes` are first and last registers that no request may touch. `digest` changes with every change of
    the profile.
    """

    name: str
    model: str
    source: str
    kind: str
    function: int = 3
    max_block: int = MAX_BLOCK
    max_gap: int = 10
    view: str = "load"
    points: tuple[Point, ...] = ()
    inputs: tuple[int, ...] = ()
    full_scale: int = 65535
    models: tuple[SunSpecModel, ...] = ()
    holes: tuple[tuple[int, int], ...] = ()
    serial: Serial | None = None
    digest: str = ""

    def point_names(self, *, reverse: bool) -> list[str]:
        """All points that a meter of this model can deliver, by the names that they get."""
        points = [*self.points, *(point for model in self.models for point in model.points)]
        return list(dict.fromkeys(point_name(point.name, reverse=reverse) for point in points))


def point_name(name: str, *, reverse: bool) -> str:
    """The name that a point gets: a meter wired the other way counts the import in its export register."""
    return SWAPPED.get(name, name) if reverse else name
