# SPDX-License-Identifier: Apache-2.0
"""Versions that stand in more than one file."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]


def collections() -> dict[str, str]:
    spec = find_spec("ansible_collections")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    found = {}
    for name in ("ansible.posix", "community.crypto", "community.general", "community.postgresql"):
        for folder in spec.submodule_search_locations:
            manifest = Path(folder, *name.split("."), "MANIFEST.json")
            if manifest.exists():
                found[name] = json.loads(manifest.read_text())["collection_info"]["version"]
    return found


@pytest.mark.skipif(
    sys.version_info < (3, 12),
    reason="requirements.yml names the newest line-up; this Python runs the oldest",
)
def test_requirements_yml_names_what_the_lock_brings() -> None:
    listed = yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    assert {entry["name"]: entry["version"] for entry in listed} == collections()


def test_what_is_installed_satisfies_galaxy_yml() -> None:
    wanted = yaml.safe_load((ROOT / "galaxy.yml").read_text())["dependencies"]
    for name, version in collections().items():
        least = tuple(map(int, wanted[name].removeprefix(">=").split(".")))
        assert tuple(map(int, version.split("."))) >= least, name


def test_one_version_everywhere() -> None:
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
    for package in (
        "collector/energy_collector",
        "controller/wattfleet",
        "hub/energy_hub",
        "lab/wattfleet_lab",
    ):
        text = (ROOT / package / "__init__.py").read_text()
        assert re.search(rf'^__version__ = "{re.escape(version)}"$', text, re.MULTILINE), package
    shared = yaml.safe_load((ROOT / "playbooks" / "group_vars" / "all.yml").read_text())
    assert shared["collector_version"] == shared["hub_ingest_version"] == version


def test_what_a_release_added_says_that_release() -> None:
    """What came with a release that is out is listed there; what comes with the next one is listed nowhere yet."""
    releases = yaml.safe_load((ROOT / "changelogs" / "changelog.yaml").read_text())["releases"]
    listed = {version: {one["name"] for one in of.get("modules", [])} for version, of in releases.items()}
    for version, of in releases.items():
        listed[version] |= {one["name"] for kind in of.get("plugins", {}).values() for one in kind}
    current = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    said = {
        file.stem: found[1]
        for kind in ("modules", "filter", "inventory", "lookup")
        for file in (ROOT / "plugins" / kind).glob("*.py")
        if (found := re.search(r"^version_added: \"?([0-9.]+)", file.read_text(), re.MULTILINE))
    }
    assert len(said) > 30
    wrong = {
        name: version
        for name, version in said.items()
        if name not in listed.get(version, set()) and (version != current or version in releases)
    }
    assert wrong == {}
