# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
name: probe_targets
short_description: The meters of a site file as gateway_info takes them
version_added: 0.1.0
description:
  - Joins the meters of a site file with their buses.
options:
  _input:
    description: The site file, as the inventory gives it in C(energy_site).
    type: dict
    required: true
author:
  - Wattfleet contributors (@wattfleet)
seealso:
  - module: wattfleet.energy.gateway_info
"""

EXAMPLES = r"""
- name: Look at a gateway
  wattfleet.energy.gateway_info:
    meters: "{{ energy_site | wattfleet.energy.probe_targets }}"
"""

RETURN = r"""
_value:
  description: One target for each meter.
  type: list
  elements: dict
  sample: [{meter: main, bus: hall, unit: 1, host: 192.168.10.20, port: 502, framing: modbus-tcp, timeout:
    1.0}]
"""

from ansible_collections.wattfleet.energy.plugins.plugin_utils import _verdict


class FilterModule:
    """The filter by its name."""

    def filters(self) -> dict[str, object]:
        return {"probe_targets": _verdict.probe_targets}
