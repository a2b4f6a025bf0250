# SPDX-License-Identifier: Apache-2.0
"""The fleet test's count must see a single lost, doubled or invented reading, else it proves nothing."""

from __future__ import annotations

import pytest

from tests.fleet.counting import Answer, Reading, count_site

INTERVAL = 10.0
BLOCKS = ((4, 0, 60), (4, 70, 10))
POINTS = ("main/active_power", "main/energy_import")
END = 1000.0


def answers(polls: int = 20) -> list[Answer]:
    return [
        Answer(poll * INTERVAL + 0.005 * block, "main", request, "answered")
        for poll in range(1, polls)
        for block, request in enumerate(BLOCKS)
    ]


def readings(polls: int = 20) -> list[Reading]:
    return [
        Reading(point, poll * INTERVAL - 0.002 + 0.005 * block, 1.0, 0)
        for poll in range(1, polls)
        for block, point in enumerate(POINTS)
    ]


def count(answered: list[Answer], stored: list[Reading], excused: tuple[tuple[float, float], ...] = ()):
    return count_site(answered, stored, {"main": INTERVAL}, 0.0, END, excused)


def test_both_ends_agree() -> None:
    result = count(answers(), readings())
    assert result.exact
    assert (result.polls, result.readings) == (19, 38)


@pytest.mark.parametrize("index", [0, 7, 37])
def test_one_lost_reading_is_seen(index: int) -> None:
    stored = readings()
    del stored[index]
    assert len(count(answers(), stored).lost) == 1


def test_one_doubled_reading_is_seen() -> None:
    stored = readings()
    stored.append(Reading(stored[10].point, stored[10].time + 0.001, 1.0, 0))
    assert len(count(answers(), stored).doubled) == 1


def test_one_invented_reading_is_seen() -> None:
    stored = [*readings(), Reading("main/active_power", 55.0, 1.0, 0)]
    assert len(count(answers(), stored).invented) == 1


def test_a_null_does_not_stand_for_a_reading() -> None:
    stored = readings()
    stored[4] = Reading(stored[4].point, stored[4].time, None, 129)
    assert len(count(answers(), stored).lost) == 1


def test_a_meter_without_any_reading_is_seen() -> None:
    assert not count(answers(), []).exact


def test_a_kill_between_answer_and_commit_is_excused_but_only_there() -> None:
    stored = [reading for reading in readings() if not 49 < reading.time < 51]
    assert count(answers(), stored, ((49.0, 51.0),)).exact
    assert not count(answers(), stored, ((59.0, 61.0),)).exact


def test_discovery_requests_are_no_poll() -> None:
    discovery = [Answer(15.0, "main", (3, 40000, 2), "answered")]
    assert count([*answers(), *discovery], readings()).exact


def test_a_probe_between_two_polls_does_not_make_them_one() -> None:
    probe = [Answer(14.9, "main", (43, 0, 1), "answered"), Answer(15.3, "main", (4, 52, 2), "answered")]
    result = count([*answers(), *probe], readings())
    assert result.exact, result.doubled
    assert result.polls == 19


def test_a_poll_that_was_answered_in_part_may_lack_readings() -> None:
    answered = [answer for answer in answers() if not (answer.request == BLOCKS[1] and 79 < answer.time < 81)]
    stored = [
        reading for reading in readings() if not (reading.point == POINTS[1] and 79 < reading.time < 81)
    ]
    assert count(answered, stored).exact
