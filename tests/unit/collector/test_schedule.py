# SPDX-License-Identifier: Apache-2.0
"""When polls are due, how late they were, and how long a dead unit is left alone."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

from energy_collector.polling.schedule import Backoff, Lateness, Schedule, sleep_until


def test_a_schedule_does_not_drift_and_counts_what_it_missed() -> None:
    schedule = Schedule(100.0, 10.0)
    for index in range(1000):
        assert schedule.due == 100.0 + 10.0 * index
        schedule.advance(schedule.due + 9.5)
    assert schedule.missed == 0
    due = schedule.due
    schedule.advance(due + 35.0)
    assert schedule.missed == 2
    assert schedule.due == due + 30.0


def test_rounding_does_not_add_up() -> None:
    schedule = Schedule(0.3, 0.1)
    for _ in range(1_000_000):
        schedule.advance(schedule.due)
    assert schedule.due == 0.3 + 1_000_000 * 0.1
    assert schedule.missed == 0


def test_a_dead_unit_is_asked_less_and_less_and_at_once_again_when_it_answers() -> None:
    backoff = Backoff(10.0)
    asked = []
    for poll in range(200):
        now = poll * 10.0
        if now >= backoff.until:
            asked.append(now)
            backoff.failed(now)
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert gaps[:6] == [10.0, 10.0, 20.0, 40.0, 80.0, 160.0]
    assert max(gaps) == 300.0
    backoff.forgive()
    assert backoff.until == 0.0
    backoff.failed(5000.0)
    assert backoff.until == 5010.0
    backoff.succeeded()
    assert (backoff.until, backoff.failures) == (0.0, 0)


def test_a_unit_polled_fast_is_not_asked_again_at_once() -> None:
    backoff = Backoff(0.1)
    backoff.failed(100.0)
    assert backoff.until == 101.0


def test_lateness_is_told_by_rank_over_the_last_polls() -> None:
    lateness = Lateness()
    assert lateness.percentile(0.5) is None
    for number in range(1, 101):
        lateness.add(number / 1000)
    assert (lateness.percentile(0.5), lateness.percentile(0.99), lateness.percentile(1)) == (
        50.0,
        99.0,
        100.0,
    )
    for _ in range(2000):
        lateness.add(0.002)
    assert lateness.percentile(0.99) == 2.0


def test_sleeping_is_never_too_short() -> None:
    async def test() -> None:
        for rest in (-1.0, 0.0, 0.0003, 0.004, 0.0117):
            moment = time.monotonic() + rest
            await sleep_until(moment)
            assert time.monotonic() >= moment

    asyncio.run(test())
