# SPDX-License-Identifier: Apache-2.0
"""What the role hardening remembers of packages that came along, for the revert to take away."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

TASKS = Path(__file__).parents[3] / "roles" / "hardening" / "tasks" / "packages.yml"
FIRST = (
    "Inst python3-pyinotify (0.9.6-2 Debian:12)\nInst fail2ban (1.0.2-2 Debian:12)\nConf fail2ban (1.0.2-2)\n"
)
# apt had been cut off when only the dependency was there.
SECOND = "Inst fail2ban (1.0.2-2 Debian:12)\nConf fail2ban (1.0.2-2)\n"


def remembered(foreseen: str) -> tuple[str, str]:
    """The file that is written before an installation of which apt foresees this, and its content."""
    loader = DataLoader()
    tasks = loader.load_from_file(str(TASKS), trusted_as_template=True)
    task = next(one for one in tasks if one["name"] == "Remember what the host did not have")
    variables = {
        **task["vars"],
        "hardening_debian": True,
        "hardening_foreseen": {"stdout": foreseen},
        "hardening_packages_missing": ["fail2ban"],
    }
    copied = Templar(loader=loader, variables=variables).template(task["ansible.builtin.copy"])
    return copied["dest"], copied["content"]


@pytest.mark.parametrize("runs", [[FIRST], [FIRST, SECOND], [FIRST, SECOND, SECOND], [SECOND, FIRST]])
def test_what_was_once_foreseen_is_not_forgotten(runs: list[str]) -> None:
    files = dict(map(remembered, runs))
    assert {line for content in files.values() for line in content.splitlines()} == {
        "fail2ban",
        "python3-pyinotify",
    }
    assert {Path(path).parent for path in files} == {Path("/var/lib/energy-hardening")}
    assert len(files) == len(set(runs))
