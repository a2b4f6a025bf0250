# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Which meter profiles exist, and which of them have analogue inputs.

The profiles belong to the collector; here only their file names and the list `inputs` are read.
"""

from __future__ import annotations

from pathlib import Path

from .document import LIST, MAPPING, Faults, compose, decode

FOLDER = Path(__file__).parents[3] / "collector" / "energy_collector" / "profiles"
"""The profiles of this collection; a profile's name is its file name without ``.yaml``."""


class Profiles:
    """The profiles in a folder. A missing folder holds none: every use of a profile is then a fault."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self.names = tuple(sorted(file.stem for file in folder.glob("*.yaml")))
        self._inputs: dict[str, int] = {}

    def inputs(self, name: str) -> int:
        """The number of analogue inputs of this profile; 0 for a meter."""
        if name not in self._inputs:
            self._inputs[name] = _count_inputs(self.folder / f"{name}.yaml")
        return self._inputs[name]


def _count_inputs(file: Path) -> int:
    faults = Faults()
    text = decode(file.read_bytes(), faults)
    root = compose(text, faults) if text is not None else None
    if root is None or root.tag != MAPPING:
        return 0
    inputs = next((value for key, value in root.value if key.value == "inputs"), None)
    return len(inputs.value) if inputs is not None and inputs.tag == LIST else 0
