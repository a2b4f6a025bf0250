# SPDX-License-Identifier: Apache-2.0
"""What a fault test found, in the form that is written to build/faults/<name>.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wattfleet.paths import BUILD

from tests.fault.rig.exact import Exact
from tests.fleet.counting import Count

# Lines of each kind that are kept of a rig: what is wrong at all is often wrong a thousand times.
MOST_FINDINGS = 20


@dataclass
class FaultReport:
    """Counts over all rounds.

    `excused`: readings that were under way to the polling service when it died; `given_up`: the answer came too late on
    a busy machine, and a null says so; `dropped`: lost, and counted by the gateway itself; `late`: newer readings that
    waited for older ones, or a service that did not go on; `evidence`: what the hub found wrong with a chain or an
    identity; `idle`: faults that met a hub with nothing to do, where most of a run did. `figures` are measurements that
    decide nothing.
    """

    name: str
    rounds: int = 0
    faults: int = 0
    polls: int = 0
    readings: int = 0
    excused: int = 0
    given_up: int = 0
    lost: int = 0
    doubled: int = 0
    invented: int = 0
    locked_out: int = 0
    disordered: int = 0
    mistimed: int = 0
    late: int = 0
    evidence: int = 0
    idle: int = 0
    nulls: int = 0
    dropped: int = 0
    figures: dict[str, float] = field(default_factory=dict)
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

    def add_exact(self, found: Exact, evidence: list[str]) -> None:
        """Count a rig in. Lost readings that the gateway has counted as dropped are told, and are no loss."""
        self.polls += found.polls
        self.readings += found.readings
        self.nulls += found.nulls
        self.excused += found.excused
        self.given_up += found.given_up
        self.lost += max(len(found.lost) - self.dropped, 0)
        self.doubled += len(found.doubled)
        self.invented += len(found.invented)
        self.disordered += len(found.disordered)
        self.mistimed += len(found.mistimed)
        self.evidence += len(evidence)
        for lines in (found.lost, found.doubled, found.invented, found.disordered, found.mistimed, evidence):
            self.findings += lines[:MOST_FINDINGS]

    @property
    def passed(self) -> bool:
        """Nothing lost, doubled, invented or otherwise wrong, and something was measured at all."""
        wrong: tuple[int, ...] = (self.lost, self.doubled, self.invented, self.locked_out)
        wrong += (self.disordered, self.mistimed, self.late, self.evidence, self.idle)
        return not any(wrong) and self.readings > 0

    def write(self) -> Path:
        """Write the JSON file; returns its path."""
        target = BUILD / "faults" / f"{self.name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        return target
