# SPDX-License-Identifier: Apache-2.0
"""Voltage events and unbalance, from voltages whose events are known because they were made."""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from energy_collector import quality
from energy_collector.config import MeterConfig
from energy_collector.reading import Layout, Reading, Record, readings
from energy_collector.stages.power_quality import (
    CLASSES,
    INTERRUPTION,
    SAG,
    SWELL,
    PowerQuality,
    deviation,
    event_class,
    negative_sequence,
)

NOMINAL = 230.0
PHASES = ("l1", "l2", "l3")
LAYOUT = Layout(tuple(f"main/voltage_{phase}" for phase in PHASES), ("V",) * 3)
STEP = 100  # ms, 10 Hz
START = 1_800_000_000_000
NULL = quality.BAD_NO_ANSWER
INCOMPLETE = quality.UNCERTAIN_INCOMPLETE

Event = tuple[int, int, float, float, int]  # ms after START, class, magnitude, duration, quality


def meter(**changes: Any) -> MeterConfig:
    return MeterConfig("main", "hall", 1, "any", **{"interval": 0.1, "nominal_voltage": NOMINAL, **changes})


def stage(**changes: Any) -> PowerQuality:
    return PowerQuality([meter(**changes)])


def wave(*parts: tuple[float | None, float], step: int = STEP) -> list[float | None]:
    """Samples of parts: voltage as a share of the nominal one (None is no answer), and for how many s."""
    return [
        share and share * NOMINAL for share, seconds in parts for _ in range(round(seconds * 1000 / step))
    ]


def run(
    power: PowerQuality, phases: Sequence[Sequence[float | None]], step: int = STEP, start: int = START
) -> list[Reading]:
    found: list[Reading] = []
    for number, values in enumerate(zip(*phases, strict=True)):
        codes = bytes(NULL if value is None else 0 for value in values)
        numbers = [value or 0.0 for value in values]
        record = Record(LAYOUT, start + number * step, numbers, codes if any(codes) else b"")
        taken = power.take([record])
        assert taken[0] is record
        found += readings(taken[1:])
    return found


def events(found: Iterable[Reading], phase: str = "l1") -> list[Event]:
    """The events of a phase; checks that times ascend and that the three points go together."""
    points = [f"main/voltage_event_{phase}{what}" for what in ("", "_magnitude", "_duration")]
    columns = [[one for one in found if one.point == point] for point in points]
    events = []
    for code, magnitude, duration in zip(*columns, strict=True):
        assert code.time == magnitude.time == duration.time
        assert (code.unit, magnitude.unit, duration.unit) == ("1", "%", "s")
        assert code.value is not None
        assert magnitude.value is not None
        assert duration.value is not None
        events.append((code.time - START, int(code.value), magnitude.value, duration.value, code.quality))
    times = [one[0] for one in events]
    assert times == sorted(set(times))
    return events


def of_l1(*parts: tuple[float | None, float], step: int = STEP, **changes: Any) -> list[Event]:
    """What comes of a voltage of phase 1, while the others are well."""
    first = wave(*parts, step=step)
    well: list[float | None] = [NOMINAL] * len(first)
    found = run(stage(interval=step / 1000, **changes), [first, well, well], step)
    assert not events(found, "l2")
    assert not events(found, "l3")
    return events(found)


@pytest.mark.parametrize(
    ("share", "seconds", "code"),
    [
        (0.5, 0.1, 211),
        (0.5, 0.6, 211),  # 30 cycles of 50 Hz
        (0.5, 0.7, 222),
        (0.5, 3.0, 222),
        (0.5, 3.1, 232),
        (0.5, 60.0, 232),
        (1.15, 0.6, 212),
        (1.15, 0.7, 223),
        (1.15, 3.0, 223),
        (1.15, 3.1, 233),
        (1.15, 60.0, 233),
        (0.05, 0.1, 221),
        (0.05, 3.0, 221),
        (0.05, 3.1, 231),
        (0.05, 60.0, 231),
    ],
)
def test_each_class_at_its_bounds(share: float, seconds: float, code: int) -> None:
    assert of_l1((1, 1), (share, seconds), (1, 1)) == [(1000, code, round(share * 100, 2), seconds, 0)]


