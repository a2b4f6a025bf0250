# SPDX-License-Identifier: Apache-2.0
"""The count by value: what each kind of fault looks like in it."""

from __future__ import annotations

import struct
from dataclasses import asdict

import pytest

from tests.fault.rig.exact import Exact, Row, Span, count
from tests.fault.rig.meters import ADDRESSES, FACTORS, Answer, number_of, registers, value_at

START = 1_767_225_600
# Three answers for the first registers, of one unit, a second apart.
ANSWERS = [Answer(number, 1, 0x0000, 2, START + number) for number in (1, 2, 3)]
POINT = "main/voltage_l1"
ROWS = [Row(POINT, (START + number) * 1000, float(value_at(number, 0)), 0) for number in (1, 2, 3)]


def found(
    rows: list[Row],
    *,
    excused: tuple[Span, ...] = (),
    in_flight: tuple[Answer, ...] = (),
    clock_is_right: bool = True,
) -> dict[str, object]:
    """What differs from a count of nothing."""
    counted = asdict(count(ANSWERS, rows, {1: "main"}, excused, in_flight, clock_is_right=clock_is_right))
    nothing = asdict(Exact())
    return {
        key: len(value) if isinstance(value, list) else value
        for key, value in counted.items()
        if value != nothing[key]
    }


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (ROWS, {}),
        (ROWS[:2], {"readings": 2, "lost": 1}),
        ([*ROWS, ROWS[0]], {"readings": 4, "doubled": 1}),
        ([*ROWS, ROWS[0]._replace(time=1)], {"readings": 4, "doubled": 1, "mistimed": 1}),
        ([*ROWS, ROWS[0]._replace(value=float(value_at(4, 0)))], {"readings": 4, "invented": 1}),
        ([*ROWS, ROWS[0]._replace(value=1.5)], {"readings": 4, "invented": 1}),
        ([*ROWS, ROWS[0]._replace(value=None, quality=129)], {"nulls": 1}),
        ([*ROWS, Row("main/something", START * 1000, 7.0, 0)], {}),
        ([*ROWS, Row("other/voltage_l1", START * 1000, 7.0, 0)], {}),
        ([ROWS[0], ROWS[1]._replace(time=ROWS[2].time), ROWS[2]], {"disordered": 1}),
        ([ROWS[0]._replace(quality=65), *ROWS[1:]], {"uncertain_clock": 1}),
    ],
)
def test_each_kind_of_fault(rows: list[Row], expected: dict[str, object]) -> None:
    assert found(rows) == {"polls": 3, "readings": 3} | expected


def test_what_was_in_flight_at_a_kill_may_be_missing_and_not_doubled() -> None:
    span = Span(START + 2.5, START + 3.5)
    assert found(ROWS[:2], excused=(span,)) == {"polls": 3, "readings": 2, "excused": 1}
    assert found([*ROWS, ROWS[2]], excused=(span,)) == {"polls": 3, "readings": 4, "doubled": 1}


def test_only_the_answers_that_were_in_flight_may_be_missing_however_old_they_are() -> None:
    def counted(*missing: int) -> dict[str, object]:
        rows = [row for number, row in enumerate(ROWS, 1) if number not in missing]
        return found(rows, in_flight=(ANSWERS[1],))

    assert counted(2) == {"polls": 3, "readings": 2, "excused": 1}
    assert counted(1, 2) == {"polls": 3, "readings": 1, "excused": 1, "lost": 1}


def test_an_answer_that_came_too_late_is_there_as_a_null_of_its_time() -> None:
    null = ROWS[2]._replace(time=ROWS[2].time - 400, value=None, quality=129)
    assert found([*ROWS[:2], null]) == {"polls": 3, "readings": 2, "nulls": 1, "given_up": 1}
    assert found([ROWS[0], null]) == {"polls": 3, "readings": 1, "nulls": 1, "given_up": 1, "lost": 1}
    after = null._replace(time=ROWS[2].time + 100)
    assert found([*ROWS[:2], after]) == {"polls": 3, "readings": 2, "nulls": 1, "lost": 1}


def test_between_two_readings_one_null_stands_for_one_answer_whatever_its_age() -> None:
    early = ROWS[0]._replace(time=ROWS[0].time - 900)
    old = ROWS[1]._replace(time=ROWS[1].time - 1_800, value=None, quality=129)
    assert found([early, old, ROWS[2]]) == {"polls": 3, "readings": 2, "nulls": 1, "given_up": 1}


def test_where_the_clock_steps_a_null_stands_for_an_answer_by_its_place() -> None:
    first, null, last = (
        ROWS[0]._replace(time=30),
        ROWS[1]._replace(time=40, value=None, quality=129),
        ROWS[2]._replace(time=50),
    )

    def counted(*rows: Row) -> dict[str, object]:
        return found(list(rows), clock_is_right=False)

    assert counted(first, null, last) == {"polls": 3, "readings": 2, "nulls": 1, "given_up": 1}
    assert counted(first, last) == {"polls": 3, "readings": 2, "lost": 1}
    assert counted(null, last) == {"polls": 3, "readings": 1, "nulls": 1, "lost": 2}
    assert counted(first, null) == {"polls": 3, "readings": 1, "nulls": 1, "lost": 2}
    assert counted(first, last, null._replace(time=60)) == {"polls": 3, "readings": 2, "nulls": 1, "lost": 1}


def test_a_stepped_clock_decides_nothing_but_the_order() -> None:
    rows = [row._replace(time=row.time - 3_600_000) for row in ROWS]
    assert found(rows) == {"polls": 3, "readings": 3, "mistimed": 3}
    assert found(rows, clock_is_right=False) == {"polls": 3, "readings": 3}


def test_every_register_of_an_answer_names_it() -> None:
    values = struct.unpack(">40f", registers(77, 0x0000, 80))
    for point, address in ADDRESSES.items():
        if address < 80:
            assert number_of(point, values[address // 2] * FACTORS.get(point, 1)) == 77
    assert registers(77, 0x0001, 6) == registers(77, 0x0000, 80)[2:14]
    assert number_of("energy_import", 77_000.0) == 77
    assert number_of("energy_import", 77_500.0) is None


def test_points_of_a_request() -> None:
    assert Answer(1, 1, 0x0001, 4, 0.0).points() == ["voltage_l2"]
    assert len(Answer(1, 1, 0x0000, 80, 0.0).points()) == len(ADDRESSES) - 3
    assert set(FACTORS.values()) == {1000}
