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
    def restoring(self) -> bool:
        return self.change().get("phase") in ("restoring", "undoing")

    def history(self) -> list[dict[str, Any]]:
        """Every change that was settled, the oldest first."""
        try:
            lines = (self._folder / "history.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.strip()]


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found
