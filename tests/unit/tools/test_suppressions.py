# SPDX-License-Identifier: Apache-2.0
"""Whoever silences a check, a failure or a test says why, on the same line or in a comment right above."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("roles", "playbooks", "plugins", "controller", "hub", "collector", "lab", "tests", "tools")
# What silences, and behind it on the line the reason.
PYTHON = re.compile(
    r"(?P<what># noqa: [A-Z]+\d+(?:, ?[A-Z]+\d+)*|# noqa\b|# type: ignore(?:\[[^\]]*\])?|# nosec\b"
    r"|ignore_errors=True\)?"
    # pytest itself insists on a reason for a condition.
    r"|@?pytest\.(?:mark\.)?(?:skip|xfail)(?:\(\)|$))"
    r"(?P<why>.*)"
)
YAML = re.compile(
    r"(?P<what>\b(?:failed_when|changed_when): false|\bignore_errors:|# noqa\b:?(?: [a-z-]+\[[a-z-]+\])?)(?P<why>.*)"
)


def silenced(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, what silences, and what stands behind and above it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pattern = YAML if path.suffix == ".yml" else PYTHON
    for number, line in enumerate(lines, 1):
        found = pattern.search(line)
        if found is not None:
            above = lines[number - 2].strip() if number > 1 else ""
            yield number, found["what"], found["why"] + (above if above.startswith("#") else "")


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_has_its_reason(folder: str) -> None:
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yml")]
    assert files
    bare = [
        f"{path.relative_to(ROOT)}:{number}: {what}"
        for path in files
        if path != Path(__file__)
        for number, what, why in silenced(path)
        if not re.search(r"[a-z]{2}", why)
    ]
    assert not bare, "\n".join(["without a reason:", *bare])
