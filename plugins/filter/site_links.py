# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
name: site_links
short_description: The interfaces of a site whose links tell of its health
version_added: "0.3.0"
description:
  - The interfaces of the site's networks, and the ports of its bonds.
options:
  _input:
    description: The site file, as the inventory gives it in C(energy_site).
    type: dict
    required: true
author:
  - Wattfleet contributors (@wattfleet)
seealso:
  - module: wattfleet.energy.link_counters
"""

EXAMPLES = r"""
- name: Look at the links of a site
  wattfleet.energy.link_counters:
    interfaces: "{{ energy_site | wattfleet.energy.site_links }}"
"""

RETURN = r"""
_value:
  description: Names of interfaces.
  type: list
  elements: str
  sample: [eth0, bond0.20, bond0, eth1, eth2]
"""

from ansible_collections.wattfleet.energy.plugins.module_utils.network import site


class FilterModule:
    """The filter by its name."""

    def filters(self) -> dict[str, object]:
        return {"site_links": site.links_of}