@pytest.mark.parametrize(("share", "code"), [(0.85, 320), (1.15, 330), (0.0, 310)])
def test_a_long_event_is_told_after_a_minute_and_when_it_is_over(share: float, code: int) -> None:
    worse = share + (0.02 if share > 1 else -0.05 if share else 0)
    assert of_l1((1, 1), (share, 60.2)) == [(1000, code, round(share * 100, 2), 60.1, 0)]
    assert of_l1((1, 1), (share, 100), (worse, 20), (1, 1)) == [
        (1000, code, round(share * 100, 2), 60.1, 0),
        (121_000, 0, round(worse * 100, 2), 120.0, 0),
    ]


@pytest.mark.parametrize("share", [0.9, 0.95, 1.0, 1.05, 1.1])
def test_the_bounds_themselves_are_normal(share: float) -> None:
    assert of_l1((1, 1), (share, 5), (1, 1)) == []


def test_hysteresis_makes_one_event_of_a_voltage_at_the_bound() -> None:
    bound = [(0.899, 0.1), (0.905, 0.1)] * 20
    assert of_l1((1, 1), *bound, (0.93, 1)) == [(1000, 232, 89.9, 4.0, 0)]
    assert of_l1((1, 1), (1.11, 0.2), (1.09, 0.3), (1.07, 1)) == [(1000, 212, 111.0, 0.5, 0)]
    # An interruption ends at 12 %.
    assert of_l1((1, 1), (0.05, 1), (0.11, 1), (1, 1)) == [(1000, 221, 5.0, 2.0, 0)]


def test_thirty_cycles_are_shorter_at_60_hz() -> None:
    assert of_l1((1, 1), (0.5, 0.6), (1, 1), nominal_frequency=60.0)[0][1] == 222
    assert event_class(SAG, 0.5, 60.0) == 211


def test_every_kind_has_a_class_for_every_duration() -> None:
    for kind in (SAG, SWELL, INTERRUPTION):
        assert tuple(event_class(kind, seconds, 50) for seconds in (0.1, 2, 30, 100)) == CLASSES[kind]


def test_the_edges_of_an_interruption_belong_to_it() -> None:
    assert of_l1((1, 1), (0.5, 0.1), (0.0, 2), (0.6, 0.1), (1, 1)) == [(1000, 221, 0.0, 2.1, 0)]


def test_what_follows_on_something_else_is_an_event_of_its_own() -> None:
    assert of_l1((1, 1), (0.7, 10), (0.0, 2), (0.8, 5), (1.2, 1), (1, 1)) == [
        (1000, 232, 70.0, 10.0, 0),
        (11_000, 221, 0.0, 2.0, 0),
        (13_000, 232, 80.0, 5.0, 0),
        (18_000, 223, 120.0, 1.0, 0),
    ]
    # After one that was told before, the end has a time of its own.
    assert of_l1((1, 1), (0.7, 70), (0.0, 2), (1, 1)) == [
        (1000, 320, 70.0, 60.1, 0),
        (71_000, 0, 70.0, 70.0, 0),
        (71_001, 221, 0.0, 1.999, 0),
    ]


def test_overlapping_events_of_three_phases() -> None:
    first = wave((1, 1), (0.5, 5), (1, 14))
    second = wave((1, 3), (0.05, 5), (1, 12))
    third = wave((1, 5), (1.2, 10), (1, 5))
    found = run(stage(), [first, second, third])
    assert events(found, "l1") == [(1000, 232, 50.0, 5.0, 0)]
    assert events(found, "l2") == [(3000, 231, 5.0, 5.0, 0)]
    assert events(found, "l3") == [(5000, 233, 120.0, 10.0, 0)]


def test_a_gap_is_no_event() -> None:
    assert of_l1((1, 1), (None, 30), (1, 5)) == []


def test_a_gap_within_an_event_is_told() -> None:
    assert of_l1((1, 1), (0.5, 2), (None, 1), (0.5, 2), (1, 1)) == [(1000, 232, 50.0, 5.0, INCOMPLETE)]
    # Normal again after the gap: it ended somewhere within.
    assert of_l1((1, 1), (0.5, 2), (None, 1), (1, 1)) == [(1000, 222, 50.0, 3.0, INCOMPLETE)]


