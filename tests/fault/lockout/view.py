# SPDX-License-Identifier: Apache-2.0
"""What the guard leaves on a host's disk, read from outside, also while the host is off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fault.lockout.host import LabHost


class GuardView:
    """The guard's folder of one host."""

    def __init__(self, host: LabHost) -> None:
        self._folder = host.files / "var/lib/energy-guard"

    @property
    def pending(self) -> bool:
        """Whether a change waits for its confirmation or for being undone."""
        return (self._folder / "pending").exists()

    def change(self) -> dict[str, Any]:
        """What the guard notes of the change that waits; nothing if there is none."""
        return _read(self._folder / "pending/change.json")

    @property
    def phase(self) -> str:
        return str(_read(self._folder / "pending/phase.json").get("phase", "none"))

    def settled(self) -> dict[str, str]:
        """How each change has ended that the guard remembers, by the change's name."""
        found: dict[str, str] = {}
        try:
            lines = (self._folder / "history.jsonl").read_text().splitlines()
        except FileNotFoundError:
            lines = []
        # A change whose end was cut short is not in the history before the guard's next call, but it has ended.
        ended = [_read(self._folder / name / "outcome.json") for name in ("confirmed", "undone")]
        for entry in [*map(json.loads, lines), *filter(None, ended)]:
            if entry["outcome"] != "refused":
                found[entry["id"]] = entry["outcome"]
        return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found
