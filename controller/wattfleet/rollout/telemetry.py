# SPDX-License-Identifier: Apache-2.0
"""What the readings say of a site in its soak: asks the hub, and judges.

Times are those at the source. What the hub does not have yet counts as neither measured nor missing: a soak is judged
once the hub knows that it has everything of it (`complete_until`). Whatever cannot be had, the hub itself included, is
inconclusive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from wattfleet.errors import WattfleetError
from wattfleet.rollout.gate_settings import GateSettings
from wattfleet.rollout.gates import Outcome, Verdict, judge
from wattfleet.rollout.health import Answer, Health, Span
from wattfleet.rollout.ledger import Record
from wattfleet.rollout.measures import measures, readings

# A hub whose clock, or whose answer, is so far from now says nothing about now.
STALE = timedelta(seconds=120)
DAY = timedelta(days=1)
# A baseline is looked for on so many days before, at the same time of the day.
DAYS_BACK = 7
# What is spent of the soak on waiting, for the site to settle and for the last readings to arrive, is a quarter each
# at most.
SPENT = 0.25
# Beyond the usual delay of its readings, in s.
ARRIVAL = 15.0
# A meter of which so many polls were due has had one, whenever its interval begins.
SURE_POLLS = 3


class Asked(Protocol):
    """The hub, as far as it is needed here: `wattfleet.hub.Hub`."""

    def health(self, spans: Mapping[str, Span]) -> Answer:
        """How sites fared, each over a span of its own. Raises WattfleetError."""


@dataclass(frozen=True)
class Soak:
    """A site's soak: when its first byte came (`touched`), from when it ran the release, until when it is watched."""

    touched: datetime
    span: Span
    target: str

    @staticmethod
    def of(record: Record) -> Soak:
        """From the site's record in the ledger. Raises WattfleetError."""
        try:
            touched, until = record.data["touched"], record.data["soak_until"]
        except KeyError as missing:
            raise WattfleetError(f"the ledger does not say {missing} of it") from None
        return Soak(_moment(touched), Span(_moment(record.since), _moment(until)), str(record.data["target"]))