def test_polls_that_were_left_out_within_an_event_are_told() -> None:
    power = stage()
    well: list[float | None] = [NOMINAL] * 20
    run(power, [wave((1, 1), (0.5, 1)), well, well])
    found = run(power, [wave((0.5, 1), (1, 1)), well, well], start=START + 2500)
    assert events(found) == [(1000, 222, 50.0, 2.5, INCOMPLETE)]


def test_a_meter_that_loses_its_own_supply_is_silent_and_not_interrupted() -> None:
    # The supply sags, the meter dies with it, and comes back after 20 s.
    assert of_l1((1, 1), (0.5, 0.5), (None, 20), (1, 5)) == [(1000, 211, 50.0, 0.4, INCOMPLETE)]
    assert of_l1((1, 1), (0.8, 70), (None, 20), (0.8, 1), (1, 1)) == [
        (1000, 320, 80.0, 60.1, 0),
        (70_900, 0, 80.0, 69.9, INCOMPLETE),
        (91_000, 222, 80.0, 1.0, 0),
    ]


def test_a_meter_without_any_record_is_told_by_the_clock() -> None:
    power = stage()
    sag = wave((1, 1), (0.5, 1))
    assert events(run(power, [sag, [NOMINAL] * 20, [NOMINAL] * 20])) == []
    assert power.tick(START + 10_000) == []
    assert events(readings(power.tick(START + 20_000))) == [(1000, 222, 50.0, 0.9, INCOMPLETE)]


def test_an_event_under_way_is_told_at_the_end() -> None:
    power = stage()
    run(power, [wave((1, 1), (0.5, 2)), [NOMINAL] * 30, [NOMINAL] * 30])
    assert events(readings(power.close())) == [(1000, 222, 50.0, 1.9, INCOMPLETE)]
    assert power.close() == []


def test_an_event_goes_on_over_a_change_of_other_meters() -> None:
    power = stage()
    run(power, [wave((1, 1), (0.5, 2)), [NOMINAL] * 30, [NOMINAL] * 30])
    other = MeterConfig("other", "hall", 2, "any", 0.1, nominal_voltage=NOMINAL)
    after = PowerQuality([meter(), other])
    assert after.adopt(power) == []
    well: list[float | None] = [NOMINAL] * 20
    found = run(after, [wave((0.5, 1), (1, 1)), well, well], start=START + 3000)
    assert events(found) == [(1000, 222, 50.0, 3.0, 0)]
    changed = stage(nominal_voltage=400.0)
    again = stage()
    run(again, [wave((1, 1), (0.5, 2)), [NOMINAL] * 30, [NOMINAL] * 30])
    assert events(readings(changed.adopt(again))) == [(1000, 222, 50.0, 1.9, INCOMPLETE)]


def test_one_sample_a_second_misses_a_short_sag_and_says_a_long_one_in_seconds() -> None:
    assert of_l1((1, 2), (0.5, 3), (1, 3), step=1000) == [(2000, 222, 50.0, 3.0, 0)]


REGISTERS = Layout(
    ("main/voltage_l1", "main/voltage_l1_min", "main/voltage_l1_max", "main/active_power"),
    ("V", "V", "V", "W"),
)


def with_registers(rows: Sequence[tuple[float, float, float]]) -> list[Event]:
    """Samples once a second with the device's own minimum and maximum; shares of the nominal voltage."""
    power = stage(interval=1.0)
    found: list[Reading] = []
    for number, row in enumerate(rows):
        record = Record(REGISTERS, START + number * 1000, [*(NOMINAL * share for share in row), 5.0])
        found += readings(power.take([record])[1:])
    return events(found)


def test_registers_of_the_device_show_what_no_sample_has_seen() -> None:
    well = (1.0, 0.99, 1.01)
    doubt = quality.UNCERTAIN
    assert with_registers([well, well, (1.0, 0.5, 1.01), well]) == [(2000, 222, 50.0, 1.0, doubt)]
    assert with_registers([well, (1.0, 0.99, 1.3), well]) == [(1000, 223, 130.0, 1.0, doubt)]
    assert with_registers([well, (1.0, 0.02, 1.0), well]) == [(1000, 221, 2.0, 1.0, doubt)]


def test_a_register_that_is_kept_until_a_reset_tells_once() -> None:
    well, kept, worse = (1.0, 0.99, 1.01), (1.0, 0.5, 1.01), (1.0, 0.4, 1.01)
    assert with_registers([kept, kept, kept]) == []
    assert [one[:3] for one in with_registers([well, kept, kept, kept, worse, worse])] == [
        (1000, 222, 50.0),
        (4000, 222, 40.0),
    ]


