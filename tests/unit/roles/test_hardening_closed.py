# SPDX-License-Identifier: Apache-2.0
"""How the role hardening closes a unit: by masking it, or by a drop-in where its own file is in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROLE = Path(__file__).parents[3] / "roles" / "hardening"
FOLDER = "/etc/systemd/system"


@pytest.mark.parametrize(
    ("found", "drop_ins"),
    [
        ({"type": "file", "target": None}, [f"{FOLDER}/portal.service.d/zz-energy-closed.conf"]),
        (
            {"type": "link", "target": "/opt/portal/portal.service"},
            [f"{FOLDER}/portal.service.d/zz-energy-closed.conf"],
        ),
        ({"type": "link", "target": "/dev/null"}, []),
        (None, []),
    ],
)
def test_a_unit_with_its_own_file_in_the_way_gets_a_drop_in(
    found: dict[str, Any] | None, drop_ins: list[str]
) -> None:
    files = {f"{FOLDER}/energy-gateway.service": {"type": "file", "target": None}}
    if found is not None:
        files[f"{FOLDER}/portal.service"] = found
    loader = DataLoader()
    variables = loader.load_from_file(str(ROLE / "vars" / "main.yml"), trusted_as_template=True)
    variables |= {
        "ansible_facts": {"energy_host": {"files": files}},
        "hardening_judged": {"close": ["portal.service", "vsftpd.service"]},
    }
    templar = Templar(loader=loader, variables=variables)
    assert templar.template(variables["hardening_pinned_files"]) == drop_ins
