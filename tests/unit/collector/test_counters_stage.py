# SPDX-License-Identifier: Apache-2.0
"""Counters: what happened to one is told apart, and nothing is counted that the meter has not counted."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from energy_collector import quality
from energy_collector.journal import Faults, log
from energy_collector.reading import Layout, Record
from energy_collector.stages.counters import COUNTED, SAVE_INTERVAL, SAVE_INTERVAL_MARKED, Counters
from hypothesis import given, settings
from hypothesis import strategies as st

from .collector_support import config_of

POINT = "main/energy_import"
LAYOUT = Layout((POINT, "main/active_power"), ("W.h", "W"))
HIGHEST = 99_999.0
STEP = 1.0
GOOD, ODD = quality.GOOD, quality.UNCERTAIN
ROLLOVER, RESET = quality.GOOD_COUNTER_ROLLOVER, quality.UNCERTAIN_COUNTER_RESET
EXCHANGED, NULL = quality.UNCERTAIN_METER_EXCHANGED, quality.BAD_NO_ANSWER


def stage(state: Path | None = None, **options: Any) -> Counters:
    return Counters({POINT: HIGHEST}, state, Faults(), **options)


def marks(
    counters: Counters, values: Sequence[float | None], start: int = 0, step: int = 10_000
) -> list[int]:
    """The quality that each value of a counter gets, read every 10 s; None is no answer."""
    found = []
    for number, value in enumerate(values):
        codes = bytes([NULL, 0]) if value is None else b""
        record = Record(LAYOUT, start + (number + 1) * step, [value or 0.0, 5.0], codes)
        (out,) = counters.take([record])
        assert out.values is record.values
        assert out.time == record.time
        found.append((out.qualities or b"\0\0")[0])
        assert (out.qualities or b"\0\0")[1] == GOOD
    return found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 2, 7], [GOOD, GOOD, GOOD, GOOD]),
        ([99_980, 99_990, 3, 12], [GOOD, GOOD, ROLLOVER, GOOD]),
        # The most that the counter shows, then zero.
        ([99_990, HIGHEST, 0, 1], [GOOD, GOOD, ROLLOVER, GOOD]),
        # Back to zero from the middle of the range: told when the new count goes on.
        ([5000, 5010, 0, 8], [GOOD, GOOD, ODD, RESET]),
        ([5000, 5010, 0, 0, 4], [GOOD, GOOD, ODD, RESET, GOOD]),
        # A single wrong value, to zero or to anywhere.
        ([5000, 0, 5010, 5020], [GOOD, ODD, GOOD, GOOD]),
        ([5000, 4000, 5000, 5020], [GOOD, ODD, GOOD, GOOD]),
        ([5000, 4000, 2000, 5020], [GOOD, ODD, ODD, GOOD]),
        # A wrong value just before the rollover, and one just after.
        ([99_990, 40_000, 5, 9], [GOOD, ODD, ROLLOVER, GOOD]),
        ([99_990, 5, 3, 9], [GOOD, ROLLOVER, ODD, GOOD]),
        # Wrong values that look like a reset, until the old count is back: nothing is counted twice.
        ([5000, 5010, 0, 0, 5012, 5015], [GOOD, GOOD, ODD, RESET, RESET, GOOD]),
        # A new count may well pass the old one.
        ([30, 40, 0, 15, 30, 45, 60], [GOOD, GOOD, ODD, RESET, GOOD, GOOD, GOOD]),
        # No answer is no event.
        ([5000, None, 5010, None, 0, None, 3], [GOOD, NULL, GOOD, NULL, ODD, NULL, RESET]),
        # Near the end of the range, but back to where no rate that was seen would bring it.
        ([90_000, 90_010, 3000, 3010], [GOOD, GOOD, ODD, RESET]),
    ],
)
def test_what_happened_is_told_apart(values: list[float | None], expected: list[int]) -> None:
    assert marks(stage(), values) == expected


def test_a_rounded_float_is_no_reset() -> None:
    assert marks(stage(), [70_000.0, 69_999.9922, 70_000.1]) == [GOOD, GOOD, GOOD]
    assert marks(stage(), [70_000.0, 69_999.5, 70_000.1]) == [GOOD, ODD, GOOD]


def test_a_configured_power_decides_what_is_possible() -> None:
    # 100 kW are 278 W.h in 10 s, twice that is possible; and the counter cannot have passed 4000 W.h meanwhile.
    limits = {POINT: 100_000 / 3600}
    assert marks(stage(limits=limits), [97_000, 97_200, 1200, 1300]) == [GOOD, GOOD, ODD, RESET]
    assert marks(stage(limits=limits), [99_900, 99_990, 150]) == [GOOD, GOOD, ROLLOVER]
    # Forwards too: a single jump does not count, and one that stays is no energy.
    assert marks(stage(limits=limits), [1000, 61_000, 1010]) == [GOOD, ODD, GOOD]
    assert marks(stage(limits=limits), [1000, 61_000, 61_010, 61_020]) == [GOOD, ODD, RESET, GOOD]


def test_without_a_known_end_there_is_no_rollover() -> None:
    counters = Counters({POINT: None}, None, Faults())
    assert marks(counters, [2.0**32 - 1, 0, 5]) == [GOOD, ODD, RESET]


def test_an_exchange_is_marked_even_when_the_value_goes_up() -> None:
    counters = stage()
    assert counters.identified("main", "A1") is False
    assert marks(counters, [1000, 1010]) == [GOOD, GOOD]
    assert counters.identified("main", "A1") is False
    assert counters.identified("main", "B7") is True
    assert marks(counters, [None, 2000, 2010], 100_000) == [NULL, EXCHANGED, GOOD]


def test_other_qualities_stay_and_the_doubtful_does_not_count() -> None:
    counters = stage()
    out = counters.take([Record(LAYOUT, 1, [5.0, 1.0], bytes([quality.UNCERTAIN_CLOCK, GOOD]))])
    assert out[0].qualities == bytes([quality.UNCERTAIN_CLOCK, GOOD])
    counters.take([Record(LAYOUT, 2, [70_000.0, 1.0], bytes([quality.UNCERTAIN_OUT_OF_RANGE, GOOD]))])
    assert marks(counters, [6], 2) == [GOOD]


def test_records_without_a_counter_pass_untouched() -> None:
    layout = Layout(("main/voltage_l1",), ("V",))
    records = [Record(layout, 1, [230.0]), Record(layout, 2, [0.0])]
    counters = stage()
    assert counters.take(records) is records
    good = [Record(LAYOUT, 1, [1.0, 2.0])]
    assert counters.take(good) is good


def test_a_reset_while_the_gateway_was_down_is_seen(tmp_path: Path) -> None:
    state = tmp_path / "counters.json"
    first = stage(state)
    first.identified("main", "A1")
    assert marks(first, [4000, 4010]) == [GOOD, GOOD]
    first.close()
    assert marks(stage(state), [7, 12], 60_000) == [ODD, RESET]
    assert marks(stage(state), [4017], 60_000) == [GOOD]
    other = stage(state)
    assert other.identified("main", "B7")
    assert marks(other, [4500], 60_000) == [EXCHANGED]
    # What the buffer knows is newer than the file, and what it has forgotten does no harm.
    fed = stage(state)
    fed.remember(POINT, 1, 99_000.0)
    fed.remember(POINT, 50_000, 4300.0)
    assert marks(fed, [4100, 4110], 60_000) == [ODD, RESET]


def test_an_exchange_that_was_not_read_yet_survives_a_restart(tmp_path: Path) -> None:
    first = stage(tmp_path / "counters.json")
    marks(first, [4000])
    first.exchanged("main")
    first.close()
    assert marks(stage(tmp_path / "counters.json"), [4001], 60_000) == [EXCHANGED]


def test_a_change_of_the_configuration_forgets_nothing() -> None:
    before = stage()
    before.identified("main", "A1")
    marks(before, [4000, 4010, 0])
    after = Counters({POINT: HIGHEST, "other/energy_import": None}, None, Faults())
    after.adopt(before)
    assert marks(after, [7, 9], 60_000) == [RESET, GOOD]
    assert after.identified("main", "B7")


def test_the_file_is_written_seldom_and_sooner_after_a_mark(tmp_path: Path) -> None:
    now = [0.0]
    state = tmp_path / "counters.json"
    counters = stage(state, monotonic=lambda: now[0])

    def saved_at(moment: float) -> float | None:
        now[0] = moment
        counters.tick(0)
        if counters._state and counters._state._thread:
            counters._state._thread.join()
        return json.loads(state.read_text())["counters"][POINT]["value"] if state.exists() else None

    marks(counters, [1000])
    assert saved_at(SAVE_INTERVAL - 1) is None
    assert saved_at(SAVE_INTERVAL) == 1000
    marks(counters, [0, 1], 50_000)
    assert saved_at(SAVE_INTERVAL + SAVE_INTERVAL_MARKED - 1) == 1000
    assert saved_at(SAVE_INTERVAL + SAVE_INTERVAL_MARKED) == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"counters": {"a": 1}, "serials": {}}', '{"counters": 1}', ""])
def test_a_damaged_file_is_told_and_left(tmp_path: Path, text: str, journal: list[str]) -> None:
    state = tmp_path / "counters.json"
    state.write_text(text)
    assert marks(stage(state), [5, 6]) == [GOOD, GOOD]
    assert journal == [f"{state}: damaged; counters start without a past"]


@pytest.fixture
def journal() -> Iterator[list[str]]:
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, level = Lines(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lines
    log.removeHandler(handler)
    log.setLevel(level)


def test_the_journal_tells_what_from_and_to(journal: list[str]) -> None:
    marks(stage(), [99_990, 4, 10])
    assert journal[0] == (
        f"counter {POINT}: has rolled over: from 99990 to 4. "
        "Likely cause: the counter has passed its highest value"
    )
    assert sum("rolled over" in line for line in journal if "well again" not in line) == 1


def test_a_counter_that_flaps_does_not_fill_the_journal(journal: list[str]) -> None:
    counters = stage()
    marks(counters, [5000 + number if number % 2 else number % 70 for number in range(2000)])
    assert len(journal) < 20


def test_power_limits_come_from_the_configuration(tmp_path: Path) -> None:
    config = config_of(tmp_path, max_power=100_000)
    counters = Counters.from_config(config, {POINT: HIGHEST}, {POINT: "kW.h"}, Faults())
    assert counters._counters[POINT].limit == pytest.approx(100 / 3600)
    counters = Counters.from_config(config, {POINT: HIGHEST}, {POINT: "m3"}, Faults())
    assert counters._counters[POINT].limit is None


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("count"), st.integers(0, 40)),
        st.tuples(st.just("count"), st.integers(0, 40)),
        st.tuples(st.just("silent"), st.integers(0, 40)),
        st.tuples(st.just("glitch"), st.integers(0, 90_000)),
        st.tuples(st.just("reset"), st.integers(0, 5)),
        st.tuples(st.just("exchange"), st.integers(0, 90_000)),
        st.tuples(st.just("restart"), st.integers(0, 40)),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(events=EVENTS, start=st.sampled_from([0, 30_000, 99_800]))
def test_what_a_reader_adds_up_is_what_was_counted(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]], start: int
) -> None:
    """A meter with all that can befall it, and a reader who knows the marks only.

    The energy between two counted readings is exact where no mark says that it is unknown, and never more than the
    meter has counted.
    """
    state = tmp_path_factory.mktemp("state") / "counters.json"
    counters = stage(state)
    shown, energy, serial, moment = start, 0, 0, 0
    previous: float | None = None
    energy_then = 0
    lost = False  # whether the meter has lost counts since the last counted reading
    broken = False  # whether the next mark of a break is still to come
    glitches = 0
    for kind, number in [("count", 40), ("count", 40), *events, ("count", 3), ("count", 3), ("count", 3)]:
        moment += 10_000
        wrong = False
        if kind == "reset" and (shown > HIGHEST * 0.7 or shown < 200):
            kind = "count"  # here nobody can tell a reset from a rollover, or from no reset at all
        if kind == "reset":
            shown, lost, broken = number, True, True
            energy += number
        elif kind == "exchange":
            serial += 1
            shown, lost, broken = number, True, True
            counters.identified("main", f"S{serial}")
        else:
            if kind == "restart":
                counters.close()
                counters = stage(state)
            step = number if kind != "glitch" else 0
            energy += step
            shown = (shown + step) % int(HIGHEST + 1)
            # Two wrong values in turn that agree cannot be told from a reset, and a wrong one that does not go back
            # from a right one.
            # Near the end of the range, reached or just passed unseen, a wrong value looks like a rollover.
            wrong = (
                kind == "glitch" and number < (previous or 0) and max(shown, previous or 0) < HIGHEST * 0.7
            )
            wrong = wrong and not broken and not glitches
        if moment == 10_000:
            counters.identified("main", "S0")
        if kind == "silent":
            continue
        value = float(number if wrong else shown)
        glitches = int(wrong)
        (code,) = marks(counters, [value], moment - 10_000)
        if code not in COUNTED | {RESET, EXCHANGED}:
            continue
        if code in (RESET, EXCHANGED):
            assert lost, f"{quality.name(code)} where nothing was lost"
        elif previous is not None:
            counted = value - previous + (HIGHEST + STEP if code == ROLLOVER else 0)
            if lost:
                # A new count that has overtaken the old one between two readings cannot be seen.
                assert counted <= energy - energy_then + 1e-9 or shown >= previous
            else:
                assert counted == energy - energy_then
        previous, energy_then, lost, broken = value, energy, False, False
    counters.close()
