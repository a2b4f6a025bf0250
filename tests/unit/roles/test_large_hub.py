# SPDX-License-Identifier: Apache-2.0
"""What the playbooks make of a fleet file with several brokers and databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROOT = Path(__file__).parents[3]


def variables(hub: dict[str, Any], inventory: dict[str, Any]) -> dict[str, Any]:
    """What the roles make of this hub of a fleet file, and of what an inventory says itself.

    Found in Ansible's order: an inventory goes before defaults, what stands beside the playbooks before both.
    """
    loader = DataLoader()
    found: dict[str, Any] = {"energy_fleet": {"hub": hub}}
    roles = ("hub_database", "hub_ingest", "hub_backup")
    files = [f"roles/{role}/{part}/main.yml" for role in roles for part in ("vars", "defaults")]
    for path in [*files, inventory, "playbooks/group_vars/all.yml"]:
        if isinstance(path, dict):
            found |= path
        elif (ROOT / path).is_file():
            found |= loader.load_from_file(str(ROOT / path), trusted_as_template=True)
    templar = Templar(loader=loader, variables=found)
    names = ("hub_database_instances", "hub_ingest_databases", "hub_ingest_directory", "hub_backup_instances")
    return {name: templar.template(found[name]) for name in names}


SECOND = [{"name": "second", "port": 5433}]


def test_a_fleet_file_names_further_databases() -> None:
    assert variables({"databases": SECOND}, {}) == {
        "hub_database_instances": SECOND,
        "hub_ingest_databases": {"main": "dbname=energy port=5432", "second": "dbname=energy port=5433"},
        "hub_ingest_directory": "main",
        "hub_backup_instances": ["main", "second"],
    }


def test_without_them_there_is_one() -> None:
    assert variables({}, {}) == {
        "hub_database_instances": [],
        "hub_ingest_databases": {},
        "hub_ingest_directory": "",
        "hub_backup_instances": ["main"],
    }


def test_what_an_inventory_says_itself_stands() -> None:
    said = {
        "hub_database_instances": SECOND,
        "hub_ingest_databases": {"here": "dbname=energy", "there": "host=10.1.0.9 dbname=energy"},
        "hub_ingest_directory": "here",
    }
    assert variables({}, said) == said | {"hub_backup_instances": ["main", "second"]}
    assert variables({"databases": []}, said) == said | {"hub_backup_instances": ["main", "second"]}


@pytest.mark.parametrize(
    ("playbook", "brokers", "ingest"),
    [
        ("renew_crl", "Keep the revocation list fresh", "Bring the revocation list to the ingest"),
        ("revoke", "Make it known at the brokers", "Make it known to the ingest"),
    ],
)
def test_who_is_revoked_the_ingest_is_told_where_the_brokers_are_elsewhere(
    playbook: str, brokers: str, ingest: str
) -> None:
    loader = DataLoader()
    plays = loader.load_from_file(str(ROOT / "playbooks" / f"{playbook}.yml"), trusted_as_template=True)
    hosts = {play["name"]: play["hosts"] for play in plays}

    def reached(groups: dict[str, list[str]]) -> tuple[str, str]:
        templar = Templar(loader=loader, variables={"groups": groups})
        return templar.template(hosts[brokers]), templar.template(hosts[ingest])

    assert reached({"brokers": ["broker-1", "broker-2"]}) == ("brokers", "hub")
    # The hub's own broker and the ingest read one file.
    assert reached({}) == ("hub", "hub:!hub")


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({}, []),
        ({"hub": "a", "broker-1": "a", "broker-2": "a"}, []),
        ({"hub": "a", "broker-1": "a"}, ["broker-2 could not be asked for its revocation list"]),
        (
            {"hub": "a", "broker-1": "b", "broker-2": "a"},
            ["broker-1 has another revocation list than the hub: run playbooks/renew_crl.yml"],
        ),
        # Of the hub itself another finding tells.
        ({"broker-1": "a", "broker-2": "a"}, []),
    ],
)
def test_a_broker_with_another_revocation_list_is_found(lists: dict[str, str], said: list[str]) -> None:
    loader = DataLoader()
    tasks = loader.load_from_file(
        str(ROOT / "playbooks" / "tasks" / "verify_hub.yml"), trusted_as_template=True
    )
    judge = tasks[-1]
    play = loader.load_from_file(str(ROOT / "playbooks" / "verify.yml"), trusted_as_template=True)[-1]
    answers = {
        host: {"stat": {"exists": True, "checksum": lists[host]}} if host in lists else {"unreachable": True}
        for host in ("hub", "broker-1", "broker-2")
    }
    brokers = ["broker-1", "broker-2"] if lists else []
    variables = judge["vars"] | {
        "groups": {"all": ["hub", *brokers], "brokers": brokers},
        "hostvars": {host: {"inventory_hostname": host, "verify_list": answers[host]} for host in brokers},
        "verify_brokers": play["vars"]["verify_brokers"],
        "verify_crl": {"rc": 0, "stdout": '{"days_left": 20.0}'},
        "verify_crl_days_min": 10,
        "verify_list_of_hub": answers["hub"],
    }
    templar = Templar(loader=loader, variables=variables)
    assert templar.template(judge["ansible.builtin.set_fact"]["verify_hub_findings"]) == said
