# SPDX-License-Identifier: Apache-2.0
"""Verdicts from what a hub says: a hub that is computed from what a site measured and when it arrived."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from wattfleet.errors import WattfleetError
from wattfleet.rollout.gate_settings import gate_settings
from wattfleet.rollout.gates import Outcome, Verdict
from wattfleet.rollout.health import Answer, Health, Meter, Span, answer
from wattfleet.rollout.ledger import Record
from wattfleet.rollout.states import SiteState
from wattfleet.rollout.telemetry import DAY, Soak, Telemetry, choose, just_before, same_time_of_day

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
TOUCHED = datetime(2026, 11, 2, 5, 40, tzinfo=UTC)
BEGIN = datetime(2026, 11, 2, 6, 0, tzinfo=UTC)
END = BEGIN + timedelta(seconds=900)
TOLD: dict[str, Any] = {"version": "2.0", "services": {"energy-gateway": True}, "clock": 0.1}
# Whether a meter's poll at a time has an answer; None: it was not even polled.
Answers = Callable[[datetime], bool | None]


@dataclass
class Site:
    """Two meters at `interval` s, of which `pv` answers only while there is sun. `delivered` is until when everything
    has arrived at a time."""

    answers: Answers = lambda _: True
    sun: Answers = lambda _: True
    crc_errors: Callable[[datetime], int] = lambda _: 0
    delivered: Callable[[datetime], datetime] = lambda now: now - timedelta(seconds=12)
    interval: float = 10
    first: datetime = BEGIN - 3 * DAY


@dataclass
class FakeHub:
    sites: dict[str, Site]
    now: datetime = END
    off: timedelta = timedelta()
    is_up: bool = True
    asked: list[Mapping[str, Span]] = field(default_factory=list)

    def health(self, spans: Mapping[str, Span]) -> Answer:
        self.asked.append(spans)
        if not self.is_up:
            raise WattfleetError("the hub did not answer")
        found = {
            name: self._site(self.sites[name], span) for name, span in spans.items() if name in self.sites
        }
        return Answer(self.now + self.off, found)

    def _site(self, site: Site, span: Span) -> Health:
        here = site.delivered(self.now)
        step = timedelta(seconds=site.interval)
        count = int(span.seconds / site.interval)
        times = [span.since + number * step for number in range(count)]
        polled = [one for one in times if site.first <= one < here and site.answers(one) is not None]
        answered = [one for one in polled if site.answers(one)]
        main = _meter(len(polled), len(answered))
        pv = _meter(len(polled), sum(bool(site.sun(one)) for one in answered))
        errors = sum(site.crc_errors(one) for one in polled)
        return Health(
            span,
            {"main": main, "pv": pv} if polled else {},
            {"hall": {"requests": 6 * len(polled), "crc_errors": errors, "timeouts": 0}},
            here,
            here,
            least_delay=2.0,
            usual_delay=12.0,
        )


def _meter(polled: int, answered: int) -> Meter:
    return Meter(16, polled, answered, 16 * polled, 16 * (polled - answered), 0, 2.0)


def record(**data: Any) -> Record:
    usual = {
        "touched": int(TOUCHED.timestamp() * 1000),
        "soak_until": int(END.timestamp() * 1000),
        "target": "2.0",
        "attempt": 1,
    }
    return Record(SiteState.SOAKING.value, int(BEGIN.timestamp() * 1000), usual | data)


def verdict(hub: FakeHub, seconds: float, told: dict[str, Any] = TOLD, gates: Any = None) -> Verdict:
    """The verdict so many seconds after the soak has begun."""
    hub.now = BEGIN + timedelta(seconds=seconds)
    return Telemetry(hub, gate_settings(gates), hub.now.timestamp).verdict("a", record(look=told))


def hub_of(**site: Any) -> FakeHub:
    return FakeHub({"a": Site(**site)})


def since(moment: datetime, before: Any, after: Any) -> Callable[[datetime], Any]:
    return lambda time: before if time < moment else after


def test_a_site_that_is_well_passes_after_its_soak_and_not_before() -> None:
    for seconds in (0, 100, 450, 899):
        assert verdict(hub_of(), seconds).outcome is INCONCLUSIVE
    assert verdict(hub_of(), 900) == Verdict(PASS, "9 of 9 checks passed")


def test_a_site_whose_meters_are_silent_fails_before_its_soak_is_over() -> None:
    silent = hub_of(answers=since(BEGIN, True, False))
    assert verdict(silent, 200).outcome is INCONCLUSIVE
    early = verdict(silent, 400)
    assert early.outcome is FAIL
    assert early.why.startswith("no value in ")
    assert verdict(silent, 900).outcome is FAIL


def test_a_site_that_is_not_polled_at_all_fails_likewise() -> None:
    # The gateway's own readings go on, or its status says that nothing waits.
    assert verdict(hub_of(answers=since(BEGIN, True, None)), 400).outcome is FAIL


def test_a_site_that_delivers_late_is_waited_for() -> None:
    late = hub_of(delivered=lambda now: now - timedelta(seconds=600))
    early = verdict(late, 500)
    assert (early.outcome, early.why) == (INCONCLUSIVE, "in its soak until 06:15:00 UTC")
    waited = verdict(late, 950)
    assert waited.outcome is INCONCLUSIVE
    assert waited.why == "what a measured is here until 06:05:50 UTC only, 06:14:33 UTC is waited for"
    assert verdict(late, 1500).outcome is PASS


def test_a_site_that_delivers_late_and_measures_nothing_fails_once_that_is_known() -> None:
    late = hub_of(delivered=lambda now: now - timedelta(seconds=600), answers=since(BEGIN, True, False))
    assert verdict(late, 899).outcome is INCONCLUSIVE
    assert verdict(late, 1000).outcome is FAIL


def test_a_site_that_takes_a_while_after_its_reboot_is_given_it() -> None:
    slow = hub_of(answers=since(BEGIN + timedelta(seconds=55), None, True))
    wanted = {100: INCONCLUSIVE, 400: INCONCLUSIVE, 900: PASS}
    slow.sites["a"].answers = lambda time: None if BEGIN <= time < BEGIN + timedelta(seconds=55) else True
    assert {seconds: verdict(slow, seconds).outcome for seconds in wanted} == wanted
    assert verdict(slow, 900, gates={"settle": 0}).outcome is FAIL


def test_slow_meters_are_not_taken_for_dead_ones() -> None:
    # A hundred meters at 300 s: many polls are due in the first minutes, and none need have come.
    hub = hub_of(interval=300)
    original = hub._site

    def many(site: Site, span: Span) -> Health:
        health = original(site, span)
        meter = next(iter(health.meters.values()), Meter())
        health.__dict__["meters"] = {f"m{number}": meter for number in range(100)} if meter.polls else {}
        return health

    hub._site = many  # type: ignore[method-assign]  # a hub of many meters
    hub.sites["a"].answers = lambda time: None if BEGIN <= time < BEGIN + timedelta(seconds=290) else True
    assert verdict(hub, 280).outcome is INCONCLUSIVE


def test_errors_on_the_bus_above_the_baseline_fail_after_the_soak() -> None:
    worse = hub_of(crc_errors=since(BEGIN, 0, 2))
    assert verdict(worse, 500).outcome is INCONCLUSIVE
    found = verdict(worse, 900)
    assert found.outcome is FAIL
    assert found.why.startswith("crc_errors 333.333, at most ")
    assert verdict(hub_of(crc_errors=lambda _: 2), 900).outcome is PASS
    assert verdict(worse, 900, gates={"crc_errors": {"dry_run": True}}).outcome is PASS


def test_few_samples_are_inconclusive() -> None:
    assert verdict(hub_of(interval=60), 900).outcome is INCONCLUSIVE
    assert verdict(hub_of(interval=60), 900, gates={"samples": 20}).outcome is PASS


def test_another_version_fails_whatever_the_readings_say() -> None:
    found = verdict(hub_of(), 900, {**TOLD, "version": "1.0"})
    assert found.outcome is FAIL
    assert found.why.startswith("version (1.0, 2.0 is right) 0")


def test_a_hub_that_cannot_be_asked_passes_nobody() -> None:
    hub = hub_of()
    hub.is_up = False
    for seconds in (400, 900, 5000):
        found = verdict(hub, seconds)
        assert found.outcome is INCONCLUSIVE
        assert "the hub did not answer" in found.why
    assert verdict(hub, 900, {**TOLD, "services": {"x": False}}).outcome is FAIL


@pytest.mark.parametrize("off", [timedelta(minutes=-30), timedelta(minutes=30)])
def test_a_stale_answer_passes_nobody(off: timedelta) -> None:
    hub = hub_of()
    hub.off = off
    found = verdict(hub, 900)
    assert found.outcome is INCONCLUSIVE
    assert "1800 s from this machine's clock" in found.why


def test_a_hub_that_does_not_know_the_site() -> None:
    found = verdict(FakeHub({}), 900)
    assert (found.outcome, found.why.split(";")[0]) == (INCONCLUSIVE, "the hub has never heard of it")


def test_a_site_without_a_past_is_inconclusive() -> None:
    assert verdict(hub_of(first=BEGIN), 900).outcome is INCONCLUSIVE


def test_without_the_readings_checks_the_hub_is_not_needed() -> None:
    """The negative control: what the gate is for is what then passes."""
    silent = hub_of(answers=since(BEGIN, True, False))
    silent.is_up = False
    off = {"enabled": False}
    names = ("readings", "meters", "nulls", "uncertain", "crc_errors", "timeouts")
    assert verdict(silent, 900, gates=dict.fromkeys(names, off)).outcome is PASS
    silent.is_up = True
    assert verdict(silent, 900, gates={name: {"dry_run": True} for name in names}).outcome is PASS


def test_a_record_that_does_not_say_when_it_was_touched() -> None:
    hub = hub_of()
    one = record()
    del one.data["touched"]
    found = Telemetry(hub, now=hub.now.timestamp).verdict("a", one)
    assert found == Verdict(INCONCLUSIVE, "the ledger does not say 'touched' of it")
    assert hub.asked == []


def test_the_hub_is_asked_once_for_all() -> None:
    hub = FakeHub({name: Site() for name in "abc"})
    telemetry = Telemetry(hub, now=lambda: hub.now.timestamp())
    records = {name: record(look=TOLD) for name in "abc"}
    assert {one.outcome for one in telemetry.verdicts(records).values()} == {PASS}
    assert len(hub.asked) == 3  # just before, the day before, and now
    telemetry.verdicts(records)
    assert len(hub.asked) == 4
    assert all(set(spans) == set("abc") for spans in hub.asked)
    assert telemetry.verdicts({}) == {}


# Baselines.


def test_baselines_are_as_long_as_the_soak_and_end_before_the_site_was_touched() -> None:
    soak = Soak.of(record())
    assert just_before(soak) == Span(TOUCHED - timedelta(seconds=900), TOUCHED)
    assert same_time_of_day(soak) == Span(BEGIN - DAY, END - DAY)
    # The transfer took two days: the day before was in it.
    slow = Soak.of(record(touched=int((BEGIN - 2 * DAY).timestamp() * 1000)))
    assert same_time_of_day(slow) == Span(BEGIN - 3 * DAY, END - 3 * DAY)
    assert same_time_of_day(Soak.of(record(touched=int((BEGIN - 9 * DAY).timestamp() * 1000)))) is None


def health(span: Span, polls: int = 90, names: str = "ab", here: datetime = END) -> Health:
    return Health(
        span, {name: Meter(1, polls, polls, polls, 0, 0, 2.0) for name in names}, complete_until=here
    )


def test_which_baseline() -> None:
    soak = Soak.of(record())
    before, day = just_before(soak), same_time_of_day(soak)
    assert day is not None
    direct, daily = health(before), health(day)
    assert choose(direct, daily, 50) is daily
    assert choose(direct, None, 50) is direct
    assert choose(None, daily, 50) is daily
    assert choose(direct, health(day, polls=10), 50) is direct
    assert choose(direct, health(day, names="a"), 50) is direct  # a meter was added since
    assert choose(health(before, here=before.until), daily, 50) is daily  # not all of it is here
    assert choose(health(before, here=before.since), None, 50) is None
    # The time just before may still arrive: no baseline yet is better than one that proves nothing.
    assert choose(health(before, here=before.since), health(day, polls=10), 50) is None


def test_a_plant_that_sleeps_at_night_is_compared_with_the_night_before() -> None:
    sunset = BEGIN - timedelta(minutes=10)

    def sun(time: datetime) -> bool:
        return (time - sunset) % DAY > timedelta(hours=12)

    assert verdict(hub_of(sun=sun), 900).outcome is PASS
    # With nothing but that plant, nothing can be said at night; without a night before, only the evening can be.
    assert verdict(hub_of(answers=sun), 900).outcome is INCONCLUSIVE
    assert verdict(hub_of(sun=sun, first=BEGIN - timedelta(hours=2)), 900).outcome is FAIL


def test_the_answer_as_the_hub_writes_it() -> None:
    document = {
        "now": "2026-11-02T06:15:00.000Z",
        "unknown": [],
        "sites": {
            "a": {
                "since": "2026-11-02T06:00:00.000Z", "until": "2026-11-02T06:15:00.000Z",
                "state": "online", "last_seen": None, "status": {"version": "0.3.0"}, "batches": 1, "chain": "ok",
                "newest_reading": None, "complete_until": "2026-11-02T06:14:50.000Z",
                "meters": {"main": {"points": 2, "polls": 9, "answered": 8, "readings": 18, "nulls": 2, "uncertain": 1,
                                    "quality": {"0": 16}, "oldest": "x", "newest": "x", "least_delay": 1.5}},
                "sources": {}, "buses": {"hall": {"requests": 5}},
                "delay": {"least": 1.5, "p50": 3.0, "p99": 9.0}, "clock_synchronised": None,
            }
        },
    }  # fmt: skip
    found = answer(document).sites["a"]
    assert found.meters == {"main": Meter(2, 9, 8, 18, 2, 1, 1.5)}
    assert (found.version, found.usual_delay, found.longest_wait) == ("0.3.0", 9.0, 1.5)
    assert (found.counted("requests"), found.counted("timeouts")) == (5, None)
    for broken in ({}, {"now": "today", "sites": {}}, {**document, "sites": {"a": {}}}, []):
        with pytest.raises(WattfleetError, match="another shape"):
            answer(broken)