def test_a_register_gives_an_event_its_true_depth_and_makes_no_second_one() -> None:
    well = (1.0, 0.99, 1.01)
    assert with_registers([well, (0.8, 0.8, 1.0), (0.8, 0.6, 0.9), (1.0, 0.7, 1.0), well, well]) == [
        (1000, 222, 60.0, 2.0, 0)
    ]
    # It knows more of the first sample, and of the moment at which the voltage came back.
    assert with_registers([well, (0.8, 0.6, 1.0), (1.0, 0.7, 1.0), well]) == [(1000, 222, 60.0, 1.0, 0)]
    assert with_registers([well, (0.8, 0.8, 1.0), (1.0, 0.55, 1.0), well]) == [(1000, 222, 55.0, 1.0, 0)]
    # The register is older than the event.
    kept = (1.0, 0.5, 1.0)
    found = with_registers([well, kept, kept, kept, (0.8, 0.5, 1.0), (0.8, 0.5, 1.0), well])
    assert found[1:] == [(4000, 222, 80.0, 2.0, 0)]


def _system(positive: complex, negative: complex, zero: complex = 0) -> list[complex]:
    turn = cmath.rect(1, 2 * math.pi / 3)
    return [
        positive + negative + zero,
        positive / turn + negative * turn + zero,
        positive * turn + negative / turn + zero,
    ]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("angle", [0.0, 1.0, 2.5, 4.0])
def test_the_negative_sequence_is_that_of_symmetrical_components(share: float, angle: float) -> None:
    u1, u2, u3 = _system(230, cmath.rect(230 * share, angle), 17 + 5j)
    found = negative_sequence(abs(u1 - u2), abs(u2 - u3), abs(u3 - u1))
    assert found == pytest.approx(share, abs=1e-6)


def test_voltages_that_are_no_triangle_have_no_negative_sequence() -> None:
    assert negative_sequence(400, 100, 100) is None
    assert negative_sequence(0, 0, 0) is None


def test_deviation_is_the_largest_from_the_mean() -> None:
    assert deviation(230, 230, 230) == 0
    assert deviation(240, 230, 220) == pytest.approx(10 / 230)
    assert deviation(0, 0, 0) is None


FULL = Layout((*LAYOUT.points, "main/voltage_l1_l2", "main/voltage_l2_l3", "main/voltage_l3_l1"), ("V",) * 6)


def test_unbalance_goes_with_every_sample() -> None:
    u1, u2, u3 = _system(230, cmath.rect(230 * 0.02, 1))
    values = [abs(one) for one in (u1, u2, u3, u1 - u2, u2 - u3, u3 - u1)]
    (_, unbalance) = stage().take([Record(FULL, START, values)])
    assert unbalance.layout == Layout(("main/voltage_unbalance", "main/voltage_deviation"), ("%", "%"))
    assert unbalance.time == START
    assert unbalance.values[0] == pytest.approx(2.0, abs=1e-3)
    assert unbalance.values[1] == pytest.approx(100 * (deviation(*values[:3]) or 0), abs=1e-3)
    (_, only) = stage().take([Record(LAYOUT, START, values[:3])])
    assert only.layout.points == ("main/voltage_deviation",)


def test_unbalance_of_missing_voltages_is_null() -> None:
    codes = bytes([0, 0, 0, NULL, 0, 0])
    (_, unbalance) = stage().take([Record(FULL, START, [230.0] * 3 + [400.0] * 3, codes)])
    assert [one.value for one in readings([unbalance])] == [None, 0.0]
    assert unbalance.qualities == bytes([NULL, 0])
    (_, nothing, *_) = stage().take([Record(LAYOUT, START, [1.0, 0.5, 0.2])])
    assert nothing.qualities == bytes([quality.BAD])


def test_other_records_pass_untouched() -> None:
    records = [Record(Layout(("main/active_power",), ("W",)), START, [1.0])]
    power = stage()
    assert power.take(records) is records
    unasked = PowerQuality([meter(nominal_voltage=None)])
    voltages = [Record(LAYOUT, START, [0.0] * 3)]
    assert unasked.take(voltages) is voltages
