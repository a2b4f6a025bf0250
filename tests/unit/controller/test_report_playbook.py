# SPDX-License-Identifier: Apache-2.0
"""playbooks/report.yml by plain ansible-playbook; a file stands in for what the hub would print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from . import local_fleet
from .fleet_document import NEVER, document, site

pytestmark = pytest.mark.timeout(300)


class Report:
    """The playbook with a hub that is this machine. The names that it is asked for are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page = folder / "out" / "fleet.html"
        self.figures = folder / "figures.json"
        local_fleet.write_inventory(folder)
        self.asked = folder / "asked"
        self.variables = {
            "report_file": str(self.page),
            "report_ask": ["sh", "-c", f"cat > {self.asked}; cat {self.figures}"],
        }

    def has(self, **sites: dict[str, Any]) -> None:
        self.figures.write_text(json.dumps(document(**sites)), encoding="utf-8")

    def play(self, *arguments: str, **variables: object) -> tuple[int, str]:
        return local_fleet.play(self.folder, "report", self.variables | variables, *arguments)


def changed(text: str) -> int:
    recap = next(line for line in text.splitlines() if line.startswith("hub ") and "changed=" in line)
    return int(recap.partition("changed=")[2].split()[0])


def test_the_page_changes_with_the_figures_and_not_with_the_clock(tmp_path: Path) -> None:
    report = Report(tmp_path)
    report.has(plant_a=site(), plant_b=site(**NEVER))

    code, text = report.play("--check", "--diff")
    assert (code, changed(text)) == (0, 2), text
    assert not report.page.parent.exists(), "check mode writes nothing"

    code, text = report.play()
    assert (code, changed(text)) == (0, 2), text
    assert "somebody is needed, see there" in text
    assert report.asked.read_text().split() == ["plant-a", "plant-b"]
    first = report.page.read_text(encoding="utf-8")
    assert "plant-b" in first

    given = json.loads(report.figures.read_text()) | {"time": "2026-01-10T12:35:00.000Z"}
    report.figures.write_text(json.dumps(given), encoding="utf-8")
    code, text = report.play(report_fail=True)
    assert (code, changed(text)) == (2, 0), text
    assert "something needs a person" in text
    assert report.page.read_text(encoding="utf-8") == first

    report.has(plant_a=site(), plant_b=site())
    code, text = report.play(report_fail=True)
    assert (code, changed(text)) == (0, 1), text
    assert "all is well" in text


def test_figures_that_cannot_be_read_fail(tmp_path: Path) -> None:
    report = Report(tmp_path)
    report.figures.write_text("no figures", encoding="utf-8")
    code, text = report.play()
    assert code == 2
    assert "figures are not JSON" in text
    assert not report.page.exists()
