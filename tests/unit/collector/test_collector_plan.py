# SPDX-License-Identifier: Apache-2.0
"""Which registers are read with one request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from energy_collector import profiles
from energy_collector.config import MeterConfig
from energy_collector.journal import Faults
from energy_collector.meters.blocks import RegisterMeter
from energy_collector.meters.learned import Learned
from energy_collector.meters.making import make
from energy_collector.meters.plan import Block, Cut, Span, block, plan
from energy_collector.meters.profile_file import parse
from hypothesis import example, given, settings
from hypothesis import strategies as st

spans = st.lists(
    st.builds(
        Span,
        st.just(""),
        st.integers(0, 30),
        st.sampled_from([1, 1, 2, 4]),
        st.sampled_from([3, 3, 3, 4]),
    ),
    min_size=1,
    max_size=7,
).map(lambda found: [span._replace(name=f"f{index}") for index, span in enumerate(found)])
cuts = st.lists(
    st.builds(lambda first, more: Cut(3, first, first + more), st.integers(0, 30), st.integers(1, 3)),
    max_size=3,
)


def is_allowed(found: Block, most: int, gap: int, apart: list[Cut]) -> bool:
    """Whether a device can be asked for a block, told from the registers themselves."""
    held = {register for span in found.spans for register in range(span.address, span.end)}
    registers = range(min(held), max(held) + 1)
    run = 0
    for register in registers:
        run = 0 if register in held else run + 1
        if run > gap:
            return False
    crossed = any(
        cut.function == found.function and cut.first in registers and cut.last in registers for cut in apart
    )
    return (
        len({span.function for span in found.spans}) == 1
        and (found.address, found.count) == (registers.start, len(registers))
        and len(registers) <= most
        and not crossed
    )


def partitions(found: list[Span]) -> Iterator[list[list[Span]]]:
    """All ways to distribute spans over blocks."""
    if not found:
        yield []
        return
    first, rest = found[0], found[1:]
    for smaller in partitions(rest):
        yield [[first], *smaller]
        for index, group in enumerate(smaller):
            yield [*smaller[:index], [first, *group], *smaller[index + 1 :]]


@settings(max_examples=300, deadline=None)
@given(spans, st.integers(4, 20), st.integers(0, 8), cuts)
# A gap between two values that an earlier, longer one fills.
@example([Span("f0", 0, 4), Span("f1", 1, 1), Span("f2", 3, 1)], 20, 0, [])
def test_no_plan_asks_less(found: list[Span], most: int, gap: int, apart: list[Cut]) -> None:
    planned = plan(found, most, gap, apart)
    # A value can only be read whole.
    apart = [
        cut
        for cut in apart
        if not any(
            span.function == cut.function and span.address <= cut.first and cut.last < span.end
            for span in found
        )
    ]
    assert sorted(span for one in planned for span in one.spans) == sorted(found)
    assert all(is_allowed(one, most, gap, apart) for one in planned)
    costs = []
    for groups in partitions(found):
        blocks = [block(sorted(group, key=lambda span: span.address)) for group in groups]
        if all(is_allowed(one, most, gap, apart) for one in blocks):
            costs.append((len(blocks), sum(one.count for one in blocks)))
    assert (len(planned), sum(one.count for one in planned)) == min(costs)


def test_the_widest_gap_is_left_out_where_a_block_must_end() -> None:
    # Filling the first block from the left would read 0 to 7, over the gap, and then 8.
    found = [Span(str(address), address, 1) for address in (0, 1, 5, 6, 7, 8)]
    assert [(one.address, one.count) for one in plan(found, 8, 5)] == [(0, 2), (5, 4)]


def test_a_value_longer_than_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="energy takes 4 registers, a block holds 2"):
        plan([Span("energy", 10, 4)], 2, 0)


def test_the_plans_of_the_meters_are_short() -> None:
    for name, requests in {"eastron-sdm630": 2, "carlo-gavazzi-em24": 2}.items():
        meter = make(MeterConfig("m", "b", 1, name, 10.0))
        assert isinstance(meter, RegisterMeter)
        assert len(meter.blocks) == requests
        assert max(one.count for one in meter.blocks) <= profiles.load(name).max_block


def test_only_the_points_asked_for_are_read() -> None:
    meter = make(MeterConfig("m", "b", 1, "eastron-sdm630", 10.0, points=("active_power", "frequency")))
    assert isinstance(meter, RegisterMeter)
    assert meter.points == {"m/active_power": "W", "m/frequency": "Hz"}
    assert [(one.address, one.count) for one in meter.blocks] == [(0x34, 0x48 - 0x34)]


def test_holes_of_a_profile_are_read_around() -> None:
    data = {
        "model": "x",
        "source": "x",
        "holes": [[2, 3]],
        "points": {name: {"unit": "V", "address": at, "type": "uint16"} for name, at in (("a", 1), ("b", 4))},
    }
    meter = RegisterMeter(MeterConfig("m", "b", 1, "x", 10.0), parse("x", data), Learned(None, Faults()))
    assert [(one.address, one.count) for one in meter.blocks] == [(1, 1), (4, 1)]
