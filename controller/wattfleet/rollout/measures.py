# SPDX-License-Identifier: Apache-2.0
"""The figures that a gate looks at, each against the site's own baseline. docs/explanation/gates.md has the reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from wattfleet.rollout.chance import allowed
from wattfleet.rollout.gate_settings import GateSettings
from wattfleet.rollout.gates import Measure
from wattfleet.rollout.health import Health, Meter

# A meter's polls come on a schedule, not by chance: of so many that were due, missing a fifth is no accident.
LEAST_POLLS = 10


def measures(
    soak: Health | None,
    baseline: Health | None,
    told: Mapping[str, Any],
    target: str | None,
    settings: GateSettings,
) -> list[Measure]:
    """All checks that are on, in a fixed order. `told` is what the gateway itself said last (`look`): version,
    services, clock. Without `target` no version is right or wrong. None for what could not be had."""
    found = [*_from_readings(soak, baseline, settings), *_from_buses(soak, baseline, settings)]
    found += [_services(told), _clock(told, soak, baseline, settings)]
    if target is not None:
        found.append(_version(told, target))
    return [replace(one, dry_run=settings[one.name].dry_run) for one in found if settings[one.name].enabled]


# What arrived.


def _from_readings(soak: Health | None, baseline: Health | None, settings: GateSettings) -> Iterator[Measure]:
    yield readings(soak, baseline, settings)
    yield _worst_meter(soak, baseline, settings)
    for name in ("nulls", "uncertain"):
        yield _share(name, soak, baseline, settings)


def expected_polls(baseline: Health, seconds: float) -> float:
    """How many answered polls so many seconds bring, as the baseline went."""
    return baseline.total("answered") / baseline.span.seconds * seconds


def readings(
    soak: Health | None, baseline: Health | None, settings: GateSettings, seconds: float | None = None
) -> Measure:
    """Values a second, in relation to the baseline. The samples are the polls that were due: what does not come has to
    count. `seconds` is how much of the soak was measured, when it is not all."""
    limit = settings["readings"].limit
    if soak is None or baseline is None:
        return Measure("readings", None, limit, 0, at_least=True, needed=settings.samples)
    length = soak.span.seconds if seconds is None else seconds
    due = expected_polls(baseline, length)
    before = (baseline.total("readings") - baseline.total("nulls")) / baseline.span.seconds
    now = soak.total("readings") - soak.total("nulls")
    value = now / (before * length) if before > 0 and length > 0 else None
    return Measure("readings", value, limit, round(due), at_least=True, needed=settings.samples)


def _worst_meter(soak: Health | None, baseline: Health | None, settings: GateSettings) -> Measure:
    """The meter that lost most of its values. One poll is forgiven: the span may begin or end between two."""
    worst = Measure("meters", None, settings["meters"].limit, 0, at_least=True, needed=LEAST_POLLS)
    if soak is None or baseline is None:
        return worst
    for name, before in baseline.meters.items():
        due = before.answered / baseline.span.seconds * soak.span.seconds
        if due < LEAST_POLLS:
            continue
        now = soak.meters.get(name, Meter())
        values = (before.readings - before.nulls) / baseline.span.seconds * soak.span.seconds
        value = min((now.readings - now.nulls + before.points) / values, 1.0)
        if worst.value is None or value < worst.value:
            worst = replace(worst, value=value, samples=round(due), note=name)
    return worst


def _share(name: str, soak: Health | None, baseline: Health | None, settings: GateSettings) -> Measure:
    """The share of readings that are bad (nulls) or uncertain.

    The points of one poll fail together, so they are one trial: faults count as polls' worth of readings.
    """
    samples = soak.total("polls") if soak else 0
    value = limit = None
    if soak is not None and soak.total("readings"):
        value = soak.total(name) / soak.total("readings")
    before = baseline.total("polls") if baseline else 0
    if baseline is not None and samples and before >= settings.samples:
        faults = baseline.total(name) / baseline.total("readings") * before
        limit = min(_limit(settings, name, faults, before, samples, 1), 1.0)
    return Measure(name, value, limit, samples, needed=settings.samples)


# What the buses count.


def _from_buses(soak: Health | None, baseline: Health | None, settings: GateSettings) -> Iterator[Measure]:
    for name in ("crc_errors", "timeouts"):
        yield _errors(name, soak, baseline, settings)


def _errors(name: str, soak: Health | None, baseline: Health | None, settings: GateSettings) -> Measure:
    """Errors per 1,000 requests."""
    requests, errors = _counted(soak, name)
    requests_before, errors_before = _counted(baseline, name)
    value = 1000 * errors / requests if requests else None
    limit = None
    if requests and requests_before >= settings.samples:
        limit = _limit(settings, name, errors_before, requests_before, requests, 1000)
    return Measure(name, value, limit, requests, needed=settings.samples)


def _counted(health: Health | None, name: str) -> tuple[int, int]:
    if health is None:
        return 0, 0
    return health.counted("requests") or 0, health.counted(name) or 0


def _limit(
    settings: GateSettings, name: str, before: float, trials_before: float, trials: float, each: int
) -> float:
    """How many faults in `each` trials are right: as before, or by what the settings say."""
    check = settings[name]
    found = allowed(before, trials_before, trials, check.margin or 1.0)
    return max(each * found / trials, check.limit or 0.0)


# What the gateway itself says.


def _services(told: Mapping[str, Any]) -> Measure:
    services = told.get("services")
    if not isinstance(services, Mapping) or not services:
        return Measure("services", None, 0, 0, needed=1)
    down = sorted(name for name, active in services.items() if active is not True and active != "active")
    return Measure("services", len(down), 0, len(services), needed=1, note=", ".join(down))


def _clock(
    told: Mapping[str, Any], soak: Health | None, baseline: Health | None, settings: GateSettings
) -> Measure:
    """How many s the clock is off: as the gateway tells it, else by how much its fastest readings got faster or slower.

    The least delay of many is the one that queues had no part in, so that what is left of a difference is the clock's:
    the minimum filter of NTP (RFC 5905, section 10).
    """
    limit = settings["clock"].limit
    offset = told.get("clock")
    if isinstance(offset, int | float):
        return Measure("clock", abs(offset), limit, 1, needed=1)
    if soak is None or baseline is None or soak.least_delay is None or baseline.least_delay is None:
        return Measure("clock", None, limit, 0, needed=1)
    shift = abs(soak.least_delay - baseline.least_delay)
    return Measure(
        "clock", shift, limit, soak.total("polls"), needed=settings.samples, note="by its readings"
    )


def _version(told: Mapping[str, Any], target: str) -> Measure:
    version = told.get("version")
    if not version:
        return Measure("version", None, 1, 0, at_least=True, needed=1)
    note = f"{version}, {target} is right"
    return Measure("version", float(version == target), 1, 1, at_least=True, needed=1, note=note)