class Telemetry:
    """Verdicts of soaking sites. `now` is the controller's clock, in s since 1970.

    `record.data["look"]` is what the gateway itself said last: version, services, clock. Every call asks the hub, and
    several threads may call.
    """

    def __init__(
        self, hub: Asked, settings: GateSettings | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings or GateSettings()
        self._hub = hub
        self._now = now
        self._baselines: dict[tuple[str, Soak], Health] = {}

    def verdict(self, site: str, record: Record) -> Verdict:
        """What the gate of one site says."""
        return self.verdicts({site: record})[site]

    def verdicts(self, records: Mapping[str, Record]) -> dict[str, Verdict]:
        """What the gates of several sites say, with one question to the hub for all."""
        found: dict[str, Verdict] = {}
        soaks: dict[str, Soak] = {}
        for site, record in records.items():
            try:
                soaks[site] = Soak.of(record)
            except WattfleetError as error:
                found[site] = Verdict(Outcome.INCONCLUSIVE, str(error))
        told = {site: records[site].data.get("look") or {} for site in soaks}
        return found | self._judged(soaks, told)

    def _judged(self, soaks: Mapping[str, Soak], told: Mapping[str, Mapping[str, Any]]) -> dict[str, Verdict]:
        moment = datetime.fromtimestamp(self._now(), UTC)
        trouble = ""
        seen: Mapping[str, Health] = {}
        if soaks:
            try:
                self._look_for_baselines(soaks)
                spans = {site: self._span(site, soak) for site, soak in soaks.items()}
                seen = self._ask(spans)
            except WattfleetError as error:
                trouble = str(error)
        found = {}
        for site, soak in soaks.items():
            health, baseline = seen.get(site), self._baselines.get((site, soak))
            if moment < soak.span.until:
                found[site] = self._early(soak, health, baseline, trouble)
            else:
                found[site] = self._late(site, soak, health, baseline, told[site], trouble)
        return found

    # Asking.

    def _ask(self, spans: Mapping[str, Span]) -> Mapping[str, Health]:
        answer = self._hub.health(spans)
        apart = answer.now - datetime.fromtimestamp(self._now(), UTC)
        if abs(apart) > STALE:
            raise WattfleetError(
                f"the hub answers as of {answer.now:%Y-%m-%d %H:%M:%S} UTC, {abs(apart).total_seconds():.0f} s from "
                "this machine's clock: its answer is stale, or one of the clocks is wrong"
            )
        return answer.sites

    def _span(self, site: str, soak: Soak) -> Span:
        """What is judged of a soak: not its beginning, nor the end whose readings cannot all be here yet."""
        baseline = self._baselines.get((site, soak))
        delay = (baseline.usual_delay if baseline else None) or 0.0
        begin, end = spent(soak.span.seconds, self.settings.settle, max(delay, 0.0))
        return Span(soak.span.since + timedelta(seconds=begin), soak.span.until - timedelta(seconds=end))

    def _look_for_baselines(self, soaks: Mapping[str, Soak]) -> None:
        new = {site: soak for site, soak in soaks.items() if (site, soak) not in self._baselines}
        if not new:
            return
        direct = self._ask({site: just_before(soak) for site, soak in new.items()})
        days = {site: span for site, soak in new.items() if (span := same_time_of_day(soak))}
        daily = self._ask(days) if days else {}
        for site, soak in new.items():
            baseline = choose(direct.get(site), daily.get(site), self.settings.samples)
            if baseline is not None:
                self._baselines[site, soak] = baseline

    # Judging.

    def _early(self, soak: Soak, health: Health | None, baseline: Health | None, trouble: str) -> Verdict:
        """Before the soak is over only one thing is sure enough: nothing at all is measured any more."""
        if health is None or baseline is None:
            return Verdict(Outcome.INCONCLUSIVE, f"in its soak; {trouble or _missing(health)}")
        measured = measured_seconds(health, baseline)
        found = readings(health, baseline, self.settings, measured)
        check = self.settings[found.name]
        # Where every meter has a slow interval, none need have fallen into the time that is over.
        most = max((meter.answered for meter in baseline.meters.values()), default=0)
        certain = most / baseline.span.seconds * measured >= SURE_POLLS
        decides = check.enabled and not check.dry_run
        if found.value == 0 and found.outcome is Outcome.FAIL and certain and decides:
            return Verdict(Outcome.FAIL, f"no value in {measured:.0f} s, with {found.samples} polls due")
        return Verdict(Outcome.INCONCLUSIVE, f"in its soak until {soak.span.until:%H:%M:%S} UTC")

    def _late(
        self,
        site: str,
        soak: Soak,
        health: Health | None,
        baseline: Health | None,
        told: Mapping[str, Any],
        trouble: str,
    ) -> Verdict:
        """After the soak: all checks, once all that was measured in it is here."""
        whole = health is not None and measured_seconds(health, baseline) >= health.span.seconds
        # Without readings no check of theirs passes; a gate that has none of them does not need the hub.
        verdict = judge(measures(health if whole else None, baseline, told, soak.target, self.settings))
        if verdict.outcome is Outcome.INCONCLUSIVE and health is not None and not whole:
            early = self._early(soak, health, baseline, trouble)
            if early.outcome is Outcome.FAIL:
                return early
            until = f"{health.complete_until:%H:%M:%S} UTC" if health.complete_until else "an unknown time"
            why = f"what {site} measured is here until {until} only, {health.span.until:%H:%M:%S} UTC is waited for"
            return Verdict(Outcome.INCONCLUSIVE, why)
        if verdict.outcome is Outcome.INCONCLUSIVE and (trouble or health is None or baseline is None):
            return Verdict(Outcome.INCONCLUSIVE, f"{trouble or _missing(health)}; {verdict.why}")
        return verdict


def spent(soak: float, settle: float, delay: float) -> tuple[float, float]:
    """What of a soak is not judged at its beginning and at its end. All in s; `delay` is that of the readings."""
    most = soak * SPENT
    return min(settle, most), min(delay + ARRIVAL, most)


def just_before(soak: Soak) -> Span:
    """As long as the soak, and over when the site was touched first."""
    return Span(soak.touched - (soak.span.until - soak.span.since), soak.touched)


def same_time_of_day(soak: Soak) -> Span | None:
    """The soak's own time on the last day on which it ended before the site was touched."""
    for days in range(1, DAYS_BACK + 1):
        if soak.span.until - days * DAY <= soak.touched:
            return Span(soak.span.since - days * DAY, soak.span.until - days * DAY)
    return None


def choose(direct: Health | None, daily: Health | None, samples: int) -> Health | None:
    """The baseline: at the same time of the day, as the sun has it, where the site had the meters that it has today and
    was polled enough; else just before. One of which not all is here yet is none."""
    direct, daily = (
        one if one and measured_seconds(one) >= one.span.seconds else None for one in (direct, daily)
    )
    if daily is None or daily.total("polls") < samples:
        return direct
    return daily if direct is None or daily.meters.keys() >= direct.meters.keys() else direct


def measured_seconds(health: Health, baseline: Health | None = None) -> float:
    """How much of the span is over for the hub: all that was measured in so much of it is here.

    Statistics arrive an interval after their time; how long that is, a site that is well has told.
    """
    if health.complete_until is None:
        return 0.0
    wait = max(health.longest_wait, baseline.longest_wait if baseline else 0.0, 0.0)
    end = health.complete_until - timedelta(seconds=wait)
    return max((min(end, health.span.until) - health.span.since).total_seconds(), 0.0)


def _missing(health: Health | None) -> str:
    if health is None:
        return "the hub has never heard of it"
    return "there are no readings from before to compare with, or not all of them are here"


def _moment(milliseconds: Any) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)
