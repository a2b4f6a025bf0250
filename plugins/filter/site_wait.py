# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors

from __future__ import annotations

DOCUMENTATION = r"""
name: site_wait
short_description: Seconds in which a controller comes back to a site, by its link
version_added: 0.3.0
description:
  - How long a change waits at least for its confirmation over a new connection, before the host undoes it.
  - 60 s on a LAN, 120 s on a mobile network, 300 s by satellite. The guard waits longer where three times a measured
    connection is more.
  - A host that is no site, such as the hub, is reached by a LAN.
options:
  _input:
    description: The site file, as the inventory gives it in C(energy_site).
    type: dict
    required: true
author:
  - Wattfleet contributors (@wattfleet)
seealso:
  - module: wattfleet.energy.guard
"""

EXAMPLES = r"""
- name: Undo a change of sshd that nobody confirms in the time that the site's link takes
  wattfleet.energy.guard:
    subject: sshd
    files: "{{ sshd_files }}"
    wait_min: "{{ energy_site | wattfleet.energy.site_wait }}"
"""

RETURN = r"""
_value:
  description: Seconds.
  type: int
  sample: 300
"""

from ansible_collections.wattfleet.energy.plugins.module_utils.network import site


class FilterModule:
    """The filter by its name."""

    def filters(self) -> dict[str, object]:
        return {"site_wait": site.wait_of}
