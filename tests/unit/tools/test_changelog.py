# SPDX-License-Identifier: Apache-2.0
"""The changelog's notes are reStructuredText: the markup of module documentation would stand there as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from wattfleet.paths import ROOT

NOTES = [ROOT / "changelogs" / "changelog.yaml", *(ROOT / "changelogs" / "fragments").glob("*.yml")]
# C(code), V(value), O(option), E(variable) and their like.
MARKUP = re.compile(r"\b(?:[BCEILMOPRUV]|RV)\(")


@pytest.mark.parametrize("path", NOTES, ids=lambda path: path.name)
def test_notes_have_no_markup_of_module_documentation(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if MARKUP.search(line)] == []
