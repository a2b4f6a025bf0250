# SPDX-License-Identifier: Apache-2.0
"""playbooks/firmware.yml by plain ansible-playbook, over plays that are real: hosts that nobody reaches count.

The gateways are a stand-in for module `firmware`, over Ansible's local connection.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from wattfleet.rollout.folder import Folder

from .stand_in import ROOT, StandInFleet

pytestmark = pytest.mark.timeout(900)


def play(fleet: StandInFleet, playbook: Path, *variables: str) -> subprocess.CompletedProcess[str]:
    extra = [word for variable in variables for word in ("-e", variable)]
    return subprocess.run(
        ["ansible-playbook", "-i", str(fleet.inventory), str(playbook), *extra],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=fleet.environment,
        cwd=ROOT,
    )


def test_silent_hosts_stop_the_playbook_and_nothing_is_dispatched_any_more(tmp_path: Path) -> None:
    """3 of the 5 hosts of the second wave are unreachable, and one failure is allowed: none of the third is touched."""
    limits = {"max_failed": 1, "growth": 5, "deadlines": {"transfer": 60, "install": 900, "reboot": 900}}
    fleet = StandInFleet(tmp_path, 9, limits)
    for name in ("s01", "s03", "s05"):
        fleet.unreachable(name)
    playbook = ROOT / "playbooks" / "firmware.yml"
    files = (f"rollout_image={fleet.image}", f"rollout_manifest={fleet.manifest}", "rollout_ask=none")

    planned = play(fleet, playbook, "rollout=r1", *files)
    assert planned.returncode == 0, planned.stdout
    assert "begin it: -e rollout_digest=" in planned.stdout
    assert not any(fleet.read(name)["asked"] for name in fleet.names), "a plan touches nobody"

    digest = json.loads((tmp_path / "rollouts" / "plans" / "r1.json").read_text())["digest"]
    done = play(fleet, playbook, "rollout=r1", f"rollout_digest={digest}")
    assert done.returncode != 0
    ledger = Folder.of(fleet.inventory).ledger()
    rollout = ledger.rollout("r1")
    states = {name: record.state for name, record in ledger.sites("r1").items()}
    assert rollout.state == "halted", done.stdout
    # Those that were on their way when it tripped are left where they were; the others have it.
    assert {states[name] for name in ("s01", "s03", "s05")} <= {"silent", "skipped"}
    assert [states[name] for name in ("s01", "s03", "s05")].count("silent") > limits["max_failed"]  # type: ignore[operator]  # values are object
    assert states["s00"] == states["s02"] == states["s04"] == "ok"
    third = ("s06", "s07", "s08")
    assert [fleet.read(name)["asked"] for name in third] == [[], [], []], "dispatched after the trip"
    assert done.stdout.count("not begun, r1 is halted") >= len(third)
    halted = next(entry.at for entry in ledger.entries() if entry.step.new == "halted")
    assert not [
        one for one in ledger.entries() if one.step.new in ("transferring", "installing") and one.at > halted
    ]
    assert "unreachable" in " ".join(entry.step.why for entry in ledger.entries("r1", "s01"))
    assert ledger.verify() == []


def test_a_plain_serial_play_goes_on_all_the_same(tmp_path: Path) -> None:
    """What the playbook is for: ansible-core's max_fail_percentage does not count hosts that are unreachable."""
    fleet = StandInFleet(tmp_path, 10)
    for name in ("s01", "s03", "s04"):
        fleet.unreachable(name)
    playbook = tmp_path / "plain.yml"
    playbook.write_text(
        "- hosts: gateways\n  gather_facts: false\n  serial: 5\n  max_fail_percentage: 10\n  tasks:\n"
        "    - wattfleet.energy.firmware: {step: install, attempt: 'plain/{{ inventory_hostname }}/1'}\n"
    )
    play(fleet, playbook)
    second = ("s05", "s06", "s07", "s08", "s09")
    assert all(fleet.read(name)["flashed"] for name in second), (
        "ansible-core counts them now: say so in the decision"
    )
