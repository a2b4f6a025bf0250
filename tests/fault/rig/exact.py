# SPDX-License-Identifier: Apache-2.0
"""Both ends compared by value: each answer of a meter is in the database exactly once for each of its points, and
nothing else is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.fault.rig.meters import ADDRESSES, Answer, number_of

UNCERTAIN_CLOCK = 65  # docs/reference/wire-format.md, Quality
# s that the time of a reading may differ from its answer's while nobody touches the clock: a busy machine.
TIME_TOLERANCE = 5.0
# s that a null may be older than the late answer that it stands for: it has the time of its poll. On a busy machine
# that is longer ago, and a clock that steps says nothing; then it lies between the readings before and after it. Nulls
# that come after an answer, as when the meters fall silent, stand for none.
LATE_ANSWER, SAME_TIME = 1.0, 0.02


class Row(NamedTuple):
    """A row of the database. `time` is ms since 1970; a null has no value."""

    point: str
    time: int
    value: float | None
    quality: int


class Span(NamedTuple):
    """Unix seconds of the right clock, both included."""

    begin: float
    end: float


@dataclass
class Exact:
    """What was found; each list holds one line a finding. `excused`: under way to the polling service when it died."""

    polls: int = 0
    readings: int = 0
    nulls: int = 0
    uncertain_clock: int = 0
    excused: int = 0
    # Answers that came too late for the collector, which says so: the poll is in the database as a null.
    given_up: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    mistimed: list[str] = field(default_factory=list)


def count(
    answers: Sequence[Answer],
    rows: Iterable[Row],
    meters: dict[int, str],
    excused: Collection[Span] = (),
    in_flight: Collection[Answer] = (),
    *,
    clock_is_right: bool = True,
) -> Exact:
    """Compare; `meters` is unit -> name. Points that no meter of the rig has are not looked at. What may be missing are
    the answers of some spans of time, and those that were `in_flight` when somebody died.

    With `clock_is_right` False a reading may have any time, but a time that is not its answer's has to be told by its
    quality: that is the caller's to judge.
    """
    result = Exact(polls=len(answers))
    expected: dict[str, dict[int, Answer]] = defaultdict(dict)
    for answer in answers:
        for point in answer.points():
            expected[f"{meters[answer.unit]}/{point}"][answer.number] = answer
    found: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    nulls: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        meter, _, point = row.point.partition("/")
        if meter not in meters.values() or point not in ADDRESSES:
            continue
        if row.value is None:
            result.nulls += 1
            nulls[row.point].append(row.time)
            continue
        result.readings += 1
        number = number_of(point, row.value)
        asked = None if number is None else expected[row.point].get(number)
        if asked is None:
            result.invented.append(f"{row.point}: {row.value:g} at {row.time}, which no meter answered")
            continue
        found[row.point][asked.number].append(row)
        if clock_is_right and abs(row.time / 1000 - asked.time) > TIME_TOLERANCE:
            result.mistimed.append(
                f"{row.point}: answer {asked.number} is stamped {row.time / 1000 - asked.time:+.1f} s"
            )
    for point, numbers in expected.items():
        _count_point(
            point,
            numbers,
            found[point],
            nulls[point],
            lambda answer: (
                answer in in_flight or any(span.begin <= answer.time <= span.end for span in excused)
            ),
            result,
            clock_is_right=clock_is_right,
        )
    return result


def _count_point(
    point: str,
    expected: dict[int, Answer],
    found: dict[int, list[Row]],
    nulls: list[int],
    may_be_missing: Callable[[Answer], bool],
    result: Exact,
    *,
    clock_is_right: bool,
) -> None:
    before: Row | None = None
    ahead = sorted(found, reverse=True)
    for number, answer in sorted(expected.items()):
        rows = found.get(number, [])
        while ahead and ahead[-1] <= number:
            ahead.pop()
        if len(rows) > 1:
            times = ", ".join(str(row.time) for row in rows)
            result.doubled.append(f"{point}: answer {number} is there {len(rows)} times: {times}")
        elif not rows:
            if may_be_missing(answer):
                result.excused += 1
            elif null := _stand_in(
                nulls, answer, before, found[ahead[-1]][0] if ahead else None, clock_is_right=clock_is_right
            ):
                # A null stands for one answer only.
                nulls.remove(null)
                result.given_up += 1
            else:
                result.lost.append(f"{point}: answer {number} of {answer.time:.3f}")
        for row in rows[:1]:
            result.uncertain_clock += row.quality == UNCERTAIN_CLOCK
            if before is not None and row.time <= before.time:
                result.disordered.append(
                    f"{point}: answer {number} is at {row.time}, the one before at {before.time}"
                )
            before = row


def _stand_in(
    nulls: list[int], answer: Answer, before: Row | None, after: Row | None, *, clock_is_right: bool
) -> int | None:
    """The time of the null that says that this answer came too late, if there is one."""
    for one in nulls:
        if clock_is_right and -SAME_TIME < answer.time - one / 1000 < LATE_ANSWER:
            return one
        if before is not None and after is not None and before.time < one < after.time:
            return one
    return None
