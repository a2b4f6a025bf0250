# SPDX-License-Identifier: Apache-2.0
"""Which PostgreSQL the role hub_database takes, for hosts of every kind that it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).parents[3] / "roles" / "hub_database"


def choice(
    system: str, asked: str = "", installed: tuple[str, ...] = (), clusters: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The role's version, packages and objection on a host of this system."""
    identifier, version = system.split()
    host = {
        "os": {"id": identifier, "version": version, "name": system},
        "packages": {
            f"postgresql-{major}": "1" if major in installed else None for major in ("14", "15", "16", "17")
        }
        | {"postgresql": "1"},
        "files": {f"/etc/postgresql/{major}/main/conf.d/energy.conf": {"type": "file"} for major in clusters}
        | {"/etc/postgresql/13/main/pg_hba.conf": {"type": "file"}},
    }
    loader = DataLoader()
    variables = loader.load_from_file(str(ROLE / "defaults" / "main.yml"), trusted_as_template=True)
    variables |= loader.load_from_file(str(ROLE / "vars" / "main.yml"), trusted_as_template=True)
    variables |= {"hub_database_version": asked, "ansible_facts": {"energy_host": host}}
    templar = Templar(loader=loader, variables=variables)
    names = ("hub_database_major", "hub_database_packages", "hub_database_conflict")
    return {name.rpartition("_")[2]: templar.template(variables[name]) for name in names}


@pytest.mark.parametrize(
    ("system", "major"),
    [("debian 12", "15"), ("debian 13", "17"), ("ubuntu 22.04", "14"), ("ubuntu 24.04", "16")],
)
def test_a_new_host_gets_what_its_distribution_ships(system: str, major: str) -> None:
    found = choice(system)
    assert found["major"] == major
    assert not found["conflict"]
    assert found["packages"] == [f"postgresql-{major}", "python3-psycopg2", "acl"]


@pytest.mark.parametrize(
    ("given", "major"),
    [
        # What is installed counts more than what the distribution ships, and where the database is more than both.
        ({"installed": ("16",)}, "16"),
        ({"installed": ("16", "17"), "clusters": ("16",)}, "16"),
        ({"asked": "17"}, "17"),
        # After pg_upgradecluster both have one, until the old one is dropped.
        ({"asked": "17", "installed": ("15", "17"), "clusters": ("15", "17")}, "17"),
        # The upgrade of the distribution has brought a second one along, and the database has not moved.
        ({"installed": ("15", "17"), "clusters": ("15",)}, "15"),
        ({"installed": ("14", "17")}, "15"),
    ],
)
def test_what_the_host_has_counts(given: dict[str, Any], major: str) -> None:
    assert choice("debian 12", **given)["major"] == major
    assert not choice("debian 12", **given)["conflict"]


@pytest.mark.parametrize(
    ("system", "given", "words"),
    [
        ("debian 12", {"asked": "17", "clusters": ("15",)}, "pg_upgradecluster"),
        ("debian 12", {"clusters": ("15", "17")}, "15 and 17 have a cluster"),
        ("debian 99", {}, "PostgreSQL on debian 99: none installed"),
        ("debian 99", {"installed": ("15", "17")}, "15 and 17 installed"),
    ],
)
def test_what_cannot_be_decided_is_said(system: str, given: dict[str, Any], words: str) -> None:
    assert words in choice(system, **given)["conflict"]
