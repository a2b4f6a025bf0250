# SPDX-License-Identifier: Apache-2.0
"""The gate's verdict over a real database: what was delivered, the hub's command, the controller's judgement."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from energy_hub import cli
from energy_hub.commands import tools
from wattfleet.rollout.gate_settings import gate_settings
from wattfleet.rollout.gates import Outcome, Verdict
from wattfleet.rollout.health import Answer, Span, answer
from wattfleet.rollout.ledger import Record
from wattfleet.rollout.telemetry import Telemetry

from .conftest import Database
from .delivery import Fleet
from .writer import Reading

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
GOOD, TIMEOUT = 0, 129
TOLD: dict[str, Any] = {"version": "2.0", "services": {"energy-gateway": True}, "clock": 0.0}
SOAK = 900
# Seconds before now: the soak is over, and all that belongs to it could be here.
BEGAN, TOUCHED = 960, 1000
Quality = Callable[[int], int | None]


class Command:
    """`energy-hub health` as the controller runs it, but in this process."""

    def __init__(self, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
        self.database = database
        self.capsys = capsys

    def health(self, spans: Mapping[str, Span]) -> Answer:
        sites = [
            f"--site={name}@{one.since.isoformat()}/{one.until.isoformat()}" for name, one in spans.items()
        ]
        one = next(iter(spans.values()))
        span = [f"--since={one.since.isoformat()}", f"--until={one.until.isoformat()}"]
        database = self.database.conninfo("energy_read")
        assert cli.main(["health", "--json", "--database", database, *span, *sites]) == tools.OK
        return answer(json.loads(self.capsys.readouterr().out))


@pytest.fixture
def verdict(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> Callable[..., Verdict]:
    """The verdict over a site of which `answers` says what each poll of its two meters brought: a quality, or None
    where none was made. Arguments are seconds since the soak began; before it all is well.

    `errors` are CRC errors a minute, `interval` the meters' in s, `lost` the minutes whose batches are not here yet.
    """
    now = datetime.now(UTC)
    began = now - timedelta(seconds=BEGAN)

    def judged(
        answers: Quality = lambda _: GOOD,
        errors: Callable[[int], int] = lambda _: 0,
        interval: int = 10,
        lost: range = range(0),
        **gates: Any,
    ) -> Verdict:
        counted = {"requests": 0, "crc_errors": 0, "timeouts": 0}
        held = []
        for start in range(-SOAK - 120, BEGAN - 20, 60):
            polls: list[Reading] = []
            for second in range(start, start + 60, interval):
                quality = answers(second) if second >= 0 else GOOD
                if quality is not None:
                    polls.append((at(began, second), None if quality >= 128 else 1.0, quality))
            counted["requests"] += 120
            counted["crc_errors"] += errors(start)
            points: dict[str, list[Reading]] = {"host/load": [(at(began, start + 55), 0.1, GOOD)]}
            if polls:
                points |= dict.fromkeys(("main/active_power", "main/voltage_l1", "pv/active_power"), polls)
            for name, value in counted.items():
                points[f"buses/hall-{name}"] = [(at(began, start + 50), float(value), GOOD)]
            batch = fleet.seal("plant-a", points)
            held.append(batch) if start in lost else fleet.commit("plant-a", batch)
        with fleet.database.connect() as owner:
            owner.execute(
                "UPDATE batch b SET received ="
                " (SELECT max(time) + interval '2 seconds' FROM reading r WHERE r.batch = b.id)"
            )
        data = {
            "touched": at(began, BEGAN - TOUCHED),
            "soak_until": at(began, SOAK),
            "target": "2.0",
            "look": TOLD,
        }
        record = Record("soaking", at(began, 0), data)
        hub = Command(fleet.database, capsys)
        return Telemetry(hub, gate_settings(gates)).verdict("plant-a", record)

    return judged


def at(began: datetime, second: int) -> int:
    return round((began + timedelta(seconds=second)).timestamp() * 1000)


def test_a_site_that_is_well(verdict: Callable[..., Verdict]) -> None:
    assert verdict() == Verdict(PASS, "9 of 9 checks passed")


def test_a_site_that_stops_measuring(verdict: Callable[..., Verdict]) -> None:
    found = verdict(answers=lambda second: GOOD if second < 400 else TIMEOUT)
    assert found.outcome is FAIL
    assert "readings 0.4" in found.why


def test_a_site_that_is_not_polled_any_more(verdict: Callable[..., Verdict]) -> None:
    found = verdict(answers=lambda _: None)
    assert found.outcome is FAIL
    assert found.why.startswith("readings 0, at least 0.95 is right")


def test_a_site_that_delivers_late(verdict: Callable[..., Verdict]) -> None:
    """What was sealed in ten minutes of the soak is still on its way, newer batches are here."""
    found = verdict(lost=range(180, 780))
    assert found.outcome is INCONCLUSIVE
    assert found.why.startswith("what plant-a measured is here until ")


def test_a_site_with_crc_errors_above_its_baseline(verdict: Callable[..., Verdict]) -> None:
    found = verdict(errors=lambda second: 12 if second >= 0 else 1)
    assert found.outcome is FAIL
    assert found.why.startswith("crc_errors ")


def test_a_site_that_always_had_crc_errors(verdict: Callable[..., Verdict]) -> None:
    assert verdict(errors=lambda _: 12).outcome is PASS


def test_a_site_with_few_samples(verdict: Callable[..., Verdict]) -> None:
    found = verdict(interval=60)
    assert found.outcome is INCONCLUSIVE
    assert "samples: inconclusive" in found.why


def test_a_new_check_can_be_tried_first(verdict: Callable[..., Verdict]) -> None:
    found = verdict(errors=lambda second: 12 if second >= 0 else 1, crc_errors={"dry_run": True})
    assert found == Verdict(PASS, "8 of 8 checks passed")
