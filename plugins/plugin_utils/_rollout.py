# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What the action plugins of rollouts share: the engine is the controller's, in the Python package `wattfleet`."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError


def folder_of(arguments: dict[str, Any], inventories: list[str]) -> Any:
    """The rollouts' folder: the one that is named, or beside the fleet file."""
    try:
        from wattfleet.rollout.folder import Folder
    except ImportError as error:
        raise AnsibleError(
            f"the rollout engine is not there ({error}): run ansible-playbook from the project's environment"
        ) from None
    if arguments.get("state"):
        return Folder(Path(arguments["state"]))
    return Folder.of(fleet_file(inventories))


def fleet_file(inventories: list[str]) -> Path:
    """The fleet file among the inventories that Ansible was given."""
    found = [source for source in inventories if source.endswith("sites.yml")]
    if len(found) != 1:
        raise AnsibleError(
            f"found {len(found)} fleet files (-i …sites.yml), expected one: {', '.join(inventories)}"
        )
    return Path(found[0])


def who() -> str:
    """Stands in the ledger."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
