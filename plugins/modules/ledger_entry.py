#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""One more line in a ledger, on the disk before anybody acts on it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ledger_entry
short_description: Append an entry to a ledger
version_added: "0.3.0"
description:
  - A ledger is a file with one JSON object a line, which is only ever appended to.
  - The entry is on the disk when the module returns, so that a power cut afterwards loses nothing.
  - Writers of several runs wait for each other.
  - Where a power cut has torn the last line, the entry takes its place, and the module warns of it. Nothing was done
    with what it was about, since its writer never came back. A last line that lacks only its end is whole, and stays.
attributes:
  check_mode:
    description: Says that an entry would be written, and writes none.
    support: full
  diff_mode:
    description: Shows the entry.
    support: full
  idempotent:
    description: Each run appends. Whether there is something to enter is for the caller to say.
    support: none
  platform:
    description: Linux.
    platforms: linux
    support: full
options:
  path:
    description: The ledger. It is made with mode V(0644) when it does not exist; its folder has to be there.
    type: path
    required: true
  entry:
    description: What is entered.
    type: dict
    required: true
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Enter the certificate in the ledger
  wattfleet.energy.ledger_entry:
    path: /srv/ca/issued/plant-a.jsonl
    entry: {name: plant-a, serial: 5a01}
  delegate_to: localhost
"""

RETURN = r"""
torn:
  description: The beginning of the last line, when that was torn.
  returned: when there was one
  type: str
  sample: '{"name": "plant-a", "ser'
"""

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils import _ledger


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "entry": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    path, entry = module.params["path"], module.params["entry"]
    result = {"changed": True, "diff": {"before": "", "after": json.dumps(entry) + "\n"}}
    if not module.check_mode:
        try:
            torn = _ledger.append(Path(path), [entry])
        except OSError as error:
            module.fail_json(msg=f"{path}: the ledger cannot be written: {error.strerror}")
        if torn:
            module.warn(f"{path}: the last line was torn, and the new entry has taken its place: {torn!r}")
            result["torn"] = torn
    module.exit_json(**result)


if __name__ == "__main__":
    main()
