# SPDX-License-Identifier: Apache-2.0
"""The plan: who, in what order, when, and why. It is computed and changes nothing.

The digest covers what decides (release, limits, waves), not the estimates: those follow the clock, and a plan that
was read in the morning is still the same in the evening.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from wattfleet.errors import WattfleetError
from wattfleet.rollout.foresight import doubts
from wattfleet.rollout.gate_settings import GateSettings
from wattfleet.rollout.model import Release, Settings, Site
from wattfleet.rollout.windows import Always, Window


class PlanError(WattfleetError):
    """No plan can be made; one line says why and what would help."""


@dataclass(frozen=True)
class PlannedSite:
    """A site's place in the plan. `bytes` go over its link and cost `cost`; the times are estimates.

    Between `begin` and `install` the image travels, between `install` and `end` it is installed and watched.
    """

    site: str
    wave: int
    why: str
    bytes: int
    cost: float
    begin: datetime
    install: datetime
    end: datetime


@dataclass(frozen=True)
class Plan:
    """`waves` holds names, the canary's first; `terms` is what counts of a site; `skipped` is site -> why.

    `doubts` are the sites whose gates will not know what to say, as it looks now: site -> why.
    """

    release: Release
    settings: Settings
    waves: tuple[tuple[str, ...], ...]
    skipped: dict[str, str]
    terms: dict[str, dict[str, Any]]
    sites: tuple[PlannedSite, ...]
    doubts: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over what decides, in hex."""
        content = {
            "release": asdict(self.release),
            "settings": asdict(self.settings),
            "waves": self.waves,
            "skipped": self.skipped,
            # What was measured of a link changes the estimates only.
            "terms": {
                site: {key: value for key, value in terms.items() if key != "expected_rate"}
                for site, terms in self.terms.items()
            },
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def end(self) -> datetime | None:
        """When the last site is expected to be done; None when there is nothing to do."""
        return max((one.end for one in self.sites), default=None)


def make_plan(
    sites: Iterable[Site],
    release: Release,
    settings: Settings,
    rings: Sequence[str],
    now: datetime,
    gates: GateSettings | None = None,
) -> Plan:
    """Order the sites. Raises PlanError."""
    known = {site.name: site for site in sites}
    skipped = {name: why for name, site in known.items() if (why := _reason_to_skip(site, release))}
    chosen = [site for name, site in known.items() if name not in skipped]
    strange = sorted({site.ring for site in chosen} - set(rings))
    if strange:
        raise PlanError(f"ring {strange[0]!r} is none of the fleet's: {', '.join(rings)}")
    if settings.max_offline < 1:
        raise PlanError("max_offline is 0: at least one site has to be allowed to be away")
    order = sorted(chosen, key=lambda site: (site.critical, rings.index(site.ring), site.name))
    if order and order[0].critical:
        raise PlanError(
            "every site is critical, so that there is none to try the release on: name one that is not, "
            "or roll it out by hand"
        )
    waves = _waves(order, settings)
    return Plan(
        release,
        settings,
        tuple(tuple(site.name for site in wave) for wave in waves),
        skipped,
        {site.name: site.terms() for site in order},
        tuple(_planned(waves, release, settings, now)),
        doubts(order, settings.soak, gates or GateSettings()),
    )


def _reason_to_skip(site: Site, release: Release) -> str:
    if site.version == release.version:
        return f"runs {release.version} already"
    if release.models and site.model not in release.models:
        return f"is a {site.model}; the release is for {', '.join(release.models)}"
    return ""


def _waves(order: Sequence[Site], settings: Settings) -> list[list[Site]]:
    """The canary alone, then waves that grow. None has sites of two rings, critical and other ones, or a pair."""
    waves: list[list[Site]] = []
    waiting = list(order)
    size = 1.0
    while waiting:
        first = waiting[0]
        wave: list[Site] = []
        names: set[str] = set()
        barred: set[str] = set()  # who stands in for one of the wave
        later: list[Site] = []
        for site in waiting:
            if (
                len(wave) < int(size)
                and (site.critical, site.ring) == (first.critical, first.ring)
                and site.name not in barred
                and site.pair not in names
            ):
                wave.append(site)
                names.add(site.name)
                barred.add(site.pair or "")
            else:
                later.append(site)
        waves.append(wave)
        waiting = later
        size = max(size * settings.growth, size + 1)
    return waves


@dataclass(frozen=True)
class Work:
    """What is left to do at a site: `seconds` of transfer, then an installation within the window."""

    site: str
    seconds: float
    window: Window | Always


@dataclass(frozen=True)
class Estimate:
    """When a site is expected to be worked on."""

    begin: datetime
    install: datetime
    end: datetime


def estimates(
    waves: Iterable[Sequence[Work]], install: float, settings: Settings, now: datetime
) -> Iterator[tuple[Work, Estimate]]:
    """A wave begins when the one before has soaked; in a wave no more than `max_offline` are worked on at once."""
    begin = now
    work = timedelta(seconds=install + settings.soak)
    for wave in waves:
        ends = []
        for index, one in enumerate(wave):
            ready = begin + timedelta(seconds=one.seconds) + index // settings.max_offline * work
            window = one.window.current_or_next(ready)
            if window.end - max(window.start, ready) < timedelta(seconds=install):
                window = one.window.current_or_next(window.end)
            start = max(window.start, ready)
            ends.append(start + work)
            yield one, Estimate(begin, start, start + work)
        begin = max(ends, default=begin)


def _planned(
    waves: Sequence[Sequence[Site]], release: Release, settings: Settings, now: datetime
) -> Iterator[PlannedSite]:
    known = {site.name: (number, site) for number, wave in enumerate(waves) for site in wave}
    work = [
        [Work(site.name, release.size / site.expected_rate, site.window) for site in wave] for wave in waves
    ]
    for one, found in estimates(work, release.install, settings, now):
        number, site = known[one.site]
        cost = round(release.size / 1e6 * site.price, 2)
        yield PlannedSite(
            site.name, number, _why(site, number), release.size, cost, found.begin, found.install, found.end
        )


def _why(site: Site, wave: int) -> str:
    if wave == 0:
        return f"canary: the first site of ring {site.ring} that is not critical"
    text = f"critical, so after all others; ring {site.ring}" if site.critical else f"ring {site.ring}"
    return text + (f"; not with {site.pair}, which stands in for it" if site.pair else "")
