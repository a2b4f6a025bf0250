# SPDX-License-Identifier: Apache-2.0
"""Ranges of sequences: how many a stream may have, and which of them a gateway is told."""

from __future__ import annotations

import json
import random

import pytest
from energy_hub.gaps import Room
from energy_hub.ingest import acknowledgement
from energy_hub.sequences import ENDS, MOST_TOLD, Ranges, multirange, ranges, told

ODD: Ranges = [(number, number) for number in range(1, 144_000, 2)]


def as_ranges(numbers: set[int]) -> Ranges:
    found: Ranges = []
    for number in sorted(numbers):
        if found and found[-1][1] + 1 == number:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def test_what_the_database_writes_is_read() -> None:
    assert ranges("{}") == []
    assert ranges("{[1,4),[7,8),[100,9223372036854775807)}") == [(1, 3), (7, 7), (100, 2**63 - 2)]
    assert multirange([3, 5]) == "{[3,3],[5,5]}"


@pytest.mark.parametrize("seed", range(20))
def test_there_is_room_for_all_but_one_more_range(seed: int) -> None:
    chance = random.Random(seed)
    numbers = set(chance.sample(range(1, 60), 12))
    room = Room(as_ranges(numbers), 10)
    for _ in range(300):
        sequence = chance.randint(1, 60)
        more = as_ranges(numbers | {sequence})
        has_room = len(more) <= max(10, len(as_ranges(numbers)))
        assert room.take(sequence) is has_room
        if has_room:
            numbers.add(sequence)
    assert room.take(1000, beyond=True)


def test_few_ranges_are_told_all() -> None:
    few = ODD[:MOST_TOLD]
    assert told(few, [5]) == few


def test_of_many_what_was_sent_is_told_with_both_ends_and_what_follows() -> None:
    sent = [70_001, 70_005, 120_001]
    found = told(ODD, sent)
    assert len(found) == MOST_TOLD
    assert found == sorted(found)
    assert found[:ENDS] == ODD[:ENDS]
    assert found[-ENDS:] == ODD[-ENDS:]
    assert {(number, number) for number in sent} <= set(found)
    after = [one for one in ODD if one[0] >= 70_001][:50]
    assert set(after) <= set(found)
    # A gateway that comes online says the first that it holds, which may be in a gap or beyond all.
    assert (70_003, 70_003) in told(ODD, [70_002])
    assert len(told(ODD, [10**9])) == len(told(ODD, [])) == len(told(ODD, range(1, 2000, 2))) == MOST_TOLD


def test_an_acknowledgement_is_small_whatever_is_committed() -> None:
    far = 1 << 62
    many = [(1, 7), *((far + 2 * number, far + 2 * number) for number in range(72_000))]
    payload = acknowledgement(bytes(8), many, "generation", [far + 70_000])
    assert len(payload) < 8192
    document = json.loads(payload)
    assert document["watermark"] == 7
    assert [far + 70_000, far + 70_000] in document["ranges"]
