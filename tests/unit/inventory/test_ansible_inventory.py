# SPDX-License-Identifier: Apache-2.0
"""The plugin through the real ansible-inventory and ansible commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from energy_collector import config_file

from .conftest import ROOT, SITE, FleetOnDisk, other_site


def run(command: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
    }
    program = Path(sys.executable).with_name(command)
    return subprocess.run(
        [program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def two_sites(fleet: FleetOnDisk) -> FleetOnDisk:
    text = (
        other_site()
        .replace("ring: early", "ring: critical\ncritical: true")
        .replace("{type: lan}", "{type: satellite}")
    )
    fleet.write("plant-b", text.replace("role: main", "role: generation"))
    return fleet


def listed(fleet: FleetOnDisk, *arguments: str) -> dict[str, Any]:
    done = run("ansible-inventory", "-i", fleet.file, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)  # type: ignore[no-any-return]  # plain JSON


def test_list_has_the_groups(two_sites: FleetOnDisk) -> None:
    found = listed(two_sites, "--list")
    groups = {name: group["hosts"] for name, group in found.items() if "hosts" in group}
    assert groups == {
        "gateways": ["plant-a", "plant-b"],
        "hubs": ["hub"],
        "region_emea": ["plant-a", "plant-b"],
        "ring_early": ["plant-a"],
        "ring_critical": ["plant-b"],
        "model_moxa_uc_8220": ["plant-a", "plant-b"],
        "link_lan": ["plant-a"],
        "link_satellite": ["plant-b"],
        "critical": ["plant-b"],
        "has_solar": ["plant-b"],
    }


def test_host_variables_are_plain(two_sites: FleetOnDisk) -> None:
    variables = listed(two_sites, "--host", "plant-a")
    assert variables["ansible_host"] == "10.20.4.11"
    assert variables["ansible_user"] == "admin"
    assert variables["ansible_python_interpreter"] == "/usr/bin/python3"
    expected = two_sites.load()
    assert variables["energy_site"] == expected.sites["plant-a"]
    assert variables["energy_fleet"] == expected.facts


def waits(node: Any) -> set[str]:
    """What a playbook says of the time in which a change has to be confirmed, wherever it says so."""
    found: set[str] = set()
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, (dict, list)):
            found |= waits(value)
        elif re.search(r"wait(_min)?$", str(key)):
            found.add(value)
    return found


@pytest.mark.parametrize(
    ("playbook", "expected"),
    [
        ("site", {"plant-a": "60", "plant-b": "300"}),
        ("tasks/renew_site", {"plant-a": "60", "plant-b": "300"}),
        ("revert_hardening", {"hub": "60", "plant-a": "60", "plant-b": "300"}),
    ],
)
def test_a_change_of_a_site_waits_by_its_link(
    two_sites: FleetOnDisk, playbook: str, expected: dict[str, str]
) -> None:
    said = waits(yaml.safe_load((ROOT / "playbooks" / f"{playbook}.yml").read_text(encoding="utf-8")))
    assert said
    for wait in said:
        hosts = ["-i", two_sites.file, ",".join(expected)]
        done = run("ansible", *hosts, "-m", "ansible.builtin.debug", "-a", json.dumps({"msg": wait}))
        found = re.findall(r'^(\S+) \| SUCCESS.*?msg"?: "?(\d+)', done.stdout, re.DOTALL | re.MULTILINE)
        assert dict(found) == expected, done.stdout + done.stderr


def test_hub_has_the_fleet_and_no_site(two_sites: FleetOnDisk) -> None:
    variables = listed(two_sites, "--host", "hub")
    assert variables["ansible_host"] == "10.1.1.2"
    assert variables["energy_fleet"]["sites"] == ["plant-a", "plant-b"]
    assert "energy_site" not in variables


def test_values_can_be_used_in_expressions_and_templates(two_sites: FleetOnDisk) -> None:
    message = "{{ energy_site.meters | selectattr('role', 'eq', 'main') | map(attribute='name') | join }}"
    done = run(
        "ansible",
        "-i",
        two_sites.file,
        "plant-a",
        "-c",
        "local",
        "-m",
        "ansible.builtin.debug",
        "-a",
        f"msg={message}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "msg: supply" in done.stdout


def test_the_collector_is_given_no_date_of_a_meter(fleet: FleetOnDisk, tmp_path: Path) -> None:
    """By the expressions of playbooks/site.yml; the collector would refuse a key that it does not know."""
    *_, play = yaml.safe_load((ROOT / "playbooks/site.yml").read_text())
    (install,) = (task for task in play["tasks"] if task["name"] == "Install the collector")
    written = tmp_path / "config.json"
    task = {
        "ansible.builtin.copy": {"dest": str(written), "content": "{{ collector_config | to_json }}"},
        "vars": install["vars"] | {"hub_name": "hub.energy.example", "hub": {"port": 8883}},
    }
    playbook = tmp_path / "play.yml"
    playbook.write_text(
        yaml.safe_dump([{"hosts": "plant-a", "connection": "local", "gather_facts": False, "tasks": [task]}])
    )
    python = f"ansible_python_interpreter={sys.executable}"
    done = run("ansible-playbook", "-i", fleet.file, "-e", python, playbook)
    assert done.returncode == 0, done.stdout + done.stderr
    config = json.loads(written.read_text())
    meters = fleet.load().sites["plant-a"]["meters"]
    assert [one.get("since") for one in meters].count("2026-03-03T09:40:00Z") == 1
    assert config["meters"] == [
        {key: value for key, value in one.items() if key != "since"} for one in meters
    ]
    assert len(config_file.parse(config).meters) == len(meters)


@pytest.mark.parametrize(
    ("pattern", "hosts"),
    [
        ("gateways", ["plant-a", "plant-b"]),
        ("gateways:!critical", ["plant-a"]),
        ("region_emea:&ring_critical", ["plant-b"]),
        ("plant-*", ["plant-a", "plant-b"]),
        ("hub", ["hub"]),
        ("all", ["plant-a", "plant-b", "hub"]),
    ],
)
def test_patterns_and_limits_choose_hosts(two_sites: FleetOnDisk, pattern: str, hosts: list[str]) -> None:
    done = run("ansible", "-i", two_sites.file, "all", "--limit", pattern, "--list-hosts")
    assert done.returncode == 0, done.stderr
    assert [line.strip() for line in done.stdout.splitlines()[1:]] == hosts


def test_group_variables_beside_the_fleet_file_apply(two_sites: FleetOnDisk) -> None:
    folder = two_sites.file.parent / "group_vars"
    folder.mkdir()
    (folder / "link_satellite.yml").write_text("ansible_timeout: 90\n", encoding="utf-8")
    assert listed(two_sites, "--host", "plant-b")["ansible_timeout"] == 90
    assert "ansible_timeout" not in listed(two_sites, "--host", "plant-a")


def test_faults_end_the_command_and_are_listed_once(two_sites: FleetOnDisk) -> None:
    two_sites.write("plant-a", SITE.replace("ring: early", "rnig: early").replace("200:5", "200"))
    two_sites.write("plant-b", other_site().replace("region: emea", "region: emea: x"))
    done = run("ansible-inventory", "-i", two_sites.file, "--graph")
    assert done.returncode != 0
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    for line in (
        'sites/plant-a.yml:3: rnig: unknown key, did you mean "ring"?',
        'sites/plant-a.yml:14: meters[0].ct_ratio: found 200, expected a ratio like "200:5"',
    ):
        assert lines.count(line) == 1, done.stderr
    assert any(
        line.startswith("sites/plant-b.yml:2: not YAML: mapping values are not allowed") for line in lines
    )
    assert f"3 faults in {two_sites.file.parent}" in lines
    assert "Traceback" not in done.stderr


def test_plugin_is_documented() -> None:
    done = run("ansible-doc", "-t", "inventory", "wattfleet.energy.sites", "--json")
    assert done.returncode == 0, done.stderr
    documented = json.loads(done.stdout)["wattfleet.energy.sites"]
    assert set(documented["doc"]["options"]) == {
        "plugin",
        "fleet",
        "sites",
        "rings",
        "management",
        "hub",
        "rollout",
        "defaults",
        "gates",
    }
    assert "plugin: wattfleet.energy.sites" in documented["examples"]
