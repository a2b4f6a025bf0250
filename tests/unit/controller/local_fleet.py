# SPDX-License-Identifier: Apache-2.0
"""A hub and two gateways that are this machine, for playbooks run by plain ansible-playbook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[3]


def write_inventory(folder: Path) -> None:
    inventory = {
        "all": {
            "hosts": {"hub": {}},
            "children": {"gateways": {"hosts": {"plant-a": {}, "plant-b": {}}}},
            "vars": {
                "ansible_connection": "local",
                "ansible_become": False,
                "ansible_python_interpreter": sys.executable,
            },
        }
    }
    (folder / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")


def play(
    folder: Path, playbook: str | Path, variables: Mapping[str, object], *arguments: str
) -> tuple[int, str]:
    """Exit status, and what it said on both streams. A playbook of the project by its name, another one by its path."""
    file = playbook if isinstance(playbook, Path) else f"playbooks/{playbook}.yml"
    done = subprocess.run(
        [
            *("ansible-playbook", "-i", folder / "hosts.yml", file, *arguments),
            *("-e", json.dumps(variables)),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_INVENTORY_ENABLED": "yaml",
        },
    )
    return done.returncode, done.stdout + done.stderr
