#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""One more line in a ledger, on the disk before anybody acts on it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ledger_entry
short_description: Append an entry to a ledger
version_added: "0.1.0"
description:
  - A ledger is a file with one JSON object a line, which is only ever appended to.
  - The entry is on the disk when the module returns, so that a power cut afterwards loses nothing.
  - Writers of several runs wait for each other.
  - Where a power cut has left a last line without its end, that line stays as it is and the entry begins a new
    one. The module warns of it.
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
  description: The last line as it was found, when it had no end.
  returned: when there was one
  type: str
  sample: '{"name": "plant-a", "ser'
"""

import fcntl
import json
import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils.durable_file import sync_folder

TAIL = 65536  # bytes; an entry is below 1000


def torn_line(ledger: int) -> str:
    """The last line of an open ledger when it has no end, otherwise nothing."""
    size = os.fstat(ledger).st_size
    tail = os.pread(ledger, TAIL, max(0, size - TAIL))
    return "" if not tail or tail.endswith(b"\n") else tail.rpartition(b"\n")[2].decode(errors="replace")


def append(path: Path, entry: dict[str, object]) -> str:
    """Append the entry durably; the torn line that was found before it."""
    is_new = not path.exists()
    ledger = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        torn = torn_line(ledger)
        data = ("\n" if torn else "").encode() + json.dumps(entry).encode() + b"\n"
        # A file system that is full may take a part of it.
        while data:
            data = data[os.write(ledger, data) :]
        os.fsync(ledger)
    finally:
        os.close(ledger)
    if is_new:
        sync_folder(path.parent)
    return torn


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
            torn = append(Path(path), entry)
        except OSError as error:
            module.fail_json(msg=f"{path}: the ledger cannot be written: {error.strerror}")
        if torn:
            module.warn(
                f"{path}: the last line is torn and stays as it is, nothing was lost after it: {torn}"
            )
            result["torn"] = torn
    module.exit_json(**result)


if __name__ == "__main__":
    main()
