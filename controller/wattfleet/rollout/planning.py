# SPDX-License-Identifier: Apache-2.0
"""The plan: who, in what order, when, and why. It is computed and changes nothing.

The digest covers what decides (release, limits, waves), not the estimates: those follow the clock, and a plan that
was read in the morning is still the same in the evening.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from wattfleet.errors import WattfleetError
from wattfleet.rollout.model import Release, Settings, Site


class PlanError(WattfleetError):
    """No plan can be made; one line says why and what would help."""


@dataclass(frozen=True)
class PlannedSite:
    """A site's place in the plan. `bytes` go over its link and cost `cost`; `begin` and `end` are estimates."""

    site: str
    wave: int
    why: str
    bytes: int
    cost: float
    begin: datetime
    end: datetime


@dataclass(frozen=True)
class Plan:
    """`waves` holds names, the first wave is the canary alone; `skipped` is site -> why."""

    release: Release
    settings: Settings
    waves: tuple[tuple[str, ...], ...]
    skipped: dict[str, str]
    sites: tuple[PlannedSite, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over what decides, in hex."""
        content = {
            "release": asdict(self.release),
            "settings": asdict(self.settings),
            "waves": self.waves,
            "skipped": self.skipped,
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def end(self) -> datetime | None:
        """When the last site is expected to be done; None when there is nothing to do."""
        return max((one.end for one in self.sites), default=None)


def make_plan(
    sites: Iterable[Site], release: Release, settings: Settings, rings: Sequence[str], now: datetime
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
        tuple(_estimates(waves, release, settings, now)),
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


def _estimates(
    waves: Sequence[Sequence[Site]], release: Release, settings: Settings, now: datetime
) -> Iterable[PlannedSite]:
    """When each site is expected to be worked on: a wave begins when the one before has soaked."""
    begin = now
    for number, wave in enumerate(waves):
        ends = []
        # No more than so many at once: the others of the wave come after them.
        for index, site in enumerate(wave):
            turn = index // settings.max_offline
            transferred = begin + timedelta(seconds=release.size / site.expected_rate)
            work = timedelta(seconds=release.install + settings.soak)
            window = site.window.current_or_next(transferred)
            if window.end - max(window.start, transferred) < timedelta(seconds=release.install):
                window = site.window.current_or_next(window.end)
            install = max(window.start, transferred) + turn * work
            end = install + work
            ends.append(end)
            yield PlannedSite(
                site.name,
                number,
                _why(site, number),
                release.size,
                round(release.size / 1e6 * site.price, 2),
                begin,
                end,
            )
        begin = max(ends, default=begin)


def _why(site: Site, wave: int) -> str:
    if wave == 0:
        return f"canary: the first site of ring {site.ring} that is not critical"
    text = f"critical, so after all others; ring {site.ring}" if site.critical else f"ring {site.ring}"
    return text + (f"; not with {site.pair}, which stands in for it" if site.pair else "")
