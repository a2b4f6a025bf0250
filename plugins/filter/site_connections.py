# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
name: site_connections
short_description: The networks of a site file as network_connections takes them
version_added: "0.3.0"
description:
  - One connection for each network of the site, the WAN first. The meters' network is called
    C(EnergyInternal) on the gateway.
options:
  _input:
    description: The site file, as the inventory gives it in C(energy_site).
    type: dict
    required: true
author:
  - Wattfleet contributors (@wattfleet)
seealso:
  - module: wattfleet.energy.network_connections
"""

EXAMPLES = r"""
- name: Keep the connections of a site
  wattfleet.energy.network_connections:
    connections: "{{ energy_site | wattfleet.energy.site_connections }}"
"""

RETURN = r"""
_value:
  description: The connections.
  type: list
  elements: dict
  sample:
    - {name: wan, interface: eth0, addresses: [10.20.4.11/24], gateway: 10.20.4.1}
    - {name: EnergyInternal, interface: eth1, addresses: [192.168.10.10/24]}
"""

from ansible_collections.wattfleet.energy.plugins.module_utils.network import site


class FilterModule:
    """The filter by its name."""

    def filters(self) -> dict[str, object]:
        return {"site_connections": site.connections_of}
