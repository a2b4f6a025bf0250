# SPDX-License-Identifier: Apache-2.0
"""What a site is asked for, and what its answers mean: rates, bytes of the day, windows, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from wattfleet.rollout import operations, orders
from wattfleet.rollout.engine import BACK, DAY, FORWARD, Action, Command, Kind, Seen, decide
from wattfleet.rollout.ledger import Ledger, Step
from wattfleet.rollout.planning import make_plan
from wattfleet.rollout.status import status_of
from wattfleet.rollout.windows import Window

from .support import NAME, NOW, RELEASE, RINGS, SETTINGS, START, fresh, site

FILES = {"image": "/r/image.bin", "manifest": "/r/manifest.json", "inventory": "/i/fleet.sites.yml"}


def begun(path: Path, **more: object) -> Ledger:
    """A rollout over one site, whose transfer has begun."""
    ledger = fresh(path)
    plan = make_plan([site("a", "canary", **more)], RELEASE, SETTINGS, RINGS, NOW)
    ledger.write(operations.plan_steps(NAME, plan, FILES), at=START, who="test")
    ledger.write(operations.start(operations.load(ledger, NAME), plan.digest), at=START, who="test")
    for _ in range(2):
        rollout = operations.load(ledger, NAME)
        ledger.write(decide(rollout, START, open_windows=["a"]), at=START, who="test")
    return ledger


def see(ledger: Ledger, kind: Kind, at: int, data: Mapping[str, Any] = {}, why: str = "") -> list[Step]:
    steps = decide(operations.load(ledger, NAME), at, {"a": Seen(kind, why, data)})
    ledger.write(steps, at=at, who="test")
    return steps


def test_a_transfer_is_asked_for_at_the_sites_own_rate(tmp_path: Path) -> None:
    ledger = begun(tmp_path, transfer_rate=8000)
    order = orders.order_of(operations.load(ledger, NAME), Command("a", Action.TRANSFER, 1, FORWARD), START)
    assert order == {
        "step": "transfer",
        "attempt": "r1/a/1",
        "kind": "firmware",
        "image": "/r/image.bin",
        "manifest": "/r/manifest.json",
        "rate": 8000,
        "budget": 0,
        "seconds": orders.TRANSFER_SECONDS,
        "confirm_within": SETTINGS.reboot_deadline + SETTINGS.soak,
    }


def test_the_bytes_of_a_day_are_not_exceeded_and_come_back_the_next_day(tmp_path: Path) -> None:
    ledger = begun(tmp_path, transfer_budget=1_000_000)
    command = Command("a", Action.TRANSFER, 1, FORWARD)

    def budget(at: int) -> Any:
        order = orders.order_of(operations.load(ledger, NAME), command, at)
        return order and order["budget"]

    assert budget(START) == 1_000_000
    see(
        ledger,
        Kind.TRANSFERRING,
        START,
        {"offset": 600_000, "length": 8_000_000, "sent": 610_000, "seconds": 61},
    )
    assert budget(START) == 390_000
    see(
        ledger,
        Kind.TRANSFERRING,
        START,
        {"offset": 970_000, "length": 8_000_000, "sent": 370_000, "seconds": 37},
    )
    assert budget(START) is None, "20,000 bytes are not worth a connection"
    assert budget(START + DAY) == 1_000_000


def test_what_a_link_carries_is_measured_and_kept(tmp_path: Path) -> None:
    ledger = begun(tmp_path)
    see(
        ledger,
        Kind.TRANSFERRING,
        START,
        {"offset": 600_000, "length": 8_000_000, "sent": 600_000, "seconds": 60},
    )
    see(
        ledger, Kind.TRANSFERRING, START, {"offset": 600_100, "length": 8_000_000, "sent": 100, "seconds": 60}
    )
    assert ledger.known()["a"]["rate"] == 10_000, "a few bytes tell the latency"
    status = status_of(operations.load(ledger, NAME), ledger.reasons(NAME), NOW)
    assert status.sites[0].part == pytest.approx(600_100 / 8_000_000)
    assert status.end is not None
    left = (8_000_000 - 600_100) / 10_000 + RELEASE.install + SETTINGS.soak
    assert (datetime.fromisoformat(status.end) - NOW).total_seconds() == pytest.approx(left, abs=1)


def test_trouble_is_told_once_and_moves_no_deadline(tmp_path: Path) -> None:
    ledger = begun(tmp_path)
    deadline = operations.load(ledger, NAME).sites["a"].data["deadline"]
    assert [step.why for step in see(ledger, Kind.TROUBLE, START + 5, why="unreachable: no route")] == [
        "unreachable: no route"
    ]
    assert see(ledger, Kind.TROUBLE, START + 6, why="unreachable: no route") == []
    record = operations.load(ledger, NAME).sites["a"]
    assert (record.data["trouble"], record.data["deadline"]) == ("unreachable: no route", deadline)
    see(ledger, Kind.TRANSFERRED, START + 7)
    assert "trouble" not in operations.load(ledger, NAME).sites["a"].data


def test_the_way_back_needs_no_transfer() -> None:
    known = orders.needs_nobody(Command("a", Action.TRANSFER, 2, BACK))
    assert known is not None
    assert known.kind is Kind.TRANSFERRED
    assert orders.needs_nobody(Command("a", Action.TRANSFER, 1, FORWARD)) is None


def test_an_answer_that_nobody_understands_is_no_sign_of_life() -> None:
    for answer in ({}, {"kind": "delighted"}):
        assert orders.seen_of(answer).kind is Kind.TROUBLE


def test_a_window_has_to_be_open_for_as_long_as_an_installation_takes(tmp_path: Path) -> None:
    window = Window(frozenset(range(7)), time(22), time(4), ZoneInfo("Europe/Paris"))
    ledger = begun(tmp_path, window=window)
    see(ledger, Kind.TRANSFERRED, START)
    rollout = operations.load(ledger, NAME)

    def open_at(hour: int, minute: int) -> list[str]:
        moment = datetime(2026, 11, 2, hour, minute, tzinfo=ZoneInfo("Europe/Paris"))
        return orders.open_windows(rollout, int(moment.astimezone(UTC).timestamp() * 1000))

    assert open_at(21, 59) == []
    assert open_at(22, 0) == ["a"]
    assert open_at(3, 55) == ["a"], "an installation takes 5 minutes"
    assert open_at(3, 56) == []
