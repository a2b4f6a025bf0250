# SPDX-License-Identifier: Apache-2.0
"""What the hub says of a site over a span: `energy-hub health --json`, as far as gates need it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from wattfleet.errors import WattfleetError


@dataclass(frozen=True)
class Span:
    """From `since` to `until`, which is not in it."""

    since: datetime
    until: datetime

    @property
    def seconds(self) -> float:
        return (self.until - self.since).total_seconds()


@dataclass(frozen=True)
class Meter:
    """What came of a meter. `polls` are the readings of its most frequent point, `answered` those with a value;
    `least_delay` is in s."""

    points: int = 0
    polls: int = 0
    answered: int = 0
    readings: int = 0
    nulls: int = 0
    uncertain: int = 0
    least_delay: float = 0.0


@dataclass(frozen=True)
class Health:
    """A site over a span. All that its gateway measured before `complete_until` is here; delays are in s."""

    span: Span
    meters: Mapping[str, Meter] = field(default_factory=dict)
    buses: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    complete_until: datetime | None = None
    newest: datetime | None = None
    least_delay: float | None = None
    usual_delay: float | None = None
    version: str | None = None
    chain: str = "ok"

    def total(self, what: str) -> int:
        """A figure of all meters."""
        return sum(getattr(meter, what) for meter in self.meters.values())

    def counted(self, counter: str) -> int | None:
        """A counter of all buses; None where the gateway tells of none."""
        found = [bus[counter] for bus in self.buses.values() if counter in bus]
        return sum(found) if found else None

    @property
    def longest_wait(self) -> float:
        """How long after its time the slowest meter's reading can be here at the earliest: statistics carry the
        time at which their interval began."""
        return max((meter.least_delay for meter in self.meters.values()), default=0.0)


@dataclass(frozen=True)
class Answer:
    """What the hub answered at `now`, by its own clock."""

    now: datetime
    sites: Mapping[str, Health]


def answer(document: Any) -> Answer:
    """Raises WattfleetError for an answer of another shape: the hub runs another release."""
    try:
        return Answer(
            datetime.fromisoformat(document["now"]),
            {name: _site(row) for name, row in document["sites"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WattfleetError(
            f"the hub's answer to `energy-hub health` has another shape ({error!r}): it runs another release"
        ) from None


def _site(row: dict[str, Any]) -> Health:
    names = Meter.__dataclass_fields__
    return Health(
        span=Span(datetime.fromisoformat(row["since"]), datetime.fromisoformat(row["until"])),
        meters={
            name: Meter(**{key: value for key, value in meter.items() if key in names})
            for name, meter in row["meters"].items()
        },
        buses=row["buses"],
        complete_until=_moment(row["complete_until"]),
        newest=_moment(row["newest_reading"]),
        least_delay=row["delay"]["least"],
        usual_delay=row["delay"]["p99"],
        version=row["status"].get("version"),
        chain=row["chain"],
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
