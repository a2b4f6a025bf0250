# SPDX-License-Identifier: Apache-2.0
"""Interval statistics held against closed forms, and what becomes of intervals with holes."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from energy_collector import quality
from energy_collector.batches import batch
from energy_collector.bus import Bus
from energy_collector.config import BusConfig, ConfigError, MeterConfig
from energy_collector.journal import Faults
from energy_collector.meters.making import make
from energy_collector.reading import Layout, Reading, Record, readings
from energy_collector.stages.counters import Counters
from energy_collector.stages.power_quality import PowerQuality
from energy_collector.stages.stage import Chain, Stage
from energy_collector.stages.statistics import Statistics
from hypothesis import given, settings
from hypothesis import strategies as st

from .collector_support import ModbusServer, config_of, input_device

START = 1_800_000_000_000
STEP = 100
INCOMPLETE = quality.UNCERTAIN_INCOMPLETE
NULL = quality.BAD_NO_ANSWER
LAYOUT = Layout(("main/active_power", "main/voltage_l1", "main/energy_import"), ("W", "V", "W.h"))


def meter(**changes: Any) -> MeterConfig:
    return MeterConfig("main", "hall", 1, "any", **{"interval": 0.1, "report": 10.0, **changes})


def stage(newest: Any = lambda _: 0, **changes: Any) -> Statistics:
    return Statistics([meter(**changes)], newest=newest)


def rows(
    values: Iterable[Sequence[float | None]], start: int = START, step: int = STEP, layout: Layout = LAYOUT
) -> list[Record]:
    """Records of an even rate; None is no answer."""
    found = []
    for number, row in enumerate(values):
        codes = bytes(NULL if value is None else 0 for value in row)
        found.append(
            Record(
                layout, start + number * step, [value or 0.0 for value in row], codes if any(codes) else b""
            )
        )
    return found


def run(statistics: Statistics, records: Iterable[Record]) -> list[Reading]:
    return [one for record in records for one in readings(statistics.take([record]))]


def by_point(found: Iterable[Reading]) -> dict[str, Reading]:
    """Readings by short name; each name once."""
    result: dict[str, Reading] = {}
    for one in found:
        name = one.point.removeprefix("main/")
        assert name not in result
        result[name] = one
    return result


def interval(
    values: Sequence[Sequence[float | None]], layout: Layout = LAYOUT, **changes: Any
) -> dict[str, Reading]:
    """The statistics of 10 s of samples."""
    statistics = stage(**changes)
    found = run(statistics, rows(values, layout=layout))
    assert not found
    return by_point(run(statistics, rows([values[0]], START + 10_000, layout=layout)))


def test_a_constant() -> None:
    found = interval([(1500.0, 230.0, 1000.0)] * 100)
    assert {name: one.value for name, one in found.items()} == {
        "active_power_mean": 1500,
        "active_power_min": 1500,
        "active_power_max": 1500,
        "voltage_l1_mean": 230,
        "voltage_l1_min": 230,
        "voltage_l1_max": 230,
        "voltage_l1_rms": 230,
        "energy_import": 1000,
    }
    assert {one.quality for one in found.values()} == {0}
    assert {one.unit for name, one in found.items() if name.startswith("voltage")} == {"V"}
    # Statistics have the start of their interval, a counter the time at which it was read.
    assert {one.time for name, one in found.items() if name != "energy_import"} == {START}
    assert found["energy_import"].time == START + 9900


def test_a_ramp() -> None:
    found = interval([(float(number), number / 10, float(number)) for number in range(100)])
    assert found["active_power_mean"].value == 49.5
    assert (found["active_power_min"].value, found["active_power_max"].value) == (0, 99)
    # Sum of n squares: (n - 1) n (2n - 1) / 6.
    assert found["voltage_l1_rms"].value == pytest.approx(math.sqrt(99 * 100 * 199 / 6 / 100) / 10, abs=1e-4)
    assert found["energy_import"].value == 99


def test_a_modulated_power_and_voltage() -> None:
    turns = [2 * math.pi * 3 * number / 100 for number in range(100)]
    found = interval([(5000 + 4000 * math.sin(x), 230 + 20 * math.cos(x), 0.0) for x in turns])
    assert found["active_power_mean"].value == pytest.approx(5000, abs=1e-3)
    assert found["voltage_l1_mean"].value == pytest.approx(230, abs=1e-3)
    # The mean of a sine's square is a half.
    assert found["voltage_l1_rms"].value == pytest.approx(math.sqrt(230**2 + 20**2 / 2), abs=1e-3)


POWERS = Layout(
    ("main/active_power", "main/apparent_power", "main/reactive_power", "main/power_factor"),
    ("W", "V.A", "var", "1"),
)


def test_the_power_factor_is_that_of_the_energies() -> None:
    # Half of the time 10 kW at 1.0, half 1 kW at 0.5: the mean of the factors would be 0.75.
    found = interval([(10_000.0, 10_000.0, 0.0, 1.0), (1000.0, 2000.0, 1732.0, 0.5)] * 50, POWERS)
    assert found["power_factor_mean"].value == pytest.approx(11_000 / 12_000, abs=1e-5)
    assert (found["power_factor_min"].value, found["power_factor_max"].value) == (0.5, 1.0)
    # Generation: the factor has the power's sign, also where the device signs its apparent power.
    for sign in (1, -1):
        found = interval([(-900.0, sign * 1000.0, 435.9, -0.9)] * 100, POWERS)
        assert found["power_factor_mean"].value == -0.9


def test_the_power_factor_without_an_apparent_power() -> None:
    layout = Layout(("main/active_power_l2", "main/reactive_power_l2"), ("W", "var"))
    found = interval([(3000.0, 4000.0)] * 100, layout)
    assert found["power_factor_l2_mean"].value == 0.6
    assert found["power_factor_l2_mean"].unit == "1"
    # A device that gives nothing but the factor gets the mean of its samples.
    found = interval([(0.5,), (0.9,)] * 50, Layout(("main/power_factor",), ("1",)))
    assert found["power_factor_mean"].value == 0.7


def test_no_power_has_no_factor_and_rounding_makes_none_above_one() -> None:
    found = interval([(0.0, 0.0, 0.0, 1.0)] * 100, POWERS)
    assert (found["power_factor_mean"].value, found["power_factor_mean"].quality) == (None, quality.BAD)
    assert interval([(1001.0, 1000.0, 0.0, 1.0)] * 100, POWERS)["power_factor_mean"].value == 1.0


@pytest.mark.parametrize(("missing", "code"), [(0, 0), (10, 0), (11, INCOMPLETE), (99, INCOMPLETE)])
def test_missing_samples_are_told(missing: int, code: int) -> None:
    values: list[tuple[float | None, ...]] = [(None, None, None)] * missing
    values += [(7.0, 230.0, 5.0)] * (100 - missing)
    found = interval(values)
    assert {one.quality for name, one in found.items() if name != "energy_import"} == {code}
    assert found["active_power_mean"].value == found["active_power_max"].value == 7
    assert (found["energy_import"].value, found["energy_import"].quality) == (5, 0)
    # Samples that were never taken are missing as well.
    fewer = by_point(run(statistics := stage(), rows(values[missing:])) + readings(statistics.close()))
    assert fewer["active_power_mean"].quality == code


def test_no_sample_at_all_is_null_with_the_last_reason() -> None:
    values: list[tuple[float | None, ...]] = [(None, None, None)] * 100
    statistics = stage()
    records = rows(values)
    records[-1] = records[-1]._replace(qualities=bytes([quality.BAD_CONNECTION] * 3))
    found = by_point(run(statistics, records) + readings(statistics.close()))
    assert {(one.value, one.quality) for one in found.values()} == {(None, quality.BAD_CONNECTION)}
    assert found["energy_import"].time == START + 9900


def test_doubtful_samples_count_only_where_there_is_no_good_one() -> None:
    outside = bytes([quality.UNCERTAIN_OUT_OF_RANGE, 0, 0])
    good = rows([(5.0, 230.0, 1.0)] * 95)
    wild = [one._replace(qualities=outside) for one in rows([(9e9, 230.0, 1.0)] * 5, START + 9500)]
    statistics = stage()
    found = by_point(run(statistics, good + wild) + readings(statistics.close()))
    assert (found["active_power_max"].value, found["active_power_max"].quality) == (5, 0)
    statistics = stage()
    only = [one._replace(qualities=outside) for one in rows([(6.0, 230.0, 1.0)] * 100)]
    found = by_point(run(statistics, only) + readings(statistics.close()))
    assert (found["active_power_mean"].value, found["active_power_mean"].quality) == (
        6,
        quality.UNCERTAIN_OUT_OF_RANGE,
    )


def test_one_missing_point_leaves_the_others_complete() -> None:
    values: list[tuple[float | None, ...]] = [
        (7.0, None if number % 2 else 230.0, 5.0) for number in range(100)
    ]
    found = interval(values)
    assert found["active_power_mean"].quality == 0
    assert (found["voltage_l1_rms"].quality, found["voltage_l1_rms"].value) == (INCOMPLETE, 230)


def test_the_nulls_of_a_silent_meter_are_samples_of_its_blocks() -> None:
    """A meter that is spared has one record with all its points, whatever the blocks that they are read in."""
    first, second = Layout(("main/active_power",), ("W",)), Layout(("main/voltage_l1",), ("V",))
    both = Layout((*first.points, *second.points), ("W", "V"))
    statistics = stage()
    records = [
        record
        for number in range(80)
        for record in (
            Record(first, START + number * STEP, [5.0]),
            Record(second, START + number * STEP + 20, [230.0]),
        )
    ]
    records += rows([(None, None)] * 20, START + 8000, layout=both)
    found = by_point(run(statistics, records) + readings(statistics.close()))
    assert {one.quality for one in found.values()} == {INCOMPLETE}
    assert found["voltage_l1_mean"].value == 230


def test_a_sample_belongs_to_the_interval_of_its_own_time() -> None:
    """Two blocks of one poll, of which the second falls behind the bound."""
    other = Layout(("main/current_l1",), ("A",))
    statistics = stage(interval=1.0)
    for number in range(10):
        run(statistics, [Record(LAYOUT, START + number * 1000 + 999, [1.0, 2.0, 3.0])])
        run(statistics, [Record(other, START + number * 1000 + 500, [4.0])] if number < 9 else [])
    found = by_point(readings(statistics.take([Record(other, START + 10_001, [8.0])])))
    assert found["current_l1_mean"].value == 4
    assert found["active_power_mean"].quality == 0
    # A record that comes after its interval was given is counted, and changes nothing.
    assert statistics.take([Record(LAYOUT, START + 9999, [9.0, 9.0, 9.0])]) == []
    assert statistics.late == {"main": 1}


def test_intervals_lie_on_the_grid_and_without_a_poll_there_is_nothing() -> None:
    statistics = stage()
    found = run(statistics, rows([(1.0, 1.0, 1.0)] * 100, START))
    found += run(statistics, rows([(2.0, 1.0, 1.0)] * 100, START + 40_000))
    assert statistics.tick(START + 50_000) == []
    assert statistics.tick(START + 59_000) == []
    found += readings(statistics.tick(START + 61_000))
    assert statistics.tick(START + 99_000) == []
    # What comes now was given without it.
    assert statistics.take(rows([(9.0, 9.0, 9.0)], START + 49_999)) == []
    assert statistics.late == {"main": 1}
    assert statistics.close() == []
    means = [(one.time - START, one.value) for one in found if one.point == "main/active_power_mean"]
    assert means == [(0, 1.0), (40_000, 2.0)]


def test_after_a_restart_the_rest_of_an_interval_has_a_time_of_its_own() -> None:
    first, second = stage(), stage()
    found = run(first, rows([(1.0, 1.0, 1.0)] * 40))
    found += readings(first.close())
    found += run(second, rows([(3.0, 1.0, 1.0)] * 150, START + 5000))
    found += readings(second.close())
    means = [
        (one.time - START, one.value, one.quality) for one in found if one.point == "main/active_power_mean"
    ]
    assert means == [(0, 1, INCOMPLETE), (5000, 3, INCOMPLETE), (10_000, 3, 0)]


def test_no_identity_is_given_twice_whatever_the_interval_was_before() -> None:
    """Sampled every second, then every minute: the first sample of the new run is early in the same minute."""
    newest = {"main/active_power_mean": START}
    statistics = stage(lambda point: newest.get(point, 0), interval=60.0, report=60.0)
    assert statistics.take(rows([(1.0, 1.0, 1.0)], START + 17_000)) == []
    found = by_point(readings(statistics.close()))
    assert found["active_power_mean"].time == START + 17_000
    # The same when it is the configuration that changes while the service runs.
    before, after = stage(interval=1.0, report=60.0), stage(interval=60.0, report=60.0)
    run(before, rows([(1.0, 1.0, 1.0)] * 9, step=1000))
    first = by_point(readings(after.adopt(before)))
    run(after, rows([(1.0, 1.0, 1.0)], START + 17_000))
    second = by_point(readings(after.close()))
    assert (first["active_power_mean"].time, second["active_power_mean"].time) == (START, START + 17_000)


def test_an_interval_goes_on_over_a_change_of_other_meters() -> None:
    before = stage()
    run(before, rows([(1.0, 1.0, 1.0)] * 50))
    after = Statistics([meter(), MeterConfig("other", "hall", 2, "any", 1.0, report=10.0)])
    assert after.adopt(before) == []
    run(after, rows([(3.0, 1.0, 1.0)] * 50, START + 5000))
    found = by_point(readings(after.close()))
    assert (found["active_power_mean"].value, found["active_power_mean"].quality) == (2, 0)


def test_the_mark_of_a_counter_is_not_lost() -> None:
    records = rows([(1.0, 1.0, float(number)) for number in range(100)])
    reset = bytes([0, 0, quality.UNCERTAIN_COUNTER_RESET])
    rolled = bytes([0, 0, quality.GOOD_COUNTER_ROLLOVER])
    records[40] = records[40]._replace(qualities=reset)
    records[70] = records[70]._replace(qualities=rolled)
    # The last one does not count: the reading is the one before it.
    records[99] = records[99]._replace(qualities=bytes([0, 0, quality.UNCERTAIN]))
    statistics = stage()
    found = by_point(run(statistics, records) + readings(statistics.close()))["energy_import"]
    assert (found.value, found.quality, found.time) == (98, quality.UNCERTAIN_COUNTER_RESET, START + 9800)


def test_states_go_on_with_their_last_value() -> None:
    statistics = Statistics([meter()], last={"main/state"})
    layout = Layout(("main/state",), ("1",))
    found = run(statistics, rows([(4.0,)] * 60 + [(5.0,)] * 40, layout=layout)) + readings(statistics.close())
    assert found == [Reading("main/state", "1", START + 9900, 5.0, 0)]


def test_a_devices_own_minimum_is_the_minimum() -> None:
    layout = Layout(("main/voltage_l1", "main/voltage_l1_min"), ("V", "V"))
    found = interval([(230.0, 180.0 if number == 50 else 229.0) for number in range(100)], layout)
    assert {name: one.value for name, one in found.items()} == {
        "voltage_l1_mean": 230,
        "voltage_l1_min": 180,
        "voltage_l1_max": 230,
        "voltage_l1_rms": 230,
    }


def test_chosen_points_at_full_rate() -> None:
    statistics = stage(raw=("active_power", "energy_import"))
    records = rows([(float(number), 230.0, float(number)) for number in range(100)])
    records[3] = records[3]._replace(qualities=bytes([NULL, 0, 0]))
    found = run(statistics, records)
    raw = [(one.time - START, one.value) for one in found if one.point == "main/active_power"]
    assert raw == [(number * STEP, None if number == 3 else number) for number in range(100)]
    # A counter that was given at full rate is not given again; the statistics come all the same.
    end = by_point(readings(statistics.close()))
    assert "energy_import" not in end
    assert end["active_power_max"].value == 99


def test_full_rate_for_a_time_on_request() -> None:
    statistics = stage()
    run(statistics, rows([(1.0, 230.0, 1.0)] * 20))
    assert statistics.raw_until("main", ["voltage_l1", "energy_import"], START + 5000) == [
        "main/voltage_l1",
        "main/energy_import",
    ]
    found = run(statistics, rows([(1.0, 230.0, 2.0)] * 80, START + 2000)) + readings(statistics.close())
    for point in ("main/voltage_l1", "main/energy_import"):
        times = [one.time - START for one in found if one.point == point and one.time < START + 9900]
        assert times == [2000 + number * STEP for number in range(30)]
    times = [one.time for one in found if one.point == "main/energy_import"]
    assert times == sorted(set(times))
    assert times[-1] == START + 9900
    assert next(one.quality for one in found if one.point == "main/voltage_l1_mean") == 0
    with pytest.raises(KeyError):
        statistics.raw_until("other", ["voltage_l1"], START)


class _Doubled(Stage):
    """Doubles values, and gives one of its own at each tick and at the end."""

    def take(self, records: list[Record]) -> list[Record]:
        return [one._replace(values=[2 * value for value in one.values]) for one in records]

    def tick(self, now: int) -> list[Record]:
        return rows([(1.0, 1.0, 1.0)], now)

    def close(self) -> list[Record]:
        return self.tick(0)


def test_what_a_stage_gives_by_itself_goes_through_those_behind_it() -> None:
    chain = Chain([_Doubled(), _Doubled()])
    assert [one.values[0] for one in chain.take(rows([(1.0, 1.0, 1.0)]))] == [4]
    assert [one.values[0] for one in chain.tick(START)] == [2, 1]
    assert [one.values[0] for one in chain.close()] == [2, 1]


def test_events_pass_and_unbalance_becomes_a_statistic() -> None:
    config = meter(nominal_voltage=230.0)
    chain = Chain([PowerQuality([config]), Statistics([config])])
    layout = Layout(tuple(f"main/voltage_l{phase}" for phase in (1, 2, 3)), ("V",) * 3)
    values = [(100.0 if 20 <= number < 30 else 240.0, 230.0, 220.0) for number in range(100)]
    found = [one for record in rows(values, layout=layout) for one in readings(chain.take([record]))]
    assert [(one.point, one.time - START, one.value) for one in found] == [
        ("main/voltage_event_l1", 2000, 222.0),
        ("main/voltage_event_l1_magnitude", 2000, 43.48),
        ("main/voltage_event_l1_duration", 2000, 1.0),
    ]
    end = by_point(readings(chain.close()))
    assert end["voltage_deviation_min"].value == pytest.approx(100 * 10 / 230, abs=1e-3)
    assert end["voltage_deviation_rms"].value is not None
    assert end["voltage_l1_min"].value == 100


def test_a_meter_without_report_passes_untouched() -> None:
    records = rows([(1.0, 2.0, 3.0)] * 3)
    none = Statistics([meter(report=None)])
    assert none.take(records) is records
    other = Statistics([MeterConfig("other", "hall", 2, "any", 1.0, report=10.0)])
    assert [id(one) for one in other.take(records)] == [id(one) for one in records]


@given(
    st.lists(st.floats(-1e9, 1e9).map(lambda value: round(value, 3)), min_size=1, max_size=300),
    st.integers(1, 400),
)
def test_sums_are_exact_however_they_are_cut(values: list[float], chunk: int) -> None:
    from energy_collector.stages.statistics import _Sums

    sums = _Sums()
    for first in range(0, len(values), chunk):
        sums.add(values[first : first + chunk], squares=True)
    assert sums.count == len(values)
    assert (sums.low, sums.high) == (min(values), max(values))
    scale = max(map(abs, values)) or 1.0
    assert sums.total == pytest.approx(math.fsum(values), abs=1e-12 * scale)
    assert sums.squares == pytest.approx(math.fsum(value * value for value in values), rel=1e-12, abs=1e-300)


HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("samples"), st.integers(1, 40)),
        st.tuples(st.just("silent"), st.integers(1, 40)),
        st.tuples(st.just("gap"), st.integers(1, 300)),
        st.tuples(st.just("sag"), st.integers(1, 40)),
        st.tuples(st.just("dark"), st.integers(1, 40)),
        st.tuples(st.just("restart"), st.integers(0, 20)),
        st.tuples(st.just("killed"), st.integers(0, 20)),
        st.tuples(st.just("raw"), st.integers(1, 30)),
        st.tuples(st.just("tick"), st.integers(0, 200)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(HAPPENINGS, st.integers(0, 60))
def test_no_identity_is_given_twice_whatever_happens(events: list[tuple[str, int]], offset: int) -> None:
    """Times of each point strictly ascend, through restarts, gaps and changes of what is given at full rate."""
    layout = Layout(("main/voltage_l1", "main/voltage_l1_min", "main/energy_import"), ("V", "V", "W.h"))
    config = meter(report=2.0, nominal_voltage=230.0)
    given_times: dict[str, int] = {}

    def made() -> tuple[Chain, Statistics]:
        last = Statistics([config], newest=lambda point: given_times.get(point, 0))
        return Chain([PowerQuality([config]), last]), last

    def check(records: list[Record]) -> None:
        for one in readings(records):
            assert one.time > given_times.get(one.point, 0), one
            assert (one.value is None) == (one.quality >= quality.BAD)
            given_times[one.point] = one.time

    chain, last = made()
    now = START + offset * STEP
    voltages = {"sag": 150.0, "dark": 3.0}
    for kind, number in events:
        if kind in ("samples", "silent", "sag", "dark"):
            value = voltages.get(kind, 230.0)
            row = (None, None, None) if kind == "silent" else (value, value - number % 3 * 90, float(number))
            for record in rows([row] * number, now, layout=layout):
                check(chain.take([record]))
            now += number * STEP
        elif kind == "raw":
            last.raw_until("main", ["voltage_l1", "energy_import"], now + number * STEP)
        elif kind == "tick":
            now += number * STEP
            check(chain.tick(now))
        else:
            if kind == "restart":
                check(chain.close())
            if kind in ("restart", "killed"):
                chain, last = made()
            now += number * STEP
    check(chain.close())


def test_a_day_of_samples_is_as_exact_as_a_minute() -> None:
    statistics = stage(report=86400.0, interval=1.0)
    start = START - START % 86_400_000
    values = ((1e6 + 0.1 * (number % 7), 230.1, float(number)) for number in range(86_400))
    run(statistics, rows(values, start, 1000))
    found = by_point(readings(statistics.close()))
    assert found["active_power_mean"].value == 1e6
    assert found["voltage_l1_rms"].value == 230.1


def test_bytes_saved() -> None:
    """At 10 samples a second and a statistic every 10 s, the batch is less than a tenth."""
    count, noise = 20, random.Random(1)
    layout = Layout(tuple(f"main/active_power_{n}" for n in range(count)), ("W",) * count)
    records = rows(
        [[1000.0 + n + round(noise.gauss(0, 20)) for n in range(count)] for number in range(600)],
        layout=layout,
    )
    statistics = stage()
    made = [one for record in records for one in statistics.take([record])] + statistics.close()
    raw, reduced = readings(records), readings(made)
    assert (len(raw), len(reduced)) == (600 * count, 6 * count * 3)
    before, after = (
        len(zlib.compress(batch.encode_body("plant-a", batch.collect(one)))) for one in (raw, reduced)
    )
    assert after * 10 < before


def _floats(*values: float) -> list[int]:
    return list(struct.unpack(f">{2 * len(values)}H", struct.pack(f">{len(values)}f", *values)))


def test_the_records_of_a_real_meter() -> None:
    """Polled over a socket, then silent: its records have other layouts then, and the same points."""
    registers = _floats(*[230.0] * 3, *[10.0] * 3, *[2300.0] * 3, *[0.0] * 93)
    registers[0x34:0x36] = _floats(6900.0)
    registers[0x38:0x3A] = _floats(6900.0)
    registers[0x48:0x4A] = _floats(12.5)
    registers[0xC8:] = _floats(398.4, 398.4, 398.4)
    config = replace(meter(nominal_voltage=230.0), profile="eastron-sdm630")
    chain = Chain([Counters({"main/energy_import": None}, None, Faults()), PowerQuality([config]), stage()])
    stamps = itertools.count(START, STEP // 4)
    found: list[Record] = []

    async def polled(port: int, count: int) -> None:
        bus = Bus(BusConfig("hall", "modbus-tcp", "127.0.0.1", port, timeout=1.0))
        real = make(config)
        for _ in range(count):
            found.extend(chain.take((await real.poll(bus, stamps.__next__)).records))
        bus.close()

    with ModbusServer([input_device(1, 0, registers)]) as server:
        asyncio.run(polled(server.port, 5))
    asyncio.run(polled(server.port, 2))
    assert not found
    end = by_point(readings(chain.close()))
    assert end["active_power_mean"][3:] == (6900, INCOMPLETE)
    assert end["power_factor_mean"].value == 1
    assert end["voltage_l1_rms"].value == 230
    assert end["voltage_unbalance_rms"].value == 0
    assert (end["energy_import"].value, end["energy_import"].quality) == (12_500, 0)


def test_configuration(tmp_path: Path) -> None:
    config = config_of(tmp_path, interval=1, report=60, raw=["active_power"], nominal_voltage=230)
    (one,) = config.meters
    assert (one.report, one.raw, one.nominal_voltage, one.nominal_frequency) == (
        60,
        ("active_power",),
        230,
        50,
    )
    for changes, message in (
        ({"interval": 10, "report": 25}, "report: 25 s is not a multiple of the interval, 10 s"),
        ({"interval": 10, "report": 5}, "report: 5 s is not a multiple"),
        ({"report": 0}, "report: 0.0 is not between 1 and 86400"),
        ({"raw": ["active_power"]}, "raw: every sample is stored where report is not set"),
        ({"report": 60, "raw": [1]}, "raw[0]: 1 is not a text"),
        ({"report": 60, "raw": ["activ_power"]}, "did you mean active_power?"),
        ({"nominal_voltage": 0}, "nominal_voltage: 0.0 is not between"),
    ):
        with pytest.raises(ConfigError) as caught:
            config_of(tmp_path, **changes)
        assert len(caught.value.faults) == 1
        assert message in caught.value.faults[0]
