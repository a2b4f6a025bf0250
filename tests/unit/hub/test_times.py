# SPDX-License-Identifier: Apache-2.0
"""Where a batch has readings, and how far apart they may lie."""

from __future__ import annotations

from array import array

import pytest
from energy_hub.batch import Body, Series
from energy_hub.times import LENGTH, MAX_MONTHS, MAX_SPANS, Span, scattered, spans

START = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DAY = 86_400_000


def series(point: str, times: array[int]) -> Series:
    return Series(point, "W", times, ((129, True, len(times)),), array("d"))


def of(*times: int) -> array[int]:
    return array("q", times)


def test_a_batch_is_cut_at_every_ten_minutes() -> None:
    together = of(START + 1, START + 2, START + LENGTH, START + 3 * LENGTH - 1)
    body = Body(
        "plant-a", (series("a", together), series("b", of(START + LENGTH + 5)), series("c", together))
    )
    assert spans(body) == [
        Span(START + 1, START + 2, 4, [0, 2]),
        Span(START + LENGTH, START + LENGTH + 5, 3, [0, 2, 1]),
        Span(START + 3 * LENGTH - 1, START + 3 * LENGTH - 1, 2, [0, 2]),
    ]
    assert spans(Body("plant-a", ())) == []
    assert scattered(body) == ""


def test_each_reading_is_in_one_span_before_1970_too() -> None:
    times = array("q", range(-20 * LENGTH - 7, 20 * LENGTH, 7919))
    found = spans(Body("plant-a", (series("a", times),)))
    assert sum(span.readings for span in found) == len(times)
    assert [number for span in found for number in times if span.first <= number <= span.last] == list(times)
    assert max(span.last - span.first for span in found) < LENGTH


def test_what_a_collector_seals_at_the_worst_is_not_scattered() -> None:
    """Readings of now, of radio devices over the whole week that they may be late, over the end of a year, and what was
    taken while the clock said 1970 and 2038."""
    now = START + 3 * DAY
    late = [
        series(f"radio-{number}", array("q", range(now - 7 * DAY + number, now, 601_000 + number)))
        for number in range(50)
    ]
    wrong = [series("a", of(5, 60_005)), series("b", of(2**31 * 1000))]
    body = Body("plant-a", (series("main", of(now, now + 66_000)), *late, *wrong))
    assert len(spans(body)) > 1000
    assert scattered(body) == ""


@pytest.mark.parametrize(
    ("count", "step", "reason"),
    [
        (MAX_SPANS, LENGTH, ""),
        (
            MAX_SPANS + 1,
            LENGTH,
            f"readings in {MAX_SPANS + 1} spans of ten minutes, at most {MAX_SPANS} are allowed",
        ),
        (MAX_MONTHS, 31 * DAY, ""),
        (MAX_MONTHS + 1, 31 * DAY, f"readings in {MAX_MONTHS + 1} months, at most {MAX_MONTHS} are allowed"),
    ],
)
def test_what_no_collector_seals_is_told(count: int, step: int, reason: str) -> None:
    times = array("q", range(START, START + count * step, step))
    assert scattered(Body("plant-a", (series("a", times),))) == reason
