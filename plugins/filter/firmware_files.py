# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""What a gateway needs to take releases, as the filter file_differences compares it."""

from __future__ import annotations

import functools
import json
import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware import install
from ansible_collections.wattfleet.energy.plugins.module_utils.firmware.host import FirmwareError

DOCUMENTATION = r"""
name: firmware_files
short_description: The files that a gateway needs to take releases
version_added: 0.3.0
description:
  - Tells what M(wattfleet.energy.firmware_gateway) would write for a model, so that it has to run only where
    P(wattfleet.energy.file_differences#filter) finds a difference.
options:
  _input:
    description:
      - The gateway's model.
    type: str
    required: true
  trust:
    description:
      - Threshold and keys, as the module takes them.
    type: dict
    required: true
  adapter:
    description:
      - The adapter, as the module takes it; empty for none.
    type: dict
    required: true
  python:
    description:
      - The Python of the gateway, from the fact that M(wattfleet.energy.host_state) leaves.
    type: str
    required: true
author:
  - Wattfleet contributors (@wattfleet)
seealso:
  - module: wattfleet.energy.firmware_gateway
"""

EXAMPLES = r"""
- name: Give the gateway what it needs, where it differs
  wattfleet.energy.firmware_gateway:
    model: "{{ firmware_model }}"
    trust: "{{ firmware_trust }}"
    adapter: "{{ firmware_adapter }}"
  when: ansible_facts.energy_host.files | wattfleet.energy.file_differences(wanted) | length > 0
  vars:
    wanted: "{{ model | wattfleet.energy.firmware_files(firmware_trust, firmware_adapter, '/usr/bin/python3') }}"
    model: "{{ firmware_model }}"
"""

RETURN = r"""
_value:
  description: The wanted files by path.
  type: dict
  sample: {/etc/energy-firmware/gateway.json: {sha256: 9f86d081, owner: root, group: root, mode: "0644"}}
"""


def firmware_files(
    model: str, trust: t.Mapping[str, t.Any], adapter: t.Mapping[str, t.Any], python: str
) -> dict[str, dict[str, str]]:
    """path -> what it has to be."""
    # One text for the same settings: thousands of sites have the same few.
    return dict(_files(str(model), _plain(trust), _plain(adapter), str(python)))


def _plain(value: t.Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


@functools.lru_cache(maxsize=64)
def _files(model: str, trust: str, adapter: str, python: str) -> dict[str, dict[str, str]]:
    try:
        return install.described(
            install.wanted(python, model, json.loads(trust), json.loads(adapter) or None)
        )
    except FirmwareError as error:
        raise AnsibleFilterError(f"firmware_files: {error}") from None


class FilterModule:
    """Makes the filter known to Ansible."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"firmware_files": firmware_files}
