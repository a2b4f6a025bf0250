# SPDX-License-Identifier: Apache-2.0
"""A short run of the fuzzing in tests/fault, and its negative control."""

from __future__ import annotations

import pytest
from pymodbus.framer import FramerRTU

from tests.fault.fuzz_frames import fuzz

ROUNDS = 20_000


def test_no_value_from_a_malformed_answer() -> None:
    tally = fuzz(ROUNDS, 2)
    assert tally["bad values"] == 0
    assert tally["answers"] >= ROUNDS
    # The run has seen every outcome.
    assert all(tally[what] > 100 for what in ("good", "refused", "unfinished", "exceptions", "stale"))


def test_without_the_checksum_there_are_bad_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FramerRTU, "check_CRC", classmethod(lambda *_: True))
    assert fuzz(ROUNDS, 2)["bad values"] > 0
