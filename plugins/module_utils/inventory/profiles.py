# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Which profiles and payload files exist, which profiles have analogue inputs, and which server a payload file is for.

They belong to the collector; here only their file names, the list `inputs` and the word `server` are read.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from .document import LIST, MAPPING, Faults, compose, decode

_COLLECTOR = Path(__file__).parents[3] / "collector" / "energy_collector"
FOLDER = _COLLECTOR / "profiles"
"""The profiles of this collection; a profile's name is its file name without ``.yaml``."""
PAYLOADS = _COLLECTOR / "payloads"
"""Likewise the payload files."""


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


class Payloads:
    """The payload files in a folder."""

    def __init__(self, folder: Path = PAYLOADS) -> None:
        self.folder = folder
        self.names = tuple(sorted(file.stem for file in folder.glob("*.yaml")))
        self._servers: dict[str, str] = {}

    def server(self, name: str) -> str:
        """Whose messages this payload file is about; nothing where it does not say so."""
        if name not in self._servers:
            node = _value(self.folder / f"{name}.yaml", "server")
            self._servers[name] = str(node.value) if node is not None else ""
        return self._servers[name]


def _count_inputs(file: Path) -> int:
    inputs = _value(file, "inputs")
    return len(inputs.value) if inputs is not None and inputs.tag == LIST else 0


def _value(file: Path, wanted: str) -> yaml.Node | None:
    """What a file says under a key."""
    faults = Faults()
    text = decode(file.read_bytes(), faults)
    root = compose(text, faults) if text is not None else None
    if root is None or root.tag != MAPPING:
        return None
    return next((value for key, value in root.value if key.value == wanted), None)
