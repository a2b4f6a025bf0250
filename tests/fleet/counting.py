# SPDX-License-Identifier: Apache-2.0
"""Count every reading at both ends: what the meters answered, and what the hub's database holds.

The meters' end is the simulator's log of answered requests. One poll of a meter is one or several requests close
together; every poll that was answered whole must have brought exactly one reading of every point of that meter,
stamped within the poll. Anything else is a loss, a double, or a reading that no meter ever gave.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# s; a reading is stamped when its request leaves, the meter computes its registers when it has arrived.
STAMP_TOLERANCE = 1.0
# s; the simulator computes registers for whole tenths of a second, and logs the tenth that has begun.
QUANTUM = 0.1

Request = tuple[int, int, int]  # function, address, count


@dataclass(frozen=True)
class Answer:
    """One request that a simulated meter answered. `time` is Unix seconds, when the registers were computed."""

    time: float
    meter: str
    request: Request
    kind: str  # answered | exception | silent


@dataclass(frozen=True)
class Reading:
    """One row of the database. `time` is Unix seconds; `value` is None for a null."""

    point: str
    time: float
    value: float | None
    quality: int

    @property
    def meter(self) -> str:
        """Points are named `<meter>/<point>`."""
        return self.point.partition("/")[0]


@dataclass
class Count:
    """What was found for one site. Each list holds one line a finding."""

    polls: int = 0
    readings: int = 0
    excused: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """True when both ends agree."""
        return not (self.lost or self.doubled or self.invented)


@dataclass(frozen=True)
class Poll:
    """The answers of one poll: from the first to the last."""

    first: float
    last: float
    whole: bool


def polls_of(answers: Sequence[Answer], interval: float) -> list[Poll]:
    """Group one meter's answers into polls.

    Requests that belong to every poll are told from those made once (SunSpec discovery, probes) by how often they
    occur: a poll is whole when each of the regular requests was answered in it.
    """
    everything = _groups(answers, interval)
    seen = Counter(request for group in everything for request in {answer.request for answer in group})
    regular = {request for request, times in seen.items() if times > len(everything) / 2}
    polls = []
    # A probe half way between two polls would make one of them.
    for group in _groups([answer for answer in answers if answer.request in regular], interval):
        whole = {answer.request for answer in group} == regular and all(
            answer.kind == "answered" for answer in group
        )
        polls.append(Poll(group[0].time, group[-1].time, whole))
    return polls


def _groups(answers: Sequence[Answer], interval: float) -> list[list[Answer]]:
    """Answers that are less than half an interval apart."""
    groups: list[list[Answer]] = []
    for answer in sorted(answers, key=lambda one: one.time):
        if groups and answer.time - groups[-1][-1].time < interval / 2:
            groups[-1].append(answer)
        else:
            groups.append([answer])
    return groups


def count_site(
    answers: Iterable[Answer],
    readings: Iterable[Reading],
    intervals: dict[str, float],
    start: float,
    end: float,
    excused: Sequence[tuple[float, float]] = (),
) -> Count:
    """Compare both ends of one site for polls between `start` and `end` (Unix seconds).

    `intervals` is meter -> seconds. A poll that touches one of the `excused` spans (the polling service was killed
    then, between the meter's answer and the commit) may be missing, never doubled.
    """
    result = Count()
    by_meter: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_meter[answer.meter].append(answer)
    times: dict[str, list[float]] = defaultdict(list)
    for reading in readings:
        if reading.value is not None and start <= reading.time <= end:
            times[reading.point].append(reading.time)
    for point_times in times.values():
        point_times.sort()
        result.readings += len(point_times)

    for meter, interval in intervals.items():
        points = sorted(point for point in times if point.partition("/")[0] == meter)
        polls = [
            poll for poll in polls_of(by_meter[meter], interval) if start <= poll.first and poll.last <= end
        ]
        if polls and not points:
            result.lost.append(f"{meter}: {len(polls)} polls answered, no reading in the database")
        result.polls += len(polls)
        for point in points:
            _count_point(point, times[point], polls, interval, (start, end), excused, result)
    return result


def _count_point(
    point: str,
    times: list[float],
    polls: list[Poll],
    interval: float,
    window: tuple[float, float],
    excused: Sequence[tuple[float, float]],
    result: Count,
) -> None:
    tolerance = min(STAMP_TOLERANCE, interval / 2)
    for poll in polls:
        low, high = bisect_left(times, poll.first - tolerance), bisect_right(times, poll.last + QUANTUM)
        found = high - low
        if found > 1:
            result.doubled.append(f"{point}: {found} readings of the poll at {poll.first:.3f}")
        elif found == 0 and poll.whole:
            if any(begin <= poll.last and poll.first <= until for begin, until in excused):
                result.excused += 1
            else:
                result.lost.append(f"{point}: no reading of the poll at {poll.first:.3f}")
    # Readings at the very edges of the window may belong to a poll that lies half outside of it.
    inner = [time for time in times if window[0] + interval <= time <= window[1] - interval]
    stray = [
        time
        for time in inner
        if not any(
            poll.first - tolerance <= time <= poll.last + QUANTUM for poll in _near(polls, time, interval)
        )
    ]
    result.invented.extend(f"{point}: a reading at {time:.3f} that no meter answered" for time in stray)


def _near(polls: list[Poll], time: float, interval: float) -> list[Poll]:
    firsts = [poll.first for poll in polls]
    return polls[max(0, bisect_left(firsts, time - interval) - 1) : bisect_right(firsts, time + interval) + 1]
