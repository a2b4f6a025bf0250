# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
name: site_verdict
short_description: Judge the state of a gateway
version_added: 0.1.0
description:
  - Holds what M(wattfleet.energy.gateway_info) found, and what the hub has committed, against the site file
    and limits.
options:
  _input:
    description: The registered result of M(wattfleet.energy.gateway_info), that of an unreachable host too.
    type: dict
    required: true
  site:
    description: The site file, as the inventory gives it in C(energy_site).
    type: dict
    required: true
  committed:
    description: What the hub committed, or a text that says why it could not be asked.
    type: raw
    required: true
  limits:
    description:
      - C(clock_offset_max) in seconds, C(certificate_days_min), C(buffer_age_max) in seconds, and C(minutes).
    type: dict
    required: true
  now:
    description: The controller's time in seconds since 1970.
    type: float
    required: true
author:
  - Wattfleet contributors (@wattfleet)
seealso:
  - plugin: wattfleet.energy.verdict_text
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Judge the site
  ansible.builtin.set_fact:
    verdict: >-
      {{ gateway | wattfleet.energy.site_verdict(site=energy_site, committed={'sites': {'plant-a':
      {'readings': 120}}},
         limits={'clock_offset_max': 2, 'certificate_days_min': 30, 'buffer_age_max': 600, 'minutes': 5},
         now=now(utc=true).timestamp()) }}
"""

RETURN = r"""
_value:
  description:
    - The figures of the site, C(ok), and C(findings), each with C(check), C(subject), C(error) and the likely
      C(cause).
  type: dict
  sample:
    site: plant-a
    ok: true
    findings: []
    reachable: true
    clock_offset: 0.02
    certificate_days: 364.1
    meters: 3
    meters_answering: 3
    error_growth: 0
    links: true
    services: true
    buffer: 12
    committed: 1830
"""

from ansible_collections.wattfleet.energy.plugins.plugin_utils import _verdict


class FilterModule:
    """The filter by its name."""

    def filters(self) -> dict[str, object]:
        return {"site_verdict": _verdict.judge}
