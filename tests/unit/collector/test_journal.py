# SPDX-License-Identifier: Apache-2.0
"""The journal tells each fault once, whatever its rhythm."""

from __future__ import annotations

import logging

import pytest
from energy_collector.journal import MAX_TEXTS, REMINDER, SETTLED, Faults


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "energy")
    return caplog


def test_a_fault_is_told_at_its_beginning_and_at_its_end(
    clock: Clock, lines: pytest.LogCaptureFixture
) -> None:
    faults = Faults(clock)
    for _ in range(30):
        faults.report("meter main", "no answer", "look at its power")
        clock.now += 1
    for _ in range(30):
        faults.over("meter main")
        clock.now += 1
    assert lines.messages == [
        "meter main: no answer. Likely cause: look at its power",
        "meter main: well again after 30 s (last: no answer, 30 times)",
    ]


def test_two_faults_in_turns_are_told_once_each(clock: Clock, lines: pytest.LogCaptureFixture) -> None:
    faults = Faults(clock)
    for index in range(100):
        faults.report("meter main", ("no answer", "CRC Error")[index % 2], "noise")
        clock.now += 1
    assert len(lines.messages) == 2


def test_well_and_ill_in_turns_is_one_fault(clock: Clock, lines: pytest.LogCaptureFixture) -> None:
    faults = Faults(clock)
    for _ in range(200):
        faults.report("meter main", "CRC Error", "noise")
        clock.now += 1
        faults.over("meter main")
        clock.now += 1
    assert len(lines.messages) == 2, "its beginning, and the first time that it was well"
    clock.now += SETTLED
    faults.over("meter main")
    faults.over("meter main")
    assert lines.messages[2:] == ["meter main: well again after 399 s (last: CRC Error, 200 times)"]


def test_a_fault_that_comes_back_later_is_a_new_one(clock: Clock, lines: pytest.LogCaptureFixture) -> None:
    faults = Faults(clock)
    faults.report("hub", "away", "the link")
    faults.over("hub")
    clock.now += SETTLED
    faults.report("hub", "away", "the link")
    assert len(lines.messages) == 3


def test_a_fault_that_lasts_is_told_again_each_hour(clock: Clock, lines: pytest.LogCaptureFixture) -> None:
    faults = Faults(clock)
    for _ in range(3 * int(REMINDER) // 10):
        faults.report("hub", "away", "the link")
        clock.now += 10
    assert len(lines.messages) == 3
    assert lines.messages[-1] == "hub: away (721 faults in 120 min)"


def test_endless_new_texts_do_not_fill_the_journal(clock: Clock, lines: pytest.LogCaptureFixture) -> None:
    faults = Faults(clock)
    for index in range(1000):
        faults.report("meter main", f"answer {index}", "who knows")
    assert len(lines.messages) == MAX_TEXTS
