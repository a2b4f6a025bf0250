# SPDX-License-Identifier: Apache-2.0
"""The device models by name."""

from wattfleet_lab.meters.description import Unit
from wattfleet_lab.meters.models.adam6017 import Adam6017
from wattfleet_lab.meters.models.base import Model
from wattfleet_lab.meters.models.em24 import Em24
from wattfleet_lab.meters.models.sdm630 import Sdm630
from wattfleet_lab.meters.models.sunspec import BatterySystem, Inverter

_MODELS: dict[str, type[Model]] = {
    "advantech-adam-6017": Adam6017,
    "carlo-gavazzi-em24": Em24,
    "eastron-sdm630": Sdm630,
    "sunspec-battery": BatterySystem,
    "sunspec-inverter": Inverter,
}


def make(unit: Unit) -> Model:
    """A device of the unit's model."""
    return _MODELS[unit.model](unit)
