# SPDX-License-Identifier: Apache-2.0
"""How a rollout stands, as plain values: for `status`, for programs, and for the table that people watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from wattfleet.rollout.engine import Rollout
from wattfleet.rollout.ledger import Record
from wattfleet.rollout.planning import Estimate, Work, estimates
from wattfleet.rollout.states import AT_RISK, OVER, SETTLED, SiteState
from wattfleet.rollout.windows import window_of

# What may still happen by itself, or in the next window.
UNSETTLED = frozenset(SiteState) - SETTLED


@dataclass(frozen=True)
class SiteStatus:
    """A site. Times are ISO 8601 in UTC; `part` is what is done of its transfer, `rate` bytes/s as measured."""

    site: str
    state: str
    since: str
    why: str
    wave: int | None
    part: float
    rate: float | None
    version: str | None
    trouble: str | None
    deadline: str | None
    end: str | None


@dataclass(frozen=True)
class Status:
    """A rollout. `end` is expected, by the rates that were measured; None when it is over or waits for a person."""

    rollout: str
    state: str
    since: str
    why: str
    kind: str
    version: str
    direction: str
    wave: int
    waves: int
    counts: dict[str, int]
    at_risk: int
    max_offline: int
    end: str | None
    sites: list[SiteStatus]

    def document(self) -> dict[str, Any]:
        return asdict(self)


def status_of(rollout: Rollout, reasons: Mapping[str, str], now: datetime) -> Status:
    """As it stands at `now`."""
    ends = {work.site: estimate for work, estimate in _left(rollout, now)}
    places = rollout.places
    sites = [
        _site(name, record, reasons.get(name, ""), places.get(name), ends.get(name), rollout)
        for name, record in rollout.sites.items()
    ]
    waits = rollout.state in OVER
    release = rollout.record.data["release"]
    return Status(
        rollout=rollout.name,
        state=rollout.state.value,
        since=_time(rollout.record.since),
        why=reasons.get("", ""),
        kind=release["kind"],
        version=release["version"],
        direction=rollout.direction,
        wave=rollout.wave + 1,
        waves=len(rollout.waves),
        counts=dict(Counter(record.state for record in rollout.sites.values())),
        at_risk=sum(len(rollout.by_state[state]) for state in AT_RISK),
        max_offline=rollout.settings.max_offline,
        end=None
        if waits or not ends
        else max(one.end for one in ends.values()).isoformat(timespec="seconds"),
        sites=sorted(sites, key=lambda one: (one.wave is None, one.wave or 0, one.site)),
    )


def _site(
    name: str,
    record: Record,
    why: str,
    place: tuple[int, int] | None,
    estimate: Estimate | None,
    rollout: Rollout,
) -> SiteStatus:
    data = record.data
    deadline = data.get("deadline")
    settled = SiteState(record.state) in SETTLED or rollout.state in OVER
    return SiteStatus(
        site=name,
        state=record.state,
        since=_time(record.since),
        why=why,
        wave=place[0] + 1 if place else None,
        part=_part(record),
        rate=data.get("rate"),
        version=data.get("version"),
        trouble=data.get("trouble"),
        deadline=_time(deadline) if deadline is not None else None,
        end=None if settled or estimate is None else estimate.end.isoformat(timespec="seconds"),
    )


def _part(record: Record) -> float:
    """What has been transferred, from 0 to 1."""
    if SiteState(record.state) in (SiteState.PENDING, SiteState.DUE, SiteState.TRANSFERRING):
        length = record.data.get("length")
        return record.data.get("offset", 0) / length if length else 0.0
    return 1.0


def _left(rollout: Rollout, now: datetime) -> list[tuple[Work, Estimate]]:
    """What is left to do, and when. A site in its soak, or about to reboot, counts as one that is begun now."""
    size = float(rollout.record.data["release"]["size"])
    measured: dict[str, list[float]] = {}
    for record in rollout.sites.values():
        if "rate" in record.data:
            measured.setdefault(record.data.get("link", ""), []).append(record.data["rate"])
    usual = {link: median(rates) for link, rates in measured.items()}
    waves = []
    for wave in rollout.waves[rollout.wave :]:
        work = []
        for name in wave:
            record = rollout.sites[name]
            if SiteState(record.state) in SETTLED:
                continue
            data = record.data
            rate = data.get("rate") or usual.get(data.get("link", "")) or data.get("expected_rate") or 1.0
            rate = min(rate, data.get("transfer_rate") or rate)
            begun = SiteState(record.state) in AT_RISK
            seconds = 0.0 if begun else (1 - _part(record)) * size / rate
            work.append(Work(name, seconds, window_of(None if begun else data.get("window"))))
        waves.append(work)
    install = float(rollout.record.data["release"]["install"])
    return list(estimates(waves, install, rollout.settings, now))


def _time(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds")
