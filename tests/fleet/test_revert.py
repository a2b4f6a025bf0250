# SPDX-License-Identifier: Apache-2.0
"""The hardening of a gateway in service is undone exactly, while it measures and delivers; the next run of site.yml
brings it back, and nothing else.

What was there before is a gateway that has all but the hardening: its playbooks are these without that one task.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from wattfleet.paths import BUILD, ROOT

from tests.fault.kill_services import SETTLE
from tests.fleet.fleet import Fleet
from tests.fleet.test_main_path import explain

pytestmark = [pytest.mark.timeout(1800), pytest.mark.long]

ROLE = "wattfleet.energy.hardening"
PICTURE = ROOT / "tests" / "molecule" / "hardening" / "files" / "picture.py"
BEFORE, HARDENED = "/root/picture-before.json", "/root/picture-hardened.json"
MEASURED = 30.0  # s after the revert


def without_hardening(folder: Path) -> Path:
    """A site.yml that leaves the sites unhardened, beside copies of all that it needs."""
    shutil.copytree(ROOT / "playbooks", folder / "playbooks")
    (folder / "build").symlink_to(BUILD)  # the releases
    site = folder / "playbooks" / "site.yml"
    plays = yaml.safe_load(site.read_text())
    (sites,) = (play for play in plays if "tasks" in play)
    sites["tasks"] = [
        one for one in sites["tasks"] if one.get("ansible.builtin.import_role", {}).get("name") != ROLE
    ]
    site.write_text(yaml.safe_dump(plays, sort_keys=False))
    assert ROLE not in site.read_text()
    return site


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One site in service, and its hub; the site is not hardened."""
    one = Fleet("reverted", 1)
    one.down()
    one.up()
    site = without_hardening(tmp_path_factory.mktemp("bare"))
    done = subprocess.run(
        ["ansible-playbook", "-i", one.inventory, str(site)],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    yield one
    one.down()


def picture(fleet: Fleet, host: str, *arguments: str) -> str:
    """Take a picture of a host, or compare it with one; what differs, a line each."""
    done = subprocess.run(
        [
            "ssh",
            "-F",
            str(fleet.state.ssh_config),
            "-o",
            "BatchMode=yes",
            host,
            "sudo",
            "python3",
            "-",
            *arguments,
        ],
        input=PICTURE.read_text(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not done.stderr, done.stderr
    return done.stdout.strip()


def changed_by(log: Path) -> set[str]:
    """The roles whose tasks have changed something, and tasks that are of none."""
    found, task = set(), ""
    for line in re.sub(r"\x1b\[[0-9;]*m", "", log.read_text()).splitlines():
        heading = re.match(r"(?:TASK|RUNNING HANDLER) \[(.*?)(?: : .*)?\] \*", line)
        if heading:
            task = heading[1]
        elif line.startswith("changed: ["):
            found.add(task)
    return found


def test_hardening_of_a_gateway_in_service_is_undone_exactly(bare: Fleet) -> None:
    (site,) = bare.sites
    picture(bare, site, BEFORE)

    hardened = bare.play("site")
    assert hardened.ok, explain(hardened)
    assert changed_by(hardened.log) == {ROLE}, f"see {hardened.log}"
    differing = picture(bare, site, BEFORE, "--compare")
    for part in (
        "files /etc/ssh/sshd_config.d/10-energy.conf:",
        "settings net.",
        "packages: fail2ban",
        "sshd: ",
    ):
        assert part in differing, differing
    picture(bare, site, HARDENED)

    begun = time.time()
    reverted = bare.play("revert_hardening", "--limit", site)
    assert reverted.ok, explain(reverted)
    assert picture(bare, site, BEFORE, "--compare") == ""
    time.sleep(MEASURED)
    ended = time.time()
    time.sleep(SETTLE)
    count = bare.both_ends(site, begun, ended)
    print(f"{count.polls} polls, {count.readings} readings")
    assert count.exact, (count.lost[:5], count.doubled[:5], count.invented[:5])
    assert count.readings > count.polls > 10

    again = bare.play("site")
    assert again.ok, explain(again)
    assert changed_by(again.log) == {ROLE}, f"see {again.log}"
    assert picture(bare, site, HARDENED, "--compare") == ""
