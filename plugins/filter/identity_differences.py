# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
name: identity_differences
short_description: What of a host's key and certificate is not as it should be
version_added: "0.3.0"
description:
  - Compares what M(wattfleet.energy.host_state) has read with what the role C(identity) wants, on the
    controller and without asking the host again.
options:
  _input:
    description: The fact C(energy_host).
    type: dict
    required: true
  wanted:
    description:
      - What the role wants, by the names of its variables without C(identity_), and C(common_name) for its
        C(identity_site).
      - C(intermediate) and C(authorities) are the texts of the authority's files, C(now) the time in seconds
        since 1970.
    type: dict
    required: true
  csr:
    description: The host's request where it has just been written, in place of the one in the fact.
    type: str
author:
  - Wattfleet contributors (@wattfleet)
seealso:
  - module: wattfleet.energy.identity_request
  - module: wattfleet.energy.identity_install
"""

EXAMPLES = r"""
- name: Compare
  ansible.builtin.set_fact:
    found: "{{ ansible_facts.energy_host | wattfleet.energy.identity_differences(wanted=identity_wanted) }}"
"""

RETURN = r"""
_value:
  description:
    - C(packages), C(group), C(user) and C(directory) tell what is missing.
    - C(request) has the reasons to look after key and request, C(reasons) those to replace the certificate,
      C(install) those to write the public files anew. All are empty where nothing differs.
    - C(leaf), C(serial) and C(days_left) are those of the certificate in use.
  type: dict
  sample: {packages: [], group: false, user: false, directory: false, request: [], reasons: ['50.1 % of its
    life have
        passed'], install: [], leaf: '-----BEGIN CERTIFICATE-----…', serial: 5a01, days_left: 182.1}
"""

from typing import Any


def differences(*arguments: Any, **options: Any) -> dict[str, Any]:
    """What of a host's key and certificate is not as it should be."""
    # Imported here: what lists plugins need not have the cryptography library.
    from ansible_collections.wattfleet.energy.plugins.plugin_utils import _identity

    return _identity.differences(*arguments, **options)


class FilterModule:
    """The filter by its name."""

    def filters(self) -> dict[str, object]:
        return {"identity_differences": differences}
