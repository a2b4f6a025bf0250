# SPDX-License-Identifier: Apache-2.0
"""What the campaign found: build/faults/lockout.json, and the same for a person."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from wattfleet.paths import BUILD

from tests.fault.lockout.judge import BEFORE, KEPT, Outcome

SHOWN = 12


@dataclass
class LockoutReport:
    """All rounds of a campaign. `passed` needs at least one change kept and one undone: or nothing was tried."""

    name: str
    seed: int
    hosts: int
    wait: float
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0

    def counts(self) -> dict[str, int]:
        failures = Counter(outcome.failure for outcome in self.outcomes)
        return {
            "rounds": len(self.outcomes),
            "armed": sum(outcome.armed for outcome in self.outcomes),
            "undone": sum(outcome.armed and outcome.state == BEFORE for outcome in self.outcomes),
            "confirmed": sum(outcome.state == KEPT for outcome in self.outcomes),
            "never_armed": sum(not outcome.armed for outcome in self.outcomes),
            "sites_lost": failures["lost"],
            "not_in_time": failures["late"],
            "not_exact": failures["inexact"],
            "wrong_verdicts": failures["wrong"],
        }

    @property
    def passed(self) -> bool:
        counts = self.counts()
        clean = not any(outcome.failure for outcome in self.outcomes)
        return clean and counts["undone"] > 0 and counts["confirmed"] > 0

    def figures(self) -> dict[str, float]:
        """Seconds from the arming, or from the moment the host runs again, until it is back and as it was."""
        found: dict[str, float] = {}
        for name, cut in (("", None), ("_after_power_loss", True), ("_without_power_loss", False)):
            times = sorted(
                outcome.returned
                for outcome in self.outcomes
                if outcome.returned is not None
                and outcome.state == BEFORE
                and (
                    cut is None or cut == any(death.startswith(("cut", "reboot")) for death in outcome.deaths)
                )
            )
            if not times:
                continue
            found[f"median{name}"] = round(median(times), 1)
            found[f"p95{name}"] = round(quantiles(times, n=20)[-1], 1) if len(times) > 1 else times[0]
            found[f"longest{name}"] = times[-1]
        return found

    def write(self) -> Path:
        """Write the JSON file; returns its path."""
        target = BUILD / "faults" / f"{self.name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {
            "name": self.name,
            "passed": self.passed,
            "seed": self.seed,
            "hosts": self.hosts,
            "wait": self.wait,
            "seconds": round(self.seconds, 1),
            **self.counts(),
            "seconds_to_return": self.figures(),
            "kinds": self._table("kind"),
            "deaths": self._deaths(),
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
        }
        target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return target

    def summary(self) -> str:
        counts, figures = self.counts(), self.figures()
        minutes = f"{self.seconds / 60:.0f} min"
        ended = ", ".join(
            f"{counts[key]} {key.replace('_', ' ')}" for key in ("undone", "confirmed", "never_armed")
        )
        wrong = ", ".join(
            f"{counts[key]} {key.replace('_', ' ')}"
            for key in ("sites_lost", "not_in_time", "not_exact", "wrong_verdicts")
        )
        lines = [
            f"{counts['rounds']} changes (seed {self.seed}, {self.hosts} hosts, {minutes}): {ended}",
            wrong,
        ]
        lines += [
            f"back{name.replace('_', ' ')}: median {figures[f'median{name}']} s, p95 {figures[f'p95{name}']} s, "
            f"longest {figures[f'longest{name}']} s"
            for name in ("", "_after_power_loss", "_without_power_loss")
            if f"median{name}" in figures
        ]
        lines += [describe(outcome) for outcome in [one for one in self.outcomes if one.failure][:SHOWN]]
        return "\n".join(lines)

    def _table(self, what: str) -> dict[str, dict[str, int]]:
        found: dict[str, Counter[str]] = {}
        for outcome in self.outcomes:
            row = found.setdefault(getattr(outcome, what), Counter())
            row["rounds"] += 1
            row[outcome.failure or (outcome.state if outcome.armed else "never armed")] += 1
        return {name: dict(row) for name, row in sorted(found.items())}

    def _deaths(self) -> dict[str, int]:
        return dict(
            Counter(death.split()[0] for outcome in self.outcomes for death in outcome.deaths or ["none"])
        )


def describe(outcome: Outcome) -> str:
    """One round as a line, with what was wrong under it."""
    end = outcome.failure or (outcome.state if outcome.armed else "never armed")
    back = "" if outcome.returned is None else f", back after {outcome.returned:.1f} s"
    line = (
        f"{outcome.number}: {outcome.host}: {outcome.kind} ({outcome.text}), "
        f"{' and '.join(outcome.deaths) or 'nothing dies'}: {end}{back}, seed {outcome.seed}"
    )
    return "\n".join([line, *(f"        {finding}" for finding in outcome.findings[:SHOWN])])
