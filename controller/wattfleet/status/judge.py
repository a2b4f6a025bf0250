# SPDX-License-Identifier: Apache-2.0
"""What of a site's figures is a trouble, and whether a person has to do something about it.

`act` needs a person. `watch` does not yet: it may heal, or get worse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

Site = Mapping[str, Any]
ACT, WATCH = "act", "watch"

# A gateway that reboots into a new release is offline for a few minutes.
AWAY = timedelta(minutes=10)
# Parts of what was expected, and of what was received.
MISSING_ACT, MISSING_WATCH = 0.01, 0.001
NULLS_ACT, NULLS_WATCH = 0.05, 0.01
# Of a sound line no request meets a CRC error; one in a thousand is a line that somebody has to look at.
CRC_ACT = 0.001
TIMEOUTS_ACT, TIMEOUTS_WATCH = 0.01, 0.001
# As playbooks/verify.yml has them: days, s.
CERTIFICATE_DAYS = 30
DELAY = 600.0


def findings(site: Site, now: datetime) -> list[dict[str, str]]:
    """Those of one site, the gravest first."""
    found = [*_presence(site, now), *_delivery(site), *_buses(site), *_meters(site), *_trust(site)]
    return [{"level": level, "text": text} for level, text in sorted(found, key=lambda one: one[0] != ACT)]


def needs_somebody(site: Site) -> bool:
    return any(one["level"] == ACT for one in site["findings"])


def worst_first(sites: Mapping[str, Site]) -> list[tuple[str, Site]]:
    """Those that need somebody, then those to watch; among them the more silent ones first."""
    silence = ("never seen", "offline", "late", "online")

    def rank(item: tuple[str, Site]) -> tuple[int, int, int, str]:
        name, site = item
        acts = sum(one["level"] == ACT for one in site["findings"])
        return -bool(acts) * 2 - bool(site["findings"]), silence.index(site["state"]), -acts, name

    return sorted(sites.items(), key=rank)


def _presence(site: Site, now: datetime) -> Iterator[tuple[str, str]]:
    state, since = site["state"], moment(site["since"])
    if state == "never seen":
        yield ACT, "the hub has never heard of it"
    elif state == "offline":
        away = None if since is None else now - since
        yield WATCH if away is not None and away < AWAY else ACT, "offline" + _for(away)
    elif state == "late":
        yield ACT, "no reading" + _for(None if since is None else now - since)
    if state != "never seen" and not site["described"]:
        yield WATCH, "the hub does not have its file: run playbooks/hub.yml"


def _delivery(site: Site) -> Iterator[tuple[str, str]]:
    delay, counted = site["delay"], site["completeness"]
    if delay and delay["p95"] > DELAY:
        yield WATCH, f"readings arrive late: p95 {span(timedelta(seconds=delay['p95']))}"
    if counted is None or not counted["expected"]:
        return
    missing = counted["missing"] / counted["expected"]
    if missing >= MISSING_WATCH:
        level = ACT if missing >= MISSING_ACT else WATCH
        yield level, f"{percent(missing)} of the readings of {counted['hours']} h are missing"
    nulls = counted["null"] / counted["received"] if counted["received"] else 0.0
    if nulls >= NULLS_WATCH:
        yield ACT if nulls >= NULLS_ACT else WATCH, f"{percent(nulls)} of the readings have no value"


def _buses(site: Site) -> Iterator[tuple[str, str]]:
    errors = site["bus_errors"]
    if not errors:
        return
    requests = max(1, errors["requests"])
    if errors["crc_errors"]:
        level = ACT if errors["crc_errors"] / requests >= CRC_ACT else WATCH
        yield level, f"{plural(errors['crc_errors'], 'CRC error')} in {requests} requests"
    part = errors["timeouts"] / requests
    if part >= TIMEOUTS_WATCH:
        level = ACT if part >= TIMEOUTS_ACT else WATCH
        yield level, f"{plural(errors['timeouts'], 'time-out')} in {requests} requests"


def _meters(site: Site) -> Iterator[tuple[str, str]]:
    found = site.get("agreement")
    if not found or found["state"] != "differs":
        return
    size = "" if found["share"] is None else f" by {percent(found['share'])} of the supply"
    cause = found["causes"][0] if found["causes"] else "energy-hub reconcile on the hub tells the cause"
    # A load that has no meter needs nobody. A meter that is wrong does, where it is clear which one.
    yield ACT if found["meter"] else WATCH, f"its meters differ{size}: {cause}"


def _trust(site: Site) -> Iterator[tuple[str, str]]:
    if site["chain"] == "broken":
        yield ACT, "its chain of batches is broken: run energy-audit verify on the hub"
    if site["certificate"]:
        days = site["certificate"]["days_left"]
        if days < 0:
            yield ACT, f"its certificate ended {plural(-days, 'day')} ago"
        elif days < CERTIFICATE_DAYS:
            yield ACT, f"its certificate ends in {plural(days, 'day')}"


# Words


def moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def span(length: timedelta) -> str:
    """Two figures are enough: 45 s, 12 min, 3 h, 5 d."""
    seconds = max(0.0, length.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (unit == "min" and seconds >= size):
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def percent(part: float) -> str:
    """Never 100 % where something is missing, never 0 % where there is something."""
    if 0 < part < 0.0001:
        return "under 0.01 %"
    return f"{100 * part:.2f} %" if part < 0.01 else f"{100 * part:.1f} %"


def complete(counted: Mapping[str, int] | None) -> float | None:
    """The part of the expected readings that are here, cut and not rounded, so that only all of them are 100 %."""
    if not counted or not counted["expected"]:
        return None
    return (1000 * (counted["expected"] - counted["missing"]) // counted["expected"]) / 10


def agreement(site: Site) -> str | None:
    """Of the supply's meter with the others: ok, or by how much they differ. Older hubs do not tell it."""
    found = site.get("agreement")
    if not found or found["state"] == "unknown":
        return None
    if found["state"] == "agrees":
        return "ok"
    return "differs" if found["share"] is None else percent(found["share"])


def plural(count: int, one: str) -> str:
    return f"{count} {one}" if count == 1 else f"{count} {one}s"


def sparkline(counts: Sequence[int]) -> str:
    """Hour by hour; a dot is none."""
    most = max(counts, default=0)
    if not most:
        return ""
    return "".join("▁▂▃▄▅▆▇█"[min(7, 8 * count // (most + 1))] if count else "·" for count in counts)


def _for(away: timedelta | None) -> str:
    return "" if away is None else f" for {span(away)}"
