# SPDX-License-Identifier: Apache-2.0
"""The root's key on the controller: playbooks/ca.yml and verify.yml tell of it, by plain ansible-playbook."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from . import local_fleet

pytestmark = pytest.mark.timeout(300)

DAILY, ROOT = "the passphrase of every day", "the passphrase of the root"


class Controller:
    """The authority in a folder of the test, and a fleet of one site, which is this machine, without a hub."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = folder / "ca"
        self.key = self.authority / "root.key"
        inventory = {
            "gateways": {"hosts": {"plant-a": {"energy_site": {"site": "plant-a", "network": {}}}}},
            "all": {
                "vars": {
                    "ansible_connection": "local",
                    "ansible_become": False,
                    "ansible_python_interpreter": sys.executable,
                    "energy_fleet": {"hub": {"name": "hub.energy.example", "address": "203.0.113.7"}},
                    "identity_ca_directory": str(self.authority),
                    "identity_ca_passphrase": DAILY,
                }
            },
        }
        (folder / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")

    def play(self, playbook: str, **variables: object) -> tuple[int, list[str], str]:
        """Exit status, the keys that are warned of, and all that was said."""
        code, text = local_fleet.play(self.folder, playbook, {"verify_counters_interval": 0, **variables})
        # Ansible breaks lines.
        return code, re.findall(r"warning: (.+?) should not stay on the ", " ".join(text.split())), text


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


def test_the_playbook_of_the_authority_tells_that_the_root_key_is_there(controller: Controller) -> None:
    code, told, text = controller.play("ca", identity_ca_root_passphrase=ROOT)
    assert code == 0, text
    assert told == [str(controller.key)], text
    # Its passphrase is its own.
    assert load_pem_private_key(controller.key.read_bytes(), ROOT.encode())
    with pytest.raises(ValueError):
        load_pem_private_key(controller.key.read_bytes(), DAILY.encode())
    assert load_pem_private_key((controller.authority / "intermediate.key").read_bytes(), DAILY.encode())

    controller.key.rename(controller.folder / "root.key")
    # The key of this root is away. In a change of the root that of the next one is there.
    code, told, text = controller.play("ca", identity_ca_step="next-root", identity_ca_root_passphrase=ROOT)
    assert (code, told) == (0, [str(controller.authority / "next/root.key")]), text


def test_verify_tells_of_it_too_and_fails_nobody_by_it(controller: Controller) -> None:
    controller.authority.mkdir()
    (controller.authority / "intermediate.crt").touch()
    report = controller.folder / "verify.json"
    for keys in ([], [str(controller.key)]):
        for key in keys:
            Path(key).touch()
        _code, told, text = controller.play("verify", verify_report=str(report))
        assert told == keys, text
        # This machine is no gateway, so there are findings; the key is none of them.
        assert "root" not in json.dumps(json.loads(report.read_text())["hub"])
