# SPDX-License-Identifier: Apache-2.0
"""The page of what was broken: rows of what was run, and those of before where it was not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faults_page
import pytest

RUN = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
KILLS = {
    "name": "kill-hub", "rounds": 10, "faults": 60, "readings": 89607, "lost": 0, "doubled": 0, "evidence": 0
}  # fmt: skip
CHANGES = {
    "name": "lockout", "passed": True, "rounds": 375, "undone": 279, "confirmed": 48, "never_armed": 48,
    "sites_lost": 0, "not_in_time": 0, "not_exact": 0, "wrong_verdicts": 0,
    "seconds_to_return": {"median": 7.8, "longest": 27.98},
}  # fmt: skip


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write the page from results, and give it."""
    monkeypatch.setattr(faults_page, "ROOT", tmp_path)
    monkeypatch.setattr(faults_page, "RESULTS", tmp_path)
    monkeypatch.setattr(faults_page, "PAGE", tmp_path / "faults.md")

    def write(**results: dict[str, Any]) -> str:
        for old in tmp_path.glob("*.json"):
            old.unlink()
        for name, found in results.items():
            file = tmp_path / f"{name.replace('_', '-')}.json"
            file.write_text(json.dumps(found))
            os.utime(file, (RUN, RUN))
        assert faults_page.main() == 0
        return faults_page.PAGE.read_text()

    return write


def rows(text: str, name: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {name} |")]


def test_readings_and_changes_have_a_table_each(page: Callable[..., str]) -> None:
    text = page(kill_hub=KILLS, lockout=CHANGES, lockout_quick=CHANGES | {"rounds": 36})
    readings, changes = text.split("## Changes that could lock us out")
    (kills,) = rows(readings, "kill-hub")
    assert kills.endswith("| 10 | 60 | 89,607 | 0 | 0 | 0 | passed | 2026-11-30 |")
    assert rows(changes, "lockout") == [
        "| lockout | 375 | 279 | 48 | 48 | 0 | 0 | 0 | 0 | 7.8 s | 28.0 s | passed | 2026-11-30 |"
    ]
    assert not rows(readings, "lockout")


def test_what_was_not_run_keeps_its_row(page: Callable[..., str]) -> None:
    before = page(kill_hub=KILLS, lockout=CHANGES)
    assert page(kill_hub=KILLS) == before
    assert page(lockout=CHANGES) == before


@pytest.mark.parametrize(
    ("kills", "changes"), [({"lost": 1}, {"passed": False}), ({"readings": 0}, {"passed": False})]
)
def test_a_run_that_failed_says_so(
    page: Callable[..., str], kills: dict[str, int], changes: dict[str, bool]
) -> None:
    text = page(kill_hub=KILLS | kills, lockout=CHANGES | changes)
    assert [line.split(" | ")[-2] for name in ("kill-hub", "lockout") for line in rows(text, name)] == [
        "failed"
    ] * 2


def test_a_run_that_has_undone_nothing_has_no_times(page: Callable[..., str]) -> None:
    (row,) = rows(page(lockout=CHANGES | {"passed": False, "undone": 0, "seconds_to_return": {}}), "lockout")
    assert row.endswith("| - | - | failed | 2026-11-30 |")
