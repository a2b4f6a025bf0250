# SPDX-License-Identifier: Apache-2.0
"""`wattfleet gates`: the figures that a gate would decide by, now. Asks the hub alone, and changes nothing."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from wattfleet_lab import option
from wattfleet_lab.state import State

from wattfleet.errors import WattfleetError
from wattfleet.hub import Hub
from wattfleet.rollout.gate_settings import GateSettings, gate_settings
from wattfleet.rollout.gates import Measure, Outcome, Verdict, judge
from wattfleet.rollout.health import Health, Span
from wattfleet.rollout.measures import measures
from wattfleet.rollout.telemetry import DAY, Asked, choose, measured_seconds

MINUTES = 15.0
STYLES = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.INCONCLUSIVE: "yellow"}
# What only the gateway itself tells; the hub is all that is asked here.
NOT_ASKED = ("services", "version")


@dataclass(frozen=True)
class Seen:
    """One site: what was measured over which spans, and what follows."""

    site: str
    span: Span
    baseline: Span | None
    measures: list[Measure]
    verdict: Verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `wattfleet gates`."""
    parser.add_argument("sites", nargs="+", metavar="SITE")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="how long a span is (default: %(default)g)"
    )
    parser.add_argument(
        "--since",
        type=moment,
        metavar="T",
        help="its first time, ISO 8601 (default: the newest span that is here)",
    )
    parser.add_argument(
        "--baseline",
        type=moment,
        metavar="T",
        help="first time of the span to compare with (default: the same time of the day before, or just before)",
    )
    parser.add_argument(
        "--inventory",
        type=Path,
        metavar="FILE",
        help="the fleet file with the key gates (default: the lab's)",
    )
    parser.add_argument(
        "--ssh-config", type=Path, metavar="FILE", help="for `ssh -F FILE hub` (default: the lab's)"
    )
    option.add_to(parser, "the lab that is asked")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """0 when every site passes, 1 otherwise."""
    if arguments.minutes <= 0:
        raise WattfleetError(f"--minutes is {arguments.minutes:g}, expected more than 0")
    state = State.of(arguments.lab)
    settings = _settings(arguments.inventory or state.inventory / "fleet.sites.yml")
    hub = Hub(arguments.ssh_config or state.ssh_config)
    length = timedelta(minutes=arguments.minutes)
    found = look(
        hub, list(dict.fromkeys(arguments.sites)), length, settings, arguments.since, arguments.baseline
    )
    if arguments.json:
        print(json.dumps([_plain(one) for one in found], indent=2))
    else:
        _show(found)
    return 0 if all(one.verdict.outcome is Outcome.PASS for one in found) else 1


def look(
    hub: Asked,
    sites: Sequence[str],
    length: timedelta,
    settings: GateSettings,
    since: datetime | None = None,
    baseline: datetime | None = None,
) -> list[Seen]:
    """Judge sites over a span of `length`. Raises WattfleetError."""
    latest = _latest(hub, sites, length) if since is None else {}
    spans = {site: Span(since, since + length) if since else latest[site] for site in sites}
    soaks = hub.health(spans).sites
    _all_known(sites, soaks)
    before = _baselines(hub, spans, length, settings, baseline)
    found = []
    for site in sites:
        checks = [
            one
            for one in measures(soaks[site], before.get(site), {}, None, settings)
            if one.name not in NOT_ASKED
        ]
        against = before[site].span if site in before else None
        found.append(Seen(site, spans[site], against, checks, judge(checks)))
    return found


def _latest(hub: Asked, sites: Sequence[str], length: timedelta) -> dict[str, Span]:
    """For each site the span whose end is the newest time of which everything is here."""
    now = datetime.fromtimestamp(time.time(), UTC)
    recent = Span(now - length, now)
    asked = hub.health(dict.fromkeys(sites, recent)).sites
    _all_known(sites, asked)
    spans = {}
    for site, health in asked.items():
        end = recent.since + timedelta(seconds=measured_seconds(health))
        # Of a site that has been silent for longer than a span, the last minutes show it.
        spans[site] = Span(end - length, end) if end > recent.since else recent
    return spans


def _baselines(
    hub: Asked,
    spans: dict[str, Span],
    length: timedelta,
    settings: GateSettings,
    baseline: datetime | None,
) -> dict[str, Health]:
    if baseline is not None:
        for site, span in spans.items():
            if baseline + length > span.since and baseline < span.until:
                raise WattfleetError(
                    f"{site}: --baseline overlaps with what it is compared with; choose an earlier time"
                )
        return dict(hub.health({site: Span(baseline, baseline + length) for site in spans}).sites)
    direct = hub.health({site: Span(span.since - length, span.since) for site, span in spans.items()}).sites
    daily = hub.health({site: Span(span.since - DAY, span.until - DAY) for site, span in spans.items()}).sites
    chosen = {site: choose(direct.get(site), daily.get(site), settings.samples) for site in spans}
    return {site: health for site, health in chosen.items() if health is not None}


def _all_known(sites: Sequence[str], known: Any) -> None:
    missing = [site for site in sites if site not in known]
    if missing:
        raise WattfleetError(
            f"{', '.join(missing)}: the hub has never heard of it; `energy-hub status` names its sites"
        )


def _settings(fleet: Path) -> GateSettings:
    try:
        document = yaml.safe_load(fleet.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise WattfleetError(
            f"{fleet}: cannot be read as a fleet file: {' '.join(str(error).split())}"
        ) from None
    return gate_settings(document.get("gates") if isinstance(document, dict) else None)


def moment(text: str) -> datetime:
    """A time on the command line; UTC unless it says otherwise."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time like 2026-01-31T12:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


# Showing.


def _plain(one: Seen) -> dict[str, Any]:
    return {
        "site": one.site,
        "outcome": one.verdict.outcome.value,
        "why": one.verdict.why,
        "span": _span(one.span),
        "baseline": _span(one.baseline),
        "measures": [
            {
                "name": measure.name,
                "value": measure.value,
                "limit": measure.limit,
                "at_least": measure.at_least,
                "samples": measure.samples,
                "needed": measure.needed,
                "dry_run": measure.dry_run,
                "note": measure.note,
                "outcome": measure.outcome.value,
            }
            for measure in one.measures
        ],
    }


def _span(span: Span | None) -> dict[str, str] | None:
    return None if span is None else {"since": span.since.isoformat(), "until": span.until.isoformat()}


def _show(found: Sequence[Seen]) -> None:
    console = Console()
    for one in found:
        against = f"{one.baseline.since:%Y-%m-%d %H:%M:%S}" if one.baseline else "nothing"
        table = Table(
            title=f"{one.site}: {one.span.since:%Y-%m-%d %H:%M:%S} to {one.span.until:%H:%M:%S} UTC, "
            f"against {against}",
            title_justify="left",
        )
        for head in ("check", "value", "right", "samples", "says"):
            table.add_column(head)
        for measure in one.measures:
            sign = "≥" if measure.at_least else "≤"
            name = f"{measure.name} ({measure.note})" if measure.note else measure.name
            says = measure.outcome.value + (", dry run" if measure.dry_run else "")
            table.add_row(
                name,
                "-" if measure.value is None else f"{measure.value:.4g}",
                "-" if measure.limit is None else f"{sign} {measure.limit:.4g}",
                f"{measure.samples}"
                if measure.samples >= measure.needed
                else f"{measure.samples} of {measure.needed}",
                f"[{STYLES[measure.outcome]}]{says}[/]",
            )
        console.print(table)
        console.print(f"{one.site}: [{STYLES[one.verdict.outcome]}]{one.verdict.outcome.value}[/]")
