# SPDX-License-Identifier: Apache-2.0
"""The inventories and the generated reference of this repository."""

from __future__ import annotations

import subprocess
import sys

import pytest

from plugins.module_utils.inventory.fleet import load_fleet

from .conftest import ROOT


@pytest.mark.parametrize(("name", "count"), [("example", 56), ("lab", 50)])
def test_inventory_has_no_fault(name: str, count: int) -> None:
    assert len(load_fleet(ROOT / "inventory" / name / "fleet.sites.yml").sites) == count


def test_every_example_site_names_its_schema_to_editors() -> None:
    for file in sorted((ROOT / "inventory" / "example" / "sites").glob("*.yml")):
        first = file.read_text(encoding="utf-8").splitlines()[0]
        key, _, path = first.partition("$schema=")
        assert key == "# yaml-language-server: ", file.name
        assert (file.parent / path).resolve() == ROOT / "docs/reference/schema/site.schema.json", file.name


def test_reference_and_json_schemas_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "generate_schema.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
