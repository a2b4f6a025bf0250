# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The lookup wattfleet.energy.certificate_ledger."""

from __future__ import annotations

DOCUMENTATION = r"""
name: certificate_ledger
short_description: Which certificate each name of the fleet uses
version_added: "0.3.0"
description:
  - Reads the ledgers in the folder of the fleet's authority on the controller, and asks no host.
  - Warns of a last line that a power cut has torn, and leaves it out. Any other line that is no entry is an error.
options:
  _terms:
    description: The folder of the authority.
    type: list
    elements: path
    required: true
  names:
    description: Only these names; all where it is empty.
    type: list
    elements: str
    default: []
author:
  - Wattfleet contributors (@wattfleet)
"""

EXAMPLES = r"""
- name: Tell how long the certificate of a site lives
  ansible.builtin.debug:
    msg: "{{ (query('wattfleet.energy.certificate_ledger', folder, names=['plant-a']) | first).days_left }}"
  vars:
    folder: /srv/wattfleet/ca
"""

RETURN = r"""
_list:
  description:
    - For each name and usage the certificate in use, which is the one that was installed last, or the newest
      where none was.
    - C(authorities) are the SHA-256 digests of what its host trusts, C(serials) all serial numbers of that name
      and usage that are neither expired nor revoked.
  type: list
  elements: dict
  sample:
    - name: plant-a
      host: plant-a
      usage: client
      serial: 5a01
      issuer: 09af
      not_after: 20271128193000Z
      days_left: 182.1
      installed: "2026-11-28T19:30:00Z"
      authorities: [1b22]
      revoked: false
      serials: [5a01]
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display
from ansible_collections.wattfleet.energy.plugins.plugin_utils import _ledger


class LookupModule(LookupBase):
    """The lookup by its name."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        result = []
        for folder in terms:
            try:
                found, torn = _ledger.in_use(Path(folder), self.get_option("names"))
            except ValueError as error:
                raise AnsibleLookupError(str(error)) from None
            for message in torn:
                Display().warning(message)
            result += found
        return result
