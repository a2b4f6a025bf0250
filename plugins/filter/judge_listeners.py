# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
name: judge_listeners
short_description: Hold what listens on a host against what is declared
version_added: "0.3.0"
description:
  - Tells which units are to be masked because they listen and nobody has declared it, and which listeners only a
    person can decide about.
options:
  _input:
    description: The fact C(energy_host), as M(wattfleet.energy.host_state) reads it.
    type: dict
    required: true
  declared:
    description:
      - What may listen. Each entry has a C(port), and may have C(protocol) (V(tcp) unless given), C(process), and
        C(address), which is an address or V(loopback).
    type: list
    elements: dict
    required: true
  unwanted:
    description: Units that are masked wherever a host has them, unless a declared listener belongs to them.
    type: list
    elements: str
    required: true
  mask_others:
    description: Whether other units that listen undeclared are masked as well.
    type: bool
    default: false
author:
  - Wattfleet contributors (@wattfleet)
seealso:
  - module: wattfleet.energy.host_state
"""

EXAMPLES = r"""
- name: Stop when something listens that nobody has declared
  ansible.builtin.assert:
    that: found.refused | length == 0
    fail_msg: "{{ found.refused | join('\n') }}"
  vars:
    found: >-
      {{ ansible_facts.energy_host
         | wattfleet.energy.judge_listeners(declared=[{'port': 22}], unwanted=['vsftpd.service']) }}
"""

RETURN = r"""
_value:
  description: The units to mask, and a line for each listener that is refused.
  type: dict
  sample:
    close: [vsftpd.service]
    refused:
      - "python3 of portal.service listens on tcp 0.0.0.0:8080, and nobody has declared it: name it in
        hardening.listeners, or set hardening.mask_undeclared to have it stopped and masked"
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.wattfleet.energy.plugins.plugin_utils import _listeners


def judge_listeners(
    host: Mapping[str, Any],
    declared: Iterable[Mapping[str, Any]],
    unwanted: Iterable[str],
    mask_others: bool = False,
) -> dict[str, list[str]]:
    """See DOCUMENTATION."""
    return _listeners.judge_listeners(host, declared, unwanted, mask_others)


class FilterModule:
    """The filter by its name."""

    def filters(self) -> dict[str, object]:
        return {"judge_listeners": judge_listeners}
