# SPDX-License-Identifier: Apache-2.0
"""The exposures that the scenarios waive are those that the reference gives reasons for."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]


def test_each_waived_exposure_has_its_reason_in_the_reference() -> None:
    inventory = yaml.safe_load((ROOT / "tests/molecule/shared/inventory.yml").read_text())
    text = (ROOT / "docs/reference/hardening.md").read_text()
    rows = re.findall(r"^\| (energy-\S+\.service) \| ([0-9.]+) \| [0-9.]+ \| \S.* \|$", text, re.MULTILINE)
    assert rows
    assert {unit: float(value) for unit, value in rows} == inventory["all"]["vars"]["exposure_waived"]
