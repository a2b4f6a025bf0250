#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Which certificates of the fleet's authority are no longer to be believed, entered for ever."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: certificate_revocation
short_description: Enter certificates of the fleet's authority as revoked
version_added: "0.3.0"
description:
  - Looks up in the authority's ledger what was issued to a name, or which certificate bears a serial number, and
    appends one line to C(revoked.jsonl) for each of them that has not expired and is not revoked yet.
  - Runs on the controller, where the authority is. The entry alone refuses nobody, it takes effect with the next list,
    see M(wattfleet.energy.revocation_list).
  - Nothing is ever taken out of C(revoked.jsonl). A name that is to come back gets a new certificate.
  - A last line that a power cut has torn is told as a warning and left out. Any other line that is no entry stops the
    module, since a certificate that is overlooked stays valid.
options:
  directory:
    description: Folder of the authority on the controller, with the ledger in C(issued/).
    type: path
    required: true
  name:
    description: Name in the certificates, for a gateway that of its site. All of them are revoked.
    type: str
  serial:
    description: Serial number of one certificate in hexadecimal digits, as the ledger tells it.
    type: str
  reason:
    description: Why, in the words of RFC 5280, section 5.3.1.
    type: str
    choices: [unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn]
    default: unspecified
  who:
    description: Who has them revoked. The user of the controller when it is not given.
    type: str
attributes:
  check_mode:
    description: Tells which certificates would be revoked.
    support: full
  diff_mode:
    description: Shows the lines that are added.
    support: full
  idempotent:
    description: What is revoked already is not entered again.
    support: full
  platform:
    description: Linux.
    platforms: linux
    support: full
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Revoke what the site's gateway proves itself with
  wattfleet.energy.certificate_revocation:
    directory: /srv/wattfleet/ca
    name: lab-01
    reason: keyCompromise
  delegate_to: localhost
  register: revoked

- name: Tell what was revoked
  ansible.builtin.debug:
    msg: "{{ revoked.added | map(attribute='serial') | join(', ') }}"
"""

RETURN = r"""
added:
  description: The entries that were added, oldest certificate first.
  returned: always
  type: list
  elements: dict
  sample:
    - serial: 5a01
      name: lab-01
      when: "2026-11-28T20:00:00Z"
      reason: keyCompromise
      who: ops@controller
      not_after: 20271128200000Z
name:
  description: The name in the certificates.
  returned: always
  type: str
  sample: lab-01
already:
  description: Serial numbers of certificates that are valid by their time and had been revoked before.
  returned: always
  type: list
  elements: str
  sample: [5a00]
expired:
  description: Number of certificates that have expired, which nobody accepts anyway.
  returned: always
  type: int
  sample: 3
"""

import difflib
import fcntl
import getpass
import json
import os
import re
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wattfleet.energy.plugins.module_utils import _ledger

Entry = dict[str, Any]


NEEDED = ("serial", "name", "not_after")


class RefusedError(ValueError):
    """What was asked for cannot be done; the message says why, in one line."""


def read(path: Path, torn: list[str]) -> list[Entry]:
    """The entries of a ledger. Raises RefusedError."""
    try:
        found, bad = _ledger.read(path, NEEDED)
    except _ledger.NoEntryError as error:
        raise RefusedError(str(error)) from None
    torn += bad
    return [{**entry, "serial": str(entry["serial"]).lower()} for entry in found]


def by_name(folder: Path, name: str, torn: list[str]) -> list[Entry]:
    """All certificates of a name. Raises RefusedError."""
    path = folder / "issued" / f"{name}.jsonl"
    if "/" not in name and path.is_file():
        return read(path, torn)
    known = sorted(one.stem for one in (folder / "issued").glob("*.jsonl"))
    near = difflib.get_close_matches(name, known, 3, 0.6)
    raise RefusedError(
        f"no certificate was ever issued to {name!r} by the authority in {folder}"
        + (f"; did you mean {' or '.join(near)}?" if near else f" ({len(known)} names are in its ledger)")
    )


def by_serial(folder: Path, serial: str, torn: list[str]) -> list[Entry]:
    """The certificate with a serial number. Raises RefusedError."""
    plain = re.sub(r"^(0x)?0*", "", serial.lower().replace(":", ""))
    if not re.fullmatch(r"[0-9a-f]{1,40}", plain):
        raise RefusedError(f"serial {serial!r}: up to 40 hexadecimal digits are expected")
    for path in sorted((folder / "issued").glob("*.jsonl")):
        for entry in read(path, torn):
            if entry["serial"] == plain:
                return [entry]
    raise RefusedError(f"no certificate with the serial number {plain} is in the ledger of {folder}")


def expired(entry: Entry, now: datetime) -> bool:
    end = datetime.strptime(entry["not_after"], "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)
    return end < now


def who_runs() -> str:
    return f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "name": {"type": "str"},
            "serial": {"type": "str"},
            "reason": {
                "type": "str",
                "choices": [
                    "unspecified",
                    "keyCompromise",
                    "affiliationChanged",
                    "superseded",
                    "cessationOfOperation",
                    "privilegeWithdrawn",
                ],
                "default": "unspecified",
            },
            "who": {"type": "str"},
        },
        required_one_of=[("name", "serial")],
        mutually_exclusive=[("name", "serial")],
        supports_check_mode=True,
    )
    folder = Path(module.params["directory"])
    path = folder / "revoked.jsonl"
    now = datetime.now(timezone.utc)
    torn: list[str] = []
    try:
        name, serial = module.params["name"], module.params["serial"]
        issued = by_name(folder, name, torn) if name else by_serial(folder, serial, torn)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = {entry["serial"] for entry in read(path, torn)}
            living = [entry for entry in issued if not expired(entry, now)]
            added = [
                {
                    "serial": entry["serial"],
                    "name": entry["name"],
                    "when": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "reason": module.params["reason"],
                    "who": module.params["who"] or who_runs(),
                    "not_after": entry["not_after"],
                }
                for entry in living
                if entry["serial"] not in known
            ]
            if added and not module.check_mode:
                _ledger.append(path, added)
        finally:
            os.close(lock)
    except RefusedError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or path}: {error.strerror}")
    for message in torn:
        module.warn(message)
    module.exit_json(
        changed=bool(added),
        name=issued[0]["name"] if issued else name,
        added=added,
        already=[entry["serial"] for entry in living if entry["serial"] in known],
        expired=len(issued) - len(living),
        diff={"before": "", "after": "".join(json.dumps(entry) + "\n" for entry in added)},
    )


if __name__ == "__main__":
    main()
