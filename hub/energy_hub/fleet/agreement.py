# SPDX-License-Identifier: Apache-2.0
"""Whether the supply's meter of each site agrees with its other meters, over the last whole day of the site.

By hours for all sites at once, which is what a large fleet can pay at every look. Where they differ, quarter of an hour
by quarter of an hour and with the likely cause, as `energy-hub reconcile` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from energy_hub.causes.search import LEAST
from energy_hub.fleet import queries
from energy_hub.fleet.meters import MAIN, Description, Meter
from energy_hub.reconcile import LIMIT, PARTS, Verdict, measured, phases_of, power_of, reconcile

Row = dict[str, Any]
Ask = Callable[..., list[Row]]
HOUR = timedelta(hours=1)
QUARTERS_OF_AN_HOUR = 4
# Causes are looked for at so many sites of a database, those with most between their meters first.
MOST_EXPLAINED = 500


@dataclass(frozen=True)
class Day:
    """A site of the fleet and its last whole day. `since` is later than `begins` where its file was changed since."""

    site: int
    described: Description
    meters: tuple[Meter, ...]
    begins: datetime
    since: datetime
    until: datetime

    @property
    def needed(self) -> list[Meter]:
        return [one for one in self.meters if one.role in (MAIN, *PARTS)]


def verdicts(ask: Ask, days: Sequence[Day]) -> dict[int, Verdict]:
    """By site; `ask` answers a query of `queries`."""
    found: dict[int, Verdict] = {}
    asked = []
    for one in days:
        known = _without_figures(one)
        if known is None:
            asked.append(one)
        else:
            found[one.site] = known
    hours = _by_hours(ask, asked)
    found |= {one.site: _of_hours(hours.get(one.site)) for one in asked}
    differing = [one for one in asked if found[one.site].state == "differs"]
    differing.sort(key=lambda one: -abs(found[one.site].residual))
    return found | _by_quarters(ask, differing[:MOST_EXPLAINED])


def _without_figures(day: Day) -> Verdict | None:
    """Where nothing has to be asked to know that nothing can be said."""
    if not any(one.role == MAIN for one in day.needed) or not any(one.role in PARTS for one in day.needed):
        # In the words of the one who knows.
        return reconcile(measured(day.described.meters, {}))
    silent = [one.name for one in day.needed if one.power is None]
    if silent:
        return _unknown(f"{silent[0]} has not told its power yet")
    if day.until - day.since < LEAST / QUARTERS_OF_AN_HOUR * HOUR:
        return _unknown("the site's file was changed since")
    return None


def _by_hours(ask: Ask, days: Sequence[Day]) -> dict[int, Row]:
    wanted = [(day, one) for day in days for one in day.needed]
    rows = ask(
        queries.AGREEMENT,
        points=[one.power for _, one in wanted],
        sites=[day.site for day, _ in wanted],
        supplies=[one.role == MAIN for _, one in wanted],
        meters=[len(day.needed) for day, _ in wanted],
        since=[day.since for day, _ in wanted],
        until=[day.until for day, _ in wanted],
    )
    return {row["site"]: row for row in rows}


def _of_hours(row: Row | None) -> Verdict:
    hours = row["hours"] if row else 0
    if row is None or hours * QUARTERS_OF_AN_HOUR < LEAST:
        return _unknown(
            f"all meters have measured in {hours} hours, and {LEAST // QUARTERS_OF_AN_HOUR} are needed"
        )
    share = row["residual"] / row["size"] if row["size"] else None
    differs = row["residual"] > 0 if share is None else share > LIMIT
    energies = row["supply"], row["parts"], row["supply"] - row["parts"]
    state = "differs" if differs else "agrees"
    return Verdict(state, hours * QUARTERS_OF_AN_HOUR, *energies, share, ())


def _by_quarters(ask: Ask, days: Sequence[Day]) -> dict[int, Verdict]:
    if not days:
        return {}
    powers = _asked(ask, queries.QUARTERS, days, lambda listed: [power_of(one) for one in listed])
    phases = _asked(ask, queries.PHASES, days, phases_of)
    return {
        day.site: reconcile(
            measured(day.described.meters, powers.get(day.site, {}) | phases.get(day.site, {}))
        )
        for day in days
    }


def _asked(
    ask: Ask, query: str, days: Sequence[Day], names: Callable[[Sequence[Mapping[str, Any]]], list[str]]
) -> dict[int, dict[str, dict[datetime, float]]]:
    """site -> point -> power by its time."""
    wanted = [(day, name) for day in days for name in names(day.described.meters)]
    rows = ask(
        query,
        sites=[day.site for day, _ in wanted],
        names=[name for _, name in wanted],
        begins=[day.begins for day, _ in wanted],
        since=[day.since for day, _ in wanted],
        until=[day.until for day, _ in wanted],
    )
    found: dict[int, dict[str, dict[datetime, float]]] = {}
    for row in rows:
        found.setdefault(row["site"], {})[row["name"]] = {
            datetime.fromtimestamp(at, UTC): power
            for at, power in zip(row["starts"], row["powers"], strict=True)
        }
    return found


def _unknown(why: str) -> Verdict:
    return Verdict("unknown", 0, 0.0, 0.0, 0.0, None, (why,))
