# SPDX-License-Identifier: Apache-2.0
"""What a fault test found, in the form that is written to build/faults/<name>.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wattfleet.paths import BUILD

from tests.fleet.counting import Count


@dataclass
class FaultReport:
    """Counts over all rounds. `excused`: readings that were in no buffer yet when the polling service died."""

    name: str
    rounds: int = 0
    faults: int = 0
    polls: int = 0
    readings: int = 0
    excused: int = 0
    lost: int = 0
    doubled: int = 0
    invented: int = 0
    locked_out: int = 0
    findings: list[str] = field(default_factory=list)

    def add(self, site: str, found: Count) -> None:
        """Count a site in."""
        self.polls += found.polls
        self.readings += found.readings
        self.excused += found.excused
        self.lost += len(found.lost)
        self.doubled += len(found.doubled)
        self.invented += len(found.invented)
        self.findings += [f"{site}: {line}" for line in [*found.lost, *found.doubled, *found.invented]]

    @property
    def passed(self) -> bool:
        """Nothing lost, doubled, invented or locked out, and something was measured at all."""
        return not (self.lost or self.doubled or self.invented or self.locked_out) and self.readings > 0

    def write(self) -> Path:
        """Write the JSON file; returns its path."""
        target = BUILD / "faults" / f"{self.name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        return target
