# SPDX-License-Identifier: Apache-2.0
"""Gates are asked beside the driver: what is known counts for a while, and only for the soak that it was about."""

from __future__ import annotations

import time
from collections.abc import Mapping

from wattfleet.rollout.engine import Rollout
from wattfleet.rollout.gate import gate_of
from wattfleet.rollout.gates import Outcome, Verdict
from wattfleet.rollout.ledger import Record
from wattfleet.rollout.model import Settings
from wattfleet.rollout.verdicts import Verdicts

LOOK = {"version": "2.0"}


class Counted:
    """Passes everybody; keeps what it was asked."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.asked: list[list[str]] = []
        self.breaks = breaks

    def verdicts(self, records: Mapping[str, Record]) -> dict[str, Verdict]:
        self.asked.append(sorted(records))
        assert all(record.data["look"] == LOOK for record in records.values())
        if self.breaks:
            raise OSError("the hub's disk is on fire")
        return dict.fromkeys(records, Verdict(Outcome.PASS, "4 of 4 checks passed"))


def soaking(since: int = 1) -> Rollout:
    record = Record("soaking", since, {"target": "2.0"})
    return Rollout("r1", Record("running", 0, {}), {"a": record, "b": record}, Settings(), (("a", "b"),))


def known(verdicts: Verdicts, rollout: Rollout, looks: Mapping[str, Mapping[str, str]]) -> dict[str, Verdict]:
    """After whatever is asked has answered."""
    verdicts.of(rollout, ("a", "b"), looks)
    until = time.monotonic() + 20
    while verdicts._is_asking and time.monotonic() < until:
        time.sleep(0.01)
    return verdicts.of(rollout, ("a", "b"), looks)


def test_all_sites_that_are_due_are_asked_about_at_once_and_not_again_soon() -> None:
    gate = Counted()
    verdicts = Verdicts(gate, soak=900)
    assert verdicts.of(soaking(), ("a", "b"), {}) == {}, "nobody has looked at them yet"
    found = known(verdicts, soaking(), {"a": LOOK, "b": LOOK})
    assert {name: one.outcome for name, one in found.items()} == {"a": Outcome.PASS, "b": Outcome.PASS}
    known(verdicts, soaking(), {"a": LOOK, "b": LOOK})
    assert gate.asked == [["a", "b"]]


def test_an_answer_about_an_earlier_soak_says_nothing() -> None:
    gate = Counted()
    verdicts = Verdicts(gate, soak=900)
    assert set(known(verdicts, soaking(), {"a": LOOK})) == {"a"}
    assert verdicts.of(soaking(since=2), ("a",), {}) == {}


def test_a_gate_that_cannot_be_asked_is_inconclusive() -> None:
    found = known(Verdicts(Counted(breaks=True), soak=900), soaking(), {"a": LOOK})
    assert found["a"] == Verdict(
        Outcome.INCONCLUSIVE, "the gate could not be asked: the hub's disk is on fire"
    )


def test_a_fleet_without_a_hub_never_passes() -> None:
    found = gate_of({}, {}).verdicts({"a": Record("soaking", 1, {})})
    assert found["a"].outcome is Outcome.INCONCLUSIVE
